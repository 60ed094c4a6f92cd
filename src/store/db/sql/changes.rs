//! The change feed, in pages.

use std::collections::HashMap;

use super::tenants::{TenantRow, select_tenants};
use super::{Connection, client_changes, column, count, query_as, small, to_json, unreadable};
use crate::edge_api::{Changes, ClientChange, TenantChange};
use crate::store::db::Error;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// Most tenants on one page.
const PAGE_TENANTS: usize = 500;

/// Bytes of tenants after which a page ends.
const PAGE_BYTES: usize = 256 * 1024;

/// Most changes of clients on one page.
const PAGE_CLIENTS: usize = 1_000;

/// One page of what changed after the change `after` of the database `instance`, of one moment.
pub(super) async fn page(connection: &mut Connection, after: u64, instance: Option<&str>) -> Result<Changes, Error> {
    let (own_instance, newest, forgotten): (String, i64, i64) =
        query_as(concat!("SELECT ", instance!(), ", changes, forgotten_client_changes FROM store"))
            .fetch_one(&mut *connection)
            .await?;
    let newest = count(newest)?;
    let full = instance != Some(own_instance.as_str()) || after > newest;
    // A telling of everything needs no tombstones.
    let mut rows: Vec<TenantRow> =
        query_as(select_tenants!("version > $1 AND (deleted = 0 OR $2 = 1) ORDER BY version LIMIT $3"))
            .bind(if full { 0 } else { column(after) })
            .bind(i64::from(!full))
            .bind(column(PAGE_TENANTS.saturating_add(1) as u64))
            .fetch_all(&mut *connection)
            .await?;
    // Before any rule is read: those of one tenant alone may be megabytes.
    let fitting = fitting(&rows);
    let mut head = newest;
    if rows.len() > fitting {
        rows.truncate(fitting);
        head = rows.last().map_or(Ok(newest), |last| count(last.version))?;
    }
    // Whoever is told everything, or that any client may have changed, needs no names.
    let all_clients = !full && after < count(forgotten)?;
    let mut clients = if full || all_clients {
        Vec::new()
    } else {
        client_changes::after(connection, after, PAGE_CLIENTS.saturating_add(1)).await?
    };
    if clients.len() > PAGE_CLIENTS {
        clients.truncate(PAGE_CLIENTS);
        head = clients.last().map_or(head, |(last, _)| head.min(*last));
    }
    // The page ends where the first of the two kinds does.
    clients.retain(|(version, _)| *version <= head);
    let clients: Vec<ClientChange> = clients.into_iter().map(|(_, change)| change).collect();
    rows.retain(|row| row.version <= column(head));

    let mut rules = active_rules(connection, &rows).await?;
    let change = |row: TenantRow| {
        let rules = rules.remove(&row.slot).unwrap_or_default();
        change(row, &rules)
    };
    let tenants: Vec<TenantChange> = rows.into_iter().map(change).collect::<Result<_, _>>()?;
    Ok(Changes { instance: own_instance, full, head, more: head < newest, tenants, clients, all_clients })
}

/// How many of the tenants make a page.
fn fitting(rows: &[TenantRow]) -> usize {
    let mut bytes = 0_usize;
    let fits = |row: &&TenantRow| {
        let has_room = bytes < PAGE_BYTES;
        let rules = usize::try_from(row.network_acl_bytes).unwrap_or(usize::MAX);
        bytes = bytes.saturating_add(row.settings.len()).saturating_add(row.hosts.len()).saturating_add(rules);
        has_room
    };
    rows.iter().take(PAGE_TENANTS).take_while(fits).count()
}

/// An access rule as the edge is told it.
#[derive(Serialize)]
struct ToldRule {
    id: String,
    rule: Box<RawValue>,
}

/// The active access rules of the tenants that have any, by slot, in the order of evaluation.
async fn active_rules(connection: &mut Connection, rows: &[TenantRow]) -> Result<HashMap<i64, Vec<ToldRule>>, Error> {
    let slots: Vec<i64> = rows.iter().filter(|row| row.network_acl_bytes > 0).map(|row| row.slot).collect();
    let mut by_slot: HashMap<i64, Vec<ToldRule>> = HashMap::new();
    if slots.is_empty() {
        return Ok(by_slot);
    }
    let rules: Vec<(i64, String, String)> = query_as(concat!(
        "SELECT tenant, id, rule FROM network_acls WHERE tenant IN (",
        integers!("$1"),
        ") AND active = 1 ORDER BY tenant, priority, number",
    ))
    .bind(to_json(&slots)?)
    .fetch_all(connection)
    .await?;
    for (slot, id, rule) in rules {
        let rule = RawValue::from_string(rule).map_err(|_| unreadable(&format!("the access rule {id}")))?;
        by_slot.entry(slot).or_default().push(ToldRule { id, rule });
    }
    Ok(by_slot)
}

/// A tenant's newest state as the edge is told it. It is not parsed: an edge may know settings that this binary does
/// not.
fn change(row: TenantRow, network_acls: &[ToldRule]) -> Result<TenantChange, Error> {
    #[derive(Serialize)]
    struct Parts<'a> {
        name: &'a str,
        domains: Box<RawValue>,
        settings: Box<RawValue>,
        // An edge that does not know rules yet reads a tenant without any as ever.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        network_acls: &'a [ToldRule],
    }
    let TenantRow { slot, version, name, hosts, settings, deleted, .. } = row;
    let json = || {
        let (domains, settings) = (RawValue::from_string(hosts)?, RawValue::from_string(settings)?);
        to_raw_value(&Parts { name: &name, domains, settings, network_acls })
    };
    let tenant = (!deleted).then(json).transpose().map_err(|_| unreadable(&format!("the tenant {name}")))?;
    Ok(TenantChange { slot: small(slot)?, version: count(version)?, tenant })
}
