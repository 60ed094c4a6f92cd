//! The tenants' logs.

use std::collections::HashMap;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::QueryBuilder;

use super::{
    Backend, Connection, DELETED_ROWS, DELETION_PAUSE, Driver, column, count, lock_tenants, query, query_as,
    query_scalar, text, to_json, unreadable,
};
use crate::store::db::log::RefusalEvent;
use crate::store::db::network_acl::AclsSummary;
use crate::store::db::{
    ACLS_SUMMARY, AclTotal, Activity, Error, LogEvent, LogField, LogFilter, LogLimits, LogOrder, LogQuery, Logs,
    REFUSED, REGISTERED, REGISTRATION, RefusalTotal, TOO_MANY,
};

/// The statement that writes events.
macro_rules! write_events {
    () => {
        concat!(
            "INSERT INTO tenant_log (tenant, date, type, data) SELECT CAST(event.value ->> 0 AS BIGINT), \
             CAST(event.value ->> 1 AS BIGINT), $1, CAST(event.value -> 2 AS TEXT) FROM ",
            rows!("$2", "event"),
            " WHERE EXISTS (SELECT 1 FROM tenants WHERE slot = CAST(event.value ->> 0 AS BIGINT) AND deleted = 0)"
        )
    };
}

/// Writes events of one type, each with its tenant's slot, its date in UNIX milliseconds and its data, into the logs of
/// tenants that live.
pub(super) async fn write_events(
    connection: &mut Connection,
    event_type: &str,
    events: &[(i64, u64, impl Serialize)],
) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    query(write_events!()).bind(event_type).bind(to_json(&events)?).execute(connection).await?;
    Ok(())
}

/// Writes one event, and gives its id, unless the tenant is gone.
pub(super) async fn write_event(
    connection: &mut Connection,
    event_type: &str,
    tenant: i64,
    date: u64,
    data: &impl Serialize,
) -> Result<Option<i64>, Error> {
    let id = query_scalar(concat!(write_events!(), " RETURNING id"))
        .bind(event_type)
        .bind(to_json(&[(tenant, date, data)])?)
        .fetch_optional(connection)
        .await?;
    Ok(id)
}

