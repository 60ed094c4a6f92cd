//! Of which clients an edge may know something that is no longer true.
//!
//! A change is recorded in the transaction that makes it, so that whoever was told it reads what it made.

use std::collections::{BTreeMap, HashSet};

use super::{
    Backend, Connection, DELETED_ROWS, DELETION_PAUSE, column, count, query, query_as, query_scalar, small, to_json,
};
use crate::edge_api::ClientChange;
use crate::store::db::Error;

/// Most clients of a tenant that one transaction names. More are told as all of them.
const MOST_NAMED: usize = 256;

/// The clients of which a transaction changes what an edge may know. Each is recorded once, and none beside all of its
/// tenant.
#[derive(Default)]
pub(super) struct Changed(BTreeMap<i64, Clients>);

enum Clients {
    Named(HashSet<String>),
    All,
}

impl Changed {
    /// A client of the tenant in this slot.
    pub(super) fn client(&mut self, tenant: i64, client_id: impl Into<String>) {
        let clients = self.0.entry(tenant).or_insert_with(|| Clients::Named(HashSet::new()));
        if let Clients::Named(ids) = clients {
            ids.insert(client_id.into());
            if ids.len() > MOST_NAMED {
                *clients = Clients::All;
            }
        }
    }

    /// Every client of the tenant in this slot.
    pub(super) fn all_of(&mut self, tenant: i64) {
        self.0.insert(tenant, Clients::All);
    }

    /// Records them as the newest changes.
    pub(super) async fn write(self, connection: &mut Connection) -> Result<(), Error> {
        let mut clients: Vec<(i64, Option<String>)> = Vec::new();
        for (tenant, of_tenant) in self.0 {
            match of_tenant {
                Clients::Named(ids) => clients.extend(ids.into_iter().map(|id| (tenant, Some(id)))),
                Clients::All => clients.push((tenant, None)),
            }
        }
        if clients.is_empty() {
            return Ok(());
        }
        let number = i64::try_from(clients.len()).unwrap_or(i64::MAX);
        let last: i64 = query_scalar("UPDATE store SET changes = changes + $1 RETURNING changes")
            .bind(number)
            .fetch_one(&mut *connection)
            .await?;
        let versions = last.saturating_sub(number).saturating_add(1)..;
        let rows: Vec<_> =
            versions.zip(clients).map(|(version, (tenant, client_id))| (version, tenant, client_id)).collect();
        query(concat!(
            "INSERT INTO client_changes (version, tenant, client_id) SELECT CAST(change.value ->> 0 AS BIGINT), \
             CAST(change.value ->> 1 AS BIGINT), change.value ->> 2 FROM ",
            rows!("$1", "change"),
        ))
        .bind(to_json(&rows)?)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Records that a client of the tenant in this slot changed.
pub(super) async fn record_client(connection: &mut Connection, tenant: i64, client_id: &str) -> Result<(), Error> {
    let mut changed = Changed::default();
    changed.client(tenant, client_id);
    changed.write(connection).await
}

pub(in crate::store::db) const AFTER: &str =
    "SELECT version, tenant, client_id FROM client_changes WHERE version > $1 ORDER BY version LIMIT $2";

/// So many changes after the one with the number `after`, each with its own number, in their order.
pub(super) async fn after(
    connection: &mut Connection,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, ClientChange)>, Error> {
    let rows: Vec<(i64, i64, Option<String>)> = query_as(AFTER)
        .bind(column(after))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let change = |(version, slot, client_id)| Ok((count(version)?, ClientChange { slot: small(slot)?, client_id }));
    rows.into_iter().map(change).collect()
}

/// The newest change of all, and the newest one that may go: it is beyond the newest `$1`, and no later than `$2`.
const OLD: &str = concat!(
    "SELECT changes, ",
    least!("$2", "coalesce((SELECT version FROM client_changes ORDER BY version DESC LIMIT 1 OFFSET $1), 0)"),
    " FROM store"
);

const FORGET: &str =
    concat!("UPDATE store SET forgotten_client_changes = ", greatest!("forgotten_client_changes", "$1"));

/// The last of the oldest `$1` changes up to `$2`.
pub(in crate::store::db) const OLDEST: &str =
    "SELECT max(version) FROM (SELECT version FROM client_changes WHERE version <= $2 ORDER BY version LIMIT $1)";

impl Backend {
    /// Forgets little by little the changes of clients that are neither among the newest `most` nor later than the change
    /// `seen`, and says which change is the newest of all.
    pub(super) async fn forget_changes(&self, most: u32, seen: u64) -> Result<u64, Error> {
        let (newest, old): (i64, i64) =
            query_as(OLD).bind(i64::from(most)).bind(column(seen)).fetch_one(&mut *self.read().await?).await?;
        loop {
            let oldest: Option<i64> =
                query_scalar(OLDEST).bind(DELETED_ROWS).bind(old).fetch_one(&mut *self.read().await?).await?;
            let Some(last) = oldest else { break };
            let mut transaction = self.write().await?;
            query(FORGET).bind(last).execute(&mut *transaction).await?;
            query("DELETE FROM client_changes WHERE version <= $1").bind(last).execute(&mut *transaction).await?;
            transaction.commit().await?;
            tokio::time::sleep(DELETION_PAUSE).await;
        }
        count(newest)
    }
}
