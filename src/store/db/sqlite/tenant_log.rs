//! The tenants' logs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::QueryBuilder;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite as Dialect, SqliteConnection, SqlitePool};

use super::{DELETED_ROWS, DELETION_PAUSE, Sqlite, column, count, result_code, to_json, unreadable};
use crate::store::db::log::RefusalEvent;
use crate::store::db::network_acl::AclsSummary;
use crate::store::db::{
    ACLS_SUMMARY, AclTotal, Error, LogEvent, LogField, LogFilter, LogLimits, LogOrder, LogQuery, Logs, REFUSED,
    RefusalTotal, TOO_MANY,
};

/// Writes events of one type, each with its tenant's slot, its date in UNIX milliseconds and its data, into the logs of
/// tenants that live.
pub(super) async fn write_events(
    connection: &mut SqliteConnection,
    event_type: &str,
    events: &[(i64, u64, impl Serialize)],
) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO tenant_log (tenant, date, type, data) \
         SELECT value ->> 0, value ->> 1, ?, value -> 2 FROM json_each(?) \
         WHERE EXISTS (SELECT 1 FROM tenants WHERE slot = value ->> 0 AND deleted = 0)",
    )
    .bind(event_type)
    .bind(to_json(&events)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes one event of a tenant that lives, and gives its id.
pub(super) async fn write_event(
    connection: &mut SqliteConnection,
    event_type: &str,
    tenant: i64,
    date: u64,
    data: &impl Serialize,
) -> Result<i64, Error> {
    write_events(connection, event_type, &[(tenant, date, data)]).await?;
    Ok(sqlx::query_scalar("SELECT last_insert_rowid()").fetch_one(connection).await?)
}

/// Writes what the event with this id is to say, unless it was deleted meanwhile; gives the id.
pub(super) async fn rewrite_event(
    connection: &mut SqliteConnection,
    id: i64,
    data: &impl Serialize,
) -> Result<i64, Error> {
    sqlx::query("UPDATE tenant_log SET data = ? WHERE id = ?")
        .bind(to_json(data)?)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(id)
}

#[derive(sqlx::FromRow)]
struct RuleRow {
    tenant: u32,
    id: String,
    description: String,
    priority: i64,
    /// JSON.
    action: String,
}

/// Writes what rules did until `end`, each as one event. Rules that are gone, and those of tenants that are, are left
/// out. The rules are read before the lock for writing is taken: the actions stand in JSON that may be megabytes long.
pub(super) async fn write_acl_totals(
    readers: &SqlitePool,
    writer: &SqlitePool,
    totals: &[AclTotal],
    end: u64,
) -> Result<(), Error> {
    let ids: Vec<&str> = totals.iter().map(|total| total.acl_id.as_str()).collect();
    let rows: Vec<RuleRow> = sqlx::query_as(
        "SELECT tenant, id, description, priority, rule -> '$.action' AS action FROM network_acls \
         WHERE id IN (SELECT value FROM json_each(?))",
    )
    .bind(to_json(&ids)?)
    .fetch_all(readers)
    .await?;
    let rules: HashMap<(u32, &str), &RuleRow> = rows.iter().map(|row| ((row.tenant, row.id.as_str()), row)).collect();

    let mut events: Vec<(i64, u64, AclsSummary)> = Vec::with_capacity(rows.len());
    for total in totals {
        let Some(rule) = rules.get(&(total.slot, total.acl_id.as_str())) else { continue };
        let action: &RawValue =
            serde_json::from_str(&rule.action).map_err(|_| unreadable(&format!("the access rule {}", rule.id)))?;
        let summary = AclsSummary::new(total, &rule.description, rule.priority, action, end);
        events.push((total.slot.into(), end, summary));
    }
    write_events(&mut *writer.acquire().await?, ACLS_SUMMARY, &events).await
}

#[derive(sqlx::FromRow)]
struct EventRow {
    id: i64,
    date: i64,
    #[sqlx(rename = "type")]
    event_type: String,
    data: String,
}

impl EventRow {
    fn stored(self) -> Result<LogEvent, Error> {
        let Self { id, date, event_type, data } = self;
        Ok(LogEvent { id: count(id)?, date: count(date)?, event_type, data })
    }
}

#[async_trait]
impl Logs for Sqlite {
    async fn log_events(&self, tenant: u32, query: &LogQuery) -> Result<Vec<LogEvent>, Error> {
        let LogQuery { filter, order, limit } = query;
        let mut select = of_tenant("SELECT id, date, type, data", tenant, filter.as_ref());
        let (order, offset) = match *order {
            LogOrder::NewestFirst(offset) => (" ORDER BY id DESC", offset),
            LogOrder::OldestFirst(offset) => (" ORDER BY id", offset),
            LogOrder::After(id) => {
                select.push(" AND id > ").push_bind(column(id));
                (" ORDER BY id", 0)
            }
        };
        select.push(order).push(" LIMIT ").push_bind(*limit).push(" OFFSET ").push_bind(column(offset));
        let mut search = Search::begin(&self.searchers).await?;
        let rows: Result<Vec<EventRow>, _> =
            select.build_query_as().persistent(false).fetch_all(&mut *search.connection).await;
        search.end(rows).await?.into_iter().map(EventRow::stored).collect()
    }

    async fn log_total(&self, tenant: u32, filter: Option<&LogFilter>) -> Result<u64, Error> {
        let mut select = of_tenant("SELECT count(*)", tenant, filter);
        let mut search = Search::begin(&self.searchers).await?;
        let total = select.build_query_scalar().persistent(false).fetch_one(&mut *search.connection).await;
        count(search.end(total).await?)
    }

    async fn log_event(&self, tenant: u32, id: u64) -> Result<Option<LogEvent>, Error> {
        let row: Option<EventRow> =
            sqlx::query_as("SELECT id, date, type, data FROM tenant_log WHERE tenant = ? AND id = ?")
                .bind(tenant)
                .bind(column(id))
                .fetch_optional(&self.readers)
                .await?;
        row.map(EventRow::stored).transpose()
    }

    async fn write_log_event(&self, tenant: u32, event_type: &str, data: &str, now: u64) -> Result<(), Error> {
        let data: &RawValue = serde_json::from_str(data).map_err(|_| unreadable("an event"))?;
        write_events(&mut *self.writer.acquire().await?, event_type, &[(i64::from(tenant), now, data)]).await
    }

    async fn log_refusals(&self, totals: &[RefusalTotal], now: u64) -> Result<(), Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (event_type, by_limiter) in [(REFUSED, false), (TOO_MANY, true)] {
            let totals = totals.iter().filter(|total| total.by_limiter == by_limiter);
            let events: Vec<_> = totals.map(|total| (total.slot.into(), now, RefusalEvent::new(total))).collect();
            write_events(&mut transaction, event_type, &events).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn prune_log(&self, tenant: u32, limits: LogLimits, now: u64) -> Result<u64, Error> {
        let LogLimits { max_age, max_events } = limits;
        // The last event that goes. It is looked for among the readers, since whoever writes makes others wait. Events
        // are written in the order of their dates, so the first young one ends the search for old ones.
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT max(coalesce((SELECT id FROM tenant_log WHERE tenant = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?3), 0), \
             coalesce((SELECT id - 1 FROM tenant_log WHERE tenant = ?1 AND date >= ?2 ORDER BY id LIMIT 1), \
             (SELECT max(id) FROM tenant_log WHERE tenant = ?1), 0))",
        )
        .bind(tenant)
        .bind(column(now.saturating_sub(max_age)))
        .bind(max_events)
        .fetch_one(&self.readers)
        .await?;
        let mut pruned = 0_u64;
        loop {
            let deleted = sqlx::query(
                "DELETE FROM tenant_log WHERE id IN \
                 (SELECT id FROM tenant_log WHERE tenant = ? AND id <= ? ORDER BY id LIMIT ?)",
            )
            .bind(tenant)
            .bind(last)
            .bind(DELETED_ROWS)
            .execute(&self.writer)
            .await?
            .rows_affected();
            pruned = pruned.saturating_add(deleted);
            if deleted < DELETED_ROWS.into() {
                return Ok(pruned);
            }
            tokio::time::sleep(DELETION_PAUSE).await;
        }
    }
}

/// How long a search may take.
const MAX_SEARCH: Duration = Duration::from_secs(3);

/// Instructions of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// A connection for one search, which ends it when it takes too long, also if nobody waits for it any more.
struct Search {
    connection: PoolConnection<Dialect>,
}

impl Search {
    async fn begin(searchers: &SqlitePool) -> Result<Self, Error> {
        let mut connection = searchers.acquire().await?;
        let started = Instant::now();
        connection.lock_handle().await?.set_progress_handler(STEPS, move || started.elapsed() < MAX_SEARCH);
        Ok(Self { connection })
    }

    async fn end<T>(&mut self, found: Result<T, sqlx::Error>) -> Result<T, Error> {
        self.connection.lock_handle().await?.remove_progress_handler();
        found
            .map_err(|error| if result_code(&error) == Some(INTERRUPTED) { Error::SearchTooLong } else { error.into() })
    }
}

/// SQLite's result code of a statement that was ended.
const INTERRUPTED: u32 = 9;

/// A statement over the events of a tenant for which the filter holds.
fn of_tenant(select: &'static str, tenant: u32, filter: Option<&LogFilter>) -> QueryBuilder<Dialect> {
    let mut query = QueryBuilder::new(select);
    query.push(" FROM tenant_log WHERE tenant = ").push_bind(tenant);
    if let Some(filter) = filter {
        query.push(" AND ");
        push_filter(&mut query, filter);
    }
    query
}

/// Adds the condition that the filter holds. Whatever was sent is bound, never a part of the statement.
fn push_filter(query: &mut QueryBuilder<Dialect>, filter: &LogFilter) {
    match filter {
        LogFilter::All(filters) => push_joined(query, filters, " AND ", "true"),
        LogFilter::Any(filters) => push_joined(query, filters, " OR ", "false"),
        LogFilter::Not(filter) => {
            query.push("NOT ");
            push_filter(query, filter);
        }
        LogFilter::Between(first, last) => {
            query.push("(date BETWEEN ").push_bind(column(*first)).push(" AND ").push_bind(column(*last)).push(")");
        }
        LogFilter::Has(field) => push_values(query, field, |query| _ = query.push("true")),
        LogFilter::Mentions(text) => {
            query.push("EXISTS (SELECT 1 FROM json_tree(data) WHERE instr(lower(CAST(atom AS TEXT)), ");
            query.push_bind(text.to_ascii_lowercase()).push(") > 0)");
        }
        LogFilter::Is { field, value, prefix } => {
            let value = value.to_ascii_lowercase();
            let is_text = matches!(field, LogField::Text(_));
            push_values(query, field, |query| {
                if *prefix || is_text {
                    query.push("instr(lower(CAST(value AS TEXT)), ").push_bind(value);
                    query.push(if *prefix { ") = 1" } else { ") > 0" });
                } else {
                    query.push("lower(CAST(value AS TEXT)) = ").push_bind(value);
                }
            });
        }
    }
}

/// Adds that one of the values that a member has fulfils a condition: a list has several, an absent member none.
fn push_values(
    query: &mut QueryBuilder<Dialect>,
    field: &LogField,
    condition: impl FnOnce(&mut QueryBuilder<Dialect>),
) {
    query.push("EXISTS (SELECT 1 FROM ");
    match field {
        LogField::Type => _ = query.push("(SELECT type AS value)"),
        LogField::Id => _ = query.push("(SELECT id AS value)"),
        LogField::Text(name) | LogField::Data(name) => {
            query.push("json_each(data, ").push_bind(format!("$.{name}")).push(")");
        }
    }
    query.push(" WHERE ");
    condition(query);
    query.push(")");
}

fn push_joined(query: &mut QueryBuilder<Dialect>, filters: &[LogFilter], between: &str, none: &str) {
    query.push("(");
    for (place, filter) in filters.iter().enumerate() {
        if place > 0 {
            query.push(between);
        }
        push_filter(query, filter);
    }
    if filters.is_empty() {
        query.push(none);
    }
    query.push(")");
}