/// Writes what the event with this id is to say, unless it was deleted meanwhile.
pub(super) async fn rewrite_event(connection: &mut Connection, id: i64, data: &impl Serialize) -> Result<(), Error> {
    query("UPDATE tenant_log SET data = $1 WHERE id = $2").bind(to_json(data)?).bind(id).execute(connection).await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct RuleRow {
    tenant: i64,
    id: String,
    description: String,
    priority: i64,
    /// JSON.
    action: String,
}

impl Backend {
    /// Writes what rules did until `end`, each as one event. Rules that are gone, and those of tenants that are, are left
    /// out. The rules are read before a lock for writing is taken: the actions stand in JSON that may be megabytes long.
    pub(super) async fn write_acl_totals(&self, totals: &[AclTotal], end: u64) -> Result<(), Error> {
        let ids: Vec<&str> = totals.iter().map(|total| total.acl_id.as_str()).collect();
        let rows: Vec<RuleRow> = query_as(concat!(
            "SELECT tenant, id, description, priority, CAST(",
            json!("rule"),
            " -> 'action' AS TEXT) AS action FROM network_acls WHERE id IN (",
            texts!("$1"),
            ")"
        ))
        .bind(to_json(&ids)?)
        .fetch_all(&mut *self.read().await?)
        .await?;
        let rules: HashMap<(i64, &str), &RuleRow> =
            rows.iter().map(|row| ((row.tenant, row.id.as_str()), row)).collect();

        let mut events: Vec<(i64, u64, AclsSummary)> = Vec::with_capacity(rows.len());
        for total in totals {
            let slot = i64::from(total.slot);
            let Some(rule) = rules.get(&(slot, total.acl_id.as_str())) else { continue };
            let action: &RawValue =
                serde_json::from_str(&rule.action).map_err(|_| unreadable(&format!("the access rule {}", rule.id)))?;
            let summary = AclsSummary::new(total, &rule.description, rule.priority, action, end);
            events.push((slot, end, summary));
        }
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, events.iter().map(|(slot, ..)| *slot)).await?;
        write_events(&mut transaction, ACLS_SUMMARY, &events).await?;
        Ok(transaction.commit().await?)
    }
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
impl Logs for Backend {
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
        select.push(order).push(" LIMIT ").push_bind(i64::from(*limit)).push(" OFFSET ").push_bind(column(offset));
        let mut search = self.search().await?;
        let rows: Result<Vec<EventRow>, _> =
            select.build_query_as().persistent(false).fetch_all(search.connection()).await;
        search.end(rows).await?.into_iter().map(EventRow::stored).collect()
    }

    async fn log_total(&self, tenant: u32, filter: Option<&LogFilter>) -> Result<u64, Error> {
        let mut select = of_tenant("SELECT count(*)", tenant, filter);
        let mut search = self.search().await?;
        let total = select.build_query_scalar().persistent(false).fetch_one(search.connection()).await;
        count(search.end(total).await?)
    }

    async fn log_event(&self, tenant: u32, id: u64) -> Result<Option<LogEvent>, Error> {
        let row: Option<EventRow> =
            query_as("SELECT id, date, type, data FROM tenant_log WHERE tenant = $1 AND id = $2")
                .bind(i64::from(tenant))
                .bind(column(id))
                .fetch_optional(&mut *self.read().await?)
                .await?;
        row.map(EventRow::stored).transpose()
    }

    async fn registration_activity(&self, tenant: u32, since: u64, slice: u64) -> Result<Vec<Activity>, Error> {
        const REGISTRATIONS: &str = concat!(
            "SELECT (date - $2) / $3, NULL, count(*) FROM tenant_log WHERE tenant = $1 AND date >= $2 AND type = $4 AND ",
            member!("data", "description"),
            " = $5 GROUP BY 1"
        );
        const REFUSALS: &str = concat!(
            "SELECT (date - $2) / $3, reason.key, CAST(sum(CAST(reason.value AS BIGINT)) AS BIGINT) FROM tenant_log, ",
            sql!(
                sqlite: "json_each(data, '$.details.reasons') AS reason",
                postgres: "json_each_text(data::json #> '{details,reasons}') AS reason",
            ),
            " WHERE tenant = $1 AND date >= $2 AND tenant_log.type IN ($4, $5) GROUP BY 1, 2"
        );
        let mut search = self.search().await?;
        let mut rows: Vec<(i64, Option<String>, i64)> = Vec::new();
        let mut failed = Ok(());
        for (statement, one, other) in [(REGISTRATIONS, REGISTERED, REGISTRATION), (REFUSALS, REFUSED, TOO_MANY)] {
            let read: Result<Vec<(i64, Option<String>, i64)>, _> = query_as(statement)
                .bind(i64::from(tenant))
                .bind(column(since))
                .bind(column(slice.max(1)))
                .bind(one)
                .bind(other)
                .fetch_all(search.connection())
                .await;
            match read {
                Ok(read) => rows.extend(read),
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
        }
        search.end(failed).await?;
        let activity = |(slice, refused_for, number): (i64, Option<String>, i64)| {
            Ok(Activity { slice: count(slice)?, refused_for, count: count(number)? })
        };
        rows.into_iter().map(activity).collect()
    }

    async fn write_log_event(&self, tenant: u32, event_type: &str, data: &str, now: u64) -> Result<(), Error> {
        let data: &RawValue = serde_json::from_str(data).map_err(|_| unreadable("an event"))?;
        let slot = i64::from(tenant);
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, [slot]).await?;
        write_events(&mut transaction, event_type, &[(slot, now, data)]).await?;
        Ok(transaction.commit().await?)
    }

    async fn log_refusals(&self, totals: &[RefusalTotal], now: u64) -> Result<(), Error> {
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, totals.iter().map(|total| total.slot.into())).await?;
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
        let last: i64 = query_scalar(concat!(
            "SELECT ",
            greatest!(
                "coalesce((SELECT id FROM tenant_log WHERE tenant = $1 ORDER BY id DESC LIMIT 1 OFFSET $3), 0)",
                "coalesce((SELECT id - 1 FROM tenant_log WHERE tenant = $1 AND date >= $2 ORDER BY id LIMIT 1), \
                 (SELECT max(id) FROM tenant_log WHERE tenant = $1), 0)"
            )
        ))
        .bind(i64::from(tenant))
        .bind(column(now.saturating_sub(max_age)))
        .bind(i64::from(max_events))
        .fetch_one(&mut *self.read().await?)
        .await?;
        let mut pruned = 0_u64;
        loop {
            let mut transaction = self.write().await?;
            let deleted = query(
                "DELETE FROM tenant_log WHERE id IN \
                 (SELECT id FROM tenant_log WHERE tenant = $1 AND id <= $2 ORDER BY id LIMIT $3)",
            )
            .bind(i64::from(tenant))
            .bind(last)
            .bind(DELETED_ROWS)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            transaction.commit().await?;
            pruned = pruned.saturating_add(deleted);
            if column(deleted) < DELETED_ROWS {
                return Ok(pruned);
            }
            tokio::time::sleep(DELETION_PAUSE).await;
        }
    }
}

