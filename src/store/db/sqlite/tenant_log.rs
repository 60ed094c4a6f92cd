//! The tenants' logs.

use std::collections::HashMap;

use serde_json::value::RawValue;
use sqlx::sqlite::SqlitePool;

use super::{column, to_json, unreadable};
use crate::store::db::network_acl::AclsSummary;
use crate::store::db::{ACLS_SUMMARY, AclTotal, Error};

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

    let mut events: Vec<(u32, AclsSummary)> = Vec::with_capacity(rows.len());
    for total in totals {
        let Some(rule) = rules.get(&(total.slot, total.acl_id.as_str())) else { continue };
        let action: &RawValue =
            serde_json::from_str(&rule.action).map_err(|_| unreadable(&format!("the access rule {}", rule.id)))?;
        events.push((total.slot, AclsSummary::new(total, &rule.description, rule.priority, action, end)));
    }
    if events.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO tenant_log (tenant, date, type, data) \
         SELECT value ->> 0, ?, ?, value -> 1 FROM json_each(?) \
         WHERE EXISTS (SELECT 1 FROM tenants WHERE slot = value ->> 0 AND deleted = 0)",
    )
    .bind(column(end))
    .bind(ACLS_SUMMARY)
    .bind(to_json(&events)?)
    .execute(writer)
    .await?;
    Ok(())
}
