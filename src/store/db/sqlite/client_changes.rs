//! Of which clients an edge may know something that is no longer true.
//!
//! A change is recorded in the transaction that makes it, so that whoever was told it reads what it made.

use std::collections::{BTreeMap, HashSet};

use sqlx::sqlite::SqliteConnection;

use super::{DELETED_ROWS, DELETION_PAUSE, Sqlite, column, count, to_json};
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
    pub(super) async fn write(self, connection: &mut SqliteConnection) -> Result<(), Error> {
        let mut rows: Vec<(i64, Option<String>)> = Vec::new();
        for (tenant, clients) in self.0 {
            match clients {
                Clients::Named(ids) => rows.extend(ids.into_iter().map(|id| (tenant, Some(id)))),
                Clients::All => rows.push((tenant, None)),
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let number = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let last: i64 = sqlx::query_scalar("UPDATE store SET changes = changes + ? RETURNING changes")
            .bind(number)
            .fetch_one(&mut *connection)
            .await?;
        sqlx::query(
            "INSERT INTO client_changes (version, tenant, client_id) \
             SELECT ?1 + key, value ->> 0, value ->> 1 FROM json_each(?2)",
        )
        .bind(last.saturating_sub(number).saturating_add(1))
        .bind(to_json(&rows)?)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Records that a client of the tenant in this slot changed.
pub(super) async fn record_client(
    connection: &mut SqliteConnection,
    tenant: u32,
    client_id: &str,
) -> Result<(), Error> {
    let mut changed = Changed::default();
    changed.client(tenant.into(), client_id);
    changed.write(connection).await
}

pub(super) const AFTER: &str =
    "SELECT version, tenant, client_id FROM client_changes WHERE version > ? ORDER BY version LIMIT ?";

/// So many changes after the one with the number `after`, each with its own number, in their order.
pub(super) async fn after(
    connection: &mut SqliteConnection,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, ClientChange)>, Error> {
    let rows: Vec<(i64, u32, Option<String>)> = sqlx::query_as(AFTER)
        .bind(column(after))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(|(version, slot, client_id)| Ok((count(version)?, ClientChange { slot, client_id }))).collect()
}

/// The newest change of all, and the newest one that may go: it is beyond the newest `?1`, and no later than `?2`.
pub(super) const OLD: &str = "SELECT changes, min(?2, coalesce(\
     (SELECT version FROM client_changes ORDER BY version DESC LIMIT 1 OFFSET ?1), 0)) FROM store";

/// The last of the oldest `?1` changes up to `?2`.
pub(super) const OLDEST: &str =
    "SELECT max(version) FROM (SELECT version FROM client_changes WHERE version <= ?2 ORDER BY version LIMIT ?1)";

impl Sqlite {
    /// Forgets little by little the changes of clients that are neither among the newest `most` nor later than the change
    /// `seen`, and says which change is the newest of all.
    pub(super) async fn forget_changes(&self, most: u32, seen: u64) -> Result<u64, Error> {
        let (newest, old): (i64, i64) =
            sqlx::query_as(OLD).bind(most).bind(column(seen)).fetch_one(&self.readers).await?;
        loop {
            let oldest: Option<i64> =
                sqlx::query_scalar(OLDEST).bind(DELETED_ROWS).bind(old).fetch_one(&self.readers).await?;
            let Some(last) = oldest else { break };
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("DELETE FROM client_changes WHERE version <= ?").bind(last).execute(&mut *transaction).await?;
            sqlx::query("UPDATE store SET forgotten_client_changes = max(forgotten_client_changes, ?)")
                .bind(last)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            tokio::time::sleep(DELETION_PAUSE).await;
        }
        count(newest)
    }
}