/// A statement over the events of a tenant for which the filter holds.
fn of_tenant(select: &'static str, tenant: u32, filter: Option<&LogFilter>) -> QueryBuilder<Driver> {
    let mut query = QueryBuilder::new(select);
    query.push(" FROM tenant_log WHERE tenant = ").push_bind(i64::from(tenant));
    if let Some(filter) = filter {
        query.push(" AND ");
        push_filter(&mut query, filter);
    }
    query
}

/// The start of a table of the texts that a JSON path leads to in an event's data.
#[allow(unused_macros, reason = "one of the two dialects needs it")]
macro_rules! path_query {
    () => {
        "(SELECT item #>> '{}' AS value FROM jsonb_path_query(replace(data, '\\u0000', '\\ufffd')::jsonb, "
    };
}

/// The texts, numbers and truth values anywhere in an event's data, as the column `value`.
macro_rules! atoms {
    () => {
        sql!(
            sqlite: "(SELECT iif(type IN ('true', 'false'), type, atom) AS value FROM json_tree(data)) AS field",
            postgres: concat!(
                path_query!(),
                "'strict $.**') AS item WHERE jsonb_typeof(item) IN ('string', 'number', 'boolean')) AS field"
            ),
        )
    };
}

/// The start of a call that tells at which character a text begins in another; 0 if it does not.
macro_rules! position {
    () => {
        sql!(sqlite: "instr(", postgres: "strpos(")
    };
}

/// The column `value` with small letters for those of ASCII.
macro_rules! lower {
    () => {
        sql!(sqlite: "lower(CAST(value AS TEXT))", postgres: "lower(value COLLATE \"C\")")
    };
}

/// What is looked for, with small letters.
fn to_lower(value: &str) -> String {
    text(value).to_ascii_lowercase()
}

/// Adds the condition that the filter holds. Whatever was sent is bound, never a part of the statement.
fn push_filter(query: &mut QueryBuilder<Driver>, filter: &LogFilter) {
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
            query.push(concat!("EXISTS (SELECT 1 FROM ", atoms!(), " WHERE ", position!(), lower!(), ", "));
            query.push_bind(to_lower(text)).push(") > 0)");
        }
        LogFilter::Is { field, value, prefix } => {
            let value = to_lower(value);
            let is_text = matches!(field, LogField::Text(_));
            push_values(query, field, |query| {
                if *prefix || is_text {
                    query.push(concat!(position!(), lower!(), ", ")).push_bind(value);
                    query.push(if *prefix { ") = 1" } else { ") > 0" });
                } else {
                    query.push(concat!(lower!(), " = ")).push_bind(value);
                }
            });
        }
    }
}

/// Adds that one of the values that a member has fulfils a condition: a list has several, an absent member none.
fn push_values(query: &mut QueryBuilder<Driver>, field: &LogField, condition: impl FnOnce(&mut QueryBuilder<Driver>)) {
    query.push("EXISTS (SELECT 1 FROM ");
    match field {
        LogField::Type => _ = query.push("(SELECT type AS value) AS field"),
        LogField::Id => _ = query.push("(SELECT CAST(id AS TEXT) AS value) AS field"),
        LogField::Text(name) | LogField::Data(name) => {
            query.push(sql!(
                // SQLite has numbers for truth values.
                sqlite: "(SELECT iif(type IN ('true', 'false'), type, value) AS value FROM json_each(data, ",
                postgres: concat!(path_query!(), "CAST("),
            ));
            query.push_bind(sql!(
                sqlite: format!("$.{name}"),
                postgres: format!("$.\"{}\"[*]", name.replace('.', "\".\"")),
            ));
            query.push(sql!(sqlite: ")) AS field", postgres: " AS jsonpath)) AS item) AS field"));
        }
    }
    query.push(" WHERE ");
    condition(query);
    query.push(")");
}

fn push_joined(query: &mut QueryBuilder<Driver>, filters: &[LogFilter], between: &str, none: &str) {
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
