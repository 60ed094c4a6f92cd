//! Clients that registered themselves and that no authorization server ever asked for: the oldest go first.

use std::collections::VecDeque;

use sqlx::sqlite::SqliteConnection;

use super::clients::BlockCounts;
use super::{DELETION_PAUSE, Sqlite, column, count, tenant_log, to_json, unreadable};
use crate::store::db::log::{Unused, UnusedClientsEvent};
use crate::store::db::{Error, REGISTERED};
use crate::tenant::Settings;

/// Clients that are deleted in one transaction because they are too old. A client may have tens of kilobytes, and
/// registrations wait for the transaction.
const TOO_OLD_AT_ONCE: usize = 500;

/// A client that nobody uses.
pub(super) struct UnusedClient {
    pub(super) number: i64,
    pub(super) client_id: String,
    pub(super) issued_at: i64,
}

/// The oldest unused clients of the tenant in slot `?1` that were registered before `?2`.
pub(super) const OLDEST: &str = "SELECT number, client_id, issued_at FROM clients \
     WHERE tenant = ?1 AND last_used_at IS NULL AND is_dynamic = 1 AND issued_at < ?2 \
     ORDER BY issued_at, number LIMIT ?3";

/// So many unused clients of a tenant that were registered before a time in UNIX seconds.
pub(super) async fn oldest(
    connection: &mut SqliteConnection,
    tenant: i64,
    before: u64,
    most: usize,
) -> Result<Vec<UnusedClient>, Error> {
    let rows: Vec<(i64, String, i64)> = sqlx::query_as(OLDEST)
        .bind(tenant)
        .bind(column(before))
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let client = |(number, client_id, issued_at)| UnusedClient { number, client_id, issued_at };
    Ok(rows.into_iter().map(client).collect())
}

/// The grants of the clients go with them.
pub(super) const DELETE: &str = "DELETE FROM clients WHERE number IN (SELECT value FROM json_each(?)) \
     RETURNING tenant, number, app_type";

/// Deletes clients, and counts them off.
pub(super) async fn delete(
    connection: &mut SqliteConnection,
    clients: impl Iterator<Item = &UnusedClient>,
) -> Result<(), Error> {
    let numbers: Vec<i64> = clients.map(|client| client.number).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    let deleted: Vec<(i64, i64, String)> =
        sqlx::query_as(DELETE).bind(to_json(&numbers)?).fetch_all(&mut *connection).await?;
    let mut counts = BlockCounts::default();
    for (tenant, number, app_type) in &deleted {
        counts.add(*tenant, *number, app_type, -1);
    }
    counts.write(connection).await
}

impl Sqlite {
    /// Deletes little by little the unused clients that the tenant's settings of the moment call too old at `now`, in
    /// UNIX milliseconds. The event of the log is written with the first of them and grows with the rest, so that it
    /// tells of every deletion, wherever this is cut off.
    pub(super) async fn delete_too_old(&self, tenant: u32, now: u64) -> Result<u64, Error> {
        let (mut deleted, mut client_ids, mut event) = (0_u64, Vec::new(), None);
        loop {
            // Whoever writes makes others wait, so it is looked first whether there is anything to do.
            let Some(before) = too_old_before(&mut *self.readers.acquire().await?, tenant, now).await? else { break };
            if oldest(&mut *self.readers.acquire().await?, tenant.into(), before, 1).await?.is_empty() {
                break;
            }
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let Some(before) = too_old_before(&mut transaction, tenant, now).await? else { break };
            let clients = oldest(&mut transaction, tenant.into(), before, TOO_OLD_AT_ONCE).await?;
            if clients.is_empty() {
                break;
            }
            delete(&mut transaction, clients.iter()).await?;
            deleted = deleted.saturating_add(u64::try_from(clients.len()).unwrap_or(u64::MAX));
            let is_last = clients.len() < TOO_OLD_AT_ONCE;
            let room = UnusedClientsEvent::MAX_IDS.saturating_sub(client_ids.len());
            client_ids.extend(clients.into_iter().take(room).map(|client| client.client_id));
            let data = UnusedClientsEvent::new(Unused::TooOld, deleted, client_ids.iter());
            event = Some(match event {
                None => tenant_log::write_event(&mut transaction, REGISTERED, tenant.into(), now, &data).await?,
                Some(id) => tenant_log::rewrite_event(&mut transaction, id, &data).await?,
            });
            transaction.commit().await?;
            if is_last {
                break;
            }
            tokio::time::sleep(DELETION_PAUSE).await;
        }
        Ok(deleted)
    }
}

