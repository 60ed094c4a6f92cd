//! The tenants' logs.

use std::collections::HashMap;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::QueryBuilder;
use sqlx::sqlite::{Sqlite as Dialect, SqliteConnection, SqlitePool};

use super::{DELETED_ROWS, DELETION_PAUSE, Sqlite, column, count, to_json, unreadable};
use crate::store::db::network_acl::AclsSummary;
use crate::store::db::{
    ACLS_SUMMARY, AclTotal, Error, LogEvent, LogField, LogFilter, LogLimits, LogOrder, LogQuery, Logs,
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
        let rows: Vec<EventRow> = select.build_query_as().persistent(false).fetch_all(&self.readers).await?;
        rows.into_iter().map(EventRow::stored).collect()
    }

    async fn log_total(&self, tenant: u32, filter: Option<&LogFilter>) -> Result<u64, Error> {
        let mut select = of_tenant("SELECT count(*)", tenant, filter);
        count(select.build_query_scalar().persistent(false).fetch_one(&self.readers).await?)
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

    async fn prune_log(&self, tenant: u32, limits: LogLimits, now: u64) -> Result<u64, Error> {
        let LogLimits { max_age, max_events } = limits;
        let mut pruned = 0_u64;
        loop {
            let deleted = sqlx::query(
                "DELETE FROM tenant_log WHERE id IN (SELECT id FROM tenant_log WHERE tenant = ?1 AND (date < ?2 \
                 OR id <= (SELECT id FROM tenant_log WHERE tenant = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?3)) \
                 ORDER BY id LIMIT ?4)",
            )
            .bind(tenant)
            .bind(column(now.saturating_sub(max_age)))
            .bind(max_events)
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
        LogFilter::Has(field) => {
            query.push("(");
            push_field(query, field);
            query.push(" IS NOT NULL)");
        }
        LogFilter::Mentions(text) => {
            query.push("(instr(lower(data), ").push_bind(text.to_ascii_lowercase()).push(") > 0)");
        }
        LogFilter::Is { field, value, prefix } => {
            let value = value.to_ascii_lowercase();
            // Absent is no value, and must not make a negation absent.
            query.push("coalesce(");
            match field {
                LogField::Text(_) if !prefix => {
                    query.push("instr(lower(");
                    push_field(query, field);
                    query.push("), ").push_bind(value).push(") > 0");
                }
                _ if *prefix => {
                    query.push("instr(lower(");
                    push_field(query, field);
                    query.push("), ").push_bind(value).push(") = 1");
                }
                _ => {
                    query.push("lower(");
                    push_field(query, field);
                    query.push(") = ").push_bind(value);
                }
            }
            query.push(", false)");
        }
    }
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

fn push_field(query: &mut QueryBuilder<Dialect>, field: &LogField) {
    match field {
        LogField::Type => _ = query.push("type"),
        LogField::Id => _ = query.push("CAST(id AS TEXT)"),
        LogField::Text(name) | LogField::Data(name) => {
            query.push("CAST(data ->> ").push_bind(format!("$.{name}")).push(" AS TEXT)");
        }
    }
}