/// Before which time in UNIX seconds an unused client was registered that is too old at `now`, in UNIX milliseconds;
/// `None` if the tenant lets clients live, or was deleted.
async fn too_old_before(connection: &mut SqliteConnection, tenant: u32, now: u64) -> Result<Option<u64>, Error> {
    let settings: Option<String> = sqlx::query_scalar("SELECT settings FROM tenants WHERE slot = ? AND deleted = 0")
        .bind(tenant)
        .fetch_optional(connection)
        .await?;
    let Some(settings) = settings else { return Ok(None) };
    let settings: Settings =
        serde_json::from_str(&settings).map_err(|_| unreadable(&format!("the tenant in slot {tenant}")))?;
    let ttl = settings.dcr_edge.unused_client_ttl;
    Ok(ttl.map(|ttl| (now / 1_000).saturating_sub(ttl.get().into())))
}

/// How old an unused client has to be to give way to a new one, in seconds.
const GIVES_WAY_AFTER: u64 = 24 * 60 * 60;

/// Most clients that a batch of registrations deletes for one tenant. A tenant is so far beyond its quota only if its
/// owner lowered that; then nobody is let in before the owner deletes some.
const MOST_TO_GIVE_WAY: u64 = 2_000;

/// The places that a tenant with a quota has for new clients.
pub(super) struct Places {
    quota: u64,
    /// How many clients there are, with the new ones and without those that gave way.
    clients: u64,
    /// Those that can give way, the oldest first.
    unused: VecDeque<UnusedClient>,
    /// Those that gave way.
    pub(super) gone: Vec<UnusedClient>,
    /// When the last of the new ones arrived, in UNIX seconds.
    pub(super) at: u64,
}

/// How many clients the tenant has.
pub(super) const HAS: &str = "SELECT coalesce(sum(clients), 0) FROM client_blocks WHERE tenant = ?";

impl Places {
    /// Those of the tenant in this slot for at most `new` clients, the last of which arrives at `latest`, in UNIX
    /// seconds. No client in `kept` gives way.
    pub(super) async fn read(
        connection: &mut SqliteConnection,
        slot: i64,
        quota: u32,
        (new, latest): (u64, u64),
        kept: &[&str],
    ) -> Result<Self, Error> {
        let has: i64 = sqlx::query_scalar(HAS).bind(slot).fetch_one(&mut *connection).await?;
        let (clients, quota) = (count(has)?, u64::from(quota));
        let wanted = clients.saturating_add(new).saturating_sub(quota).min(MOST_TO_GIVE_WAY);
        let mut unused = Vec::new();
        if wanted > 0 {
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            let before = latest.saturating_sub(GIVES_WAY_AFTER);
            unused = oldest(connection, slot, before, wanted.saturating_add(kept.len())).await?;
            unused.retain(|client| !kept.contains(&client.client_id.as_str()));
        }
        Ok(Self { quota, clients, unused: unused.into(), gone: Vec::new(), at: 0 })
    }

    /// How many clients have to give way to one that arrives at this time, in UNIX seconds; `None` if it gets no place.
    pub(super) fn price(&self, at: u64) -> Option<usize> {
        let excess = self.clients.saturating_add(1).saturating_sub(self.quota);
        let price = usize::try_from(excess).ok()?;
        let Some(youngest) = price.checked_sub(1) else { return Some(0) };
        // They are in the order of their age.
        let youngest = self.unused.get(youngest)?;
        (youngest.issued_at < column(at.saturating_sub(GIVES_WAY_AFTER))).then_some(price)
    }

    /// Gives one a place that arrives at this time, at its price.
    pub(super) fn take(&mut self, at: u64, price: usize) {
        self.gone.extend(self.unused.drain(..price.min(self.unused.len())));
        self.at = self.at.max(at);
        self.clients = self.clients.saturating_add(1).saturating_sub(u64::try_from(price).unwrap_or(u64::MAX));
    }

    /// What the tenant's log says of those that gave way.
    pub(super) fn event(&self) -> UnusedClientsEvent<'_> {
        let number = u64::try_from(self.gone.len()).unwrap_or(u64::MAX);
        UnusedClientsEvent::new(Unused::QuotaUsedUp, number, self.gone.iter().map(|client| &client.client_id))
    }
}
