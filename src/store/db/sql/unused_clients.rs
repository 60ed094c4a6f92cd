//! Clients that registered themselves, that no authorization server ever asked for, and that the owner never changed.
//! The oldest go first: those with which no registration was answered for the longest time.

use std::collections::VecDeque;

use super::client_changes::Changed;
use super::clients::BlockCounts;
use super::{
    Backend, Connection, DELETION_PAUSE, column, count, lock_tenants, query_as, query_scalar, tenant_log, to_json,
    unreadable,
};
use crate::store::admission::Refusal;
use crate::store::db::log::{Unused, UnusedClientsEvent};
use crate::store::db::{Error, REGISTERED};
use crate::tenant::Settings;

/// Most clients that are deleted in one transaction, of all tenants. A client may have tens of kilobytes, and
/// registrations wait for the transaction.
pub(super) const AT_ONCE: usize = 100;

/// A client that nobody uses.
pub(super) struct UnusedClient {
    pub(super) number: i64,
    pub(super) client_id: String,
    /// When a registration was answered with it last, in UNIX seconds.
    pub(super) answered_at: i64,
}

/// The oldest unused clients of the tenant in slot `$1` that were answered before `$2`.
pub(in crate::store::db) const OLDEST: &str = "SELECT number, client_id, coalesce(answered_at, issued_at) FROM clients \
     WHERE tenant = $1 AND last_used_at IS NULL AND is_dynamic = 1 AND updated_at IS NULL \
     AND coalesce(answered_at, issued_at) < $2 \
     ORDER BY coalesce(answered_at, issued_at), number LIMIT $3";

/// So many unused clients of a tenant that were answered before a time in UNIX seconds.
pub(super) async fn oldest(
    connection: &mut Connection,
    tenant: i64,
    before: u64,
    most: usize,
) -> Result<Vec<UnusedClient>, Error> {
    let rows: Vec<(i64, String, i64)> = query_as(OLDEST)
        .bind(tenant)
        .bind(column(before))
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let client = |(number, client_id, answered_at)| UnusedClient { number, client_id, answered_at };
    Ok(rows.into_iter().map(client).collect())
}

/// The grants of the clients go with them.
pub(in crate::store::db) const DELETE: &str = concat!(
    "DELETE FROM clients WHERE number IN (",
    integers!("$1"),
    ") RETURNING tenant, number, app_type, client_id"
);

/// Deletes clients, counts them off, and records that they changed: nobody used them, but somebody may just now.
pub(super) async fn delete(
    connection: &mut Connection,
    clients: impl Iterator<Item = &UnusedClient>,
) -> Result<(), Error> {
    let numbers: Vec<i64> = clients.map(|client| client.number).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    let deleted: Vec<(i64, i64, String, String)> =
        query_as(DELETE).bind(to_json(&numbers)?).fetch_all(&mut *connection).await?;
    let (mut counts, mut changed) = (BlockCounts::default(), Changed::default());
    for (tenant, number, app_type, client_id) in deleted {
        counts.add(tenant, number, &app_type, -1);
        changed.client(tenant, client_id);
    }
    changed.write(&mut *connection).await?;
    counts.write(connection).await
}

impl Backend {
    /// Deletes little by little the unused clients that are too old at `now`, in UNIX milliseconds, or too many, by the
    /// tenant's settings of the moment.
    pub(super) async fn delete_unused(&self, tenant: u32, now: u64) -> Result<u64, Error> {
        let too_old = self.delete_due(Unused::TooOld, tenant, now).await?;
        Ok(too_old.saturating_add(self.delete_due(Unused::QuotaUsedUp, tenant, now).await?))
    }

    /// The event of the log is written with the first of them and grows with the rest, so that it tells of every
    /// deletion, wherever this is cut off.
    async fn delete_due(&self, reason: Unused, tenant: u32, now: u64) -> Result<u64, Error> {
        let (mut deleted, mut client_ids, mut event) = (0_u64, Vec::new(), None);
        let slot = i64::from(tenant);
        loop {
            // Whoever writes makes others wait, so it is looked first whether there is anything to do.
            if due(&mut *self.read().await?, reason, slot, now, 1).await?.is_empty() {
                break;
            }
            let mut transaction = self.write().await?;
            lock_tenants(&mut transaction, [slot]).await?;
            let clients = due(&mut transaction, reason, slot, now, AT_ONCE).await?;
            if clients.is_empty() {
                break;
            }
            delete(&mut transaction, clients.iter()).await?;
            deleted = deleted.saturating_add(u64::try_from(clients.len()).unwrap_or(u64::MAX));
            let is_last = clients.len() < AT_ONCE;
            let room = UnusedClientsEvent::MAX_IDS.saturating_sub(client_ids.len());
            client_ids.extend(clients.into_iter().take(room).map(|client| client.client_id));
            let data = UnusedClientsEvent::new(reason, deleted, client_ids.iter());
            match event {
                None => event = tenant_log::write_event(&mut transaction, REGISTERED, slot, now, &data).await?,
                Some(id) => tenant_log::rewrite_event(&mut transaction, id, &data).await?,
            }
            transaction.commit().await?;
            if is_last {
                break;
            }
            tokio::time::sleep(DELETION_PAUSE).await;
        }
        Ok(deleted)
    }
}

/// At most so many of the unused clients that the settings of the tenant in this slot call too old at `now`, in UNIX
/// milliseconds, or too many; none of a tenant that was deleted.
async fn due(
    connection: &mut Connection,
    reason: Unused,
    slot: i64,
    now: u64,
    most: usize,
) -> Result<Vec<UnusedClient>, Error> {
    let settings: Option<String> = query_scalar("SELECT settings FROM tenants WHERE slot = $1 AND deleted = 0")
        .bind(slot)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(settings) = settings else { return Ok(Vec::new()) };
    let settings: Settings =
        serde_json::from_str(&settings).map_err(|_| unreadable(&format!("the tenant in slot {slot}")))?;
    let (age, most) = match reason {
        Unused::TooOld => {
            let Some(ttl) = settings.dcr_edge.unused_client_ttl else { return Ok(Vec::new()) };
            (ttl.get().into(), most)
        }
        Unused::QuotaUsedUp => {
            let Some(quota) = settings.dcr_edge.client_quota else { return Ok(Vec::new()) };
            let excess = clients_of(connection, slot).await?.saturating_sub(quota.get().into());
            (GIVES_WAY_AFTER, most.min(usize::try_from(excess).unwrap_or(usize::MAX)))
        }
    };
    if most == 0 {
        return Ok(Vec::new());
    }
    oldest(connection, slot, (now / 1_000).saturating_sub(age), most).await
}

/// How old an unused client has to be to give way to a new one, in seconds.
const GIVES_WAY_AFTER: u64 = 24 * 60 * 60;

/// The places that a tenant with a quota has for new clients.
pub(super) struct Places {
    quota: u64,
    /// How many clients there are, with the new ones and without those that gave way.
    clients: u64,
    /// Those that can give way, the oldest first.
    pub(super) unused: VecDeque<UnusedClient>,
    /// Whether there may be more that can, after this batch.
    has_more: bool,
    /// Those that gave way.
    pub(super) gone: Vec<UnusedClient>,
    /// When the last of the new ones arrived, in UNIX seconds.
    pub(super) at: u64,
}

/// How many clients the tenant has.
pub(in crate::store::db) const HAS: &str =
    "SELECT CAST(coalesce(sum(clients), 0) AS BIGINT) FROM client_blocks WHERE tenant = $1";

async fn clients_of(connection: &mut Connection, slot: i64) -> Result<u64, Error> {
    count(query_scalar(HAS).bind(slot).fetch_one(connection).await?)
}

impl Places {
    /// Those of the tenant in this slot for at most `new` clients, the last of which arrives at `latest`, in UNIX
    /// seconds. At most `left` clients give way, and none in `kept`.
    pub(super) async fn read(
        connection: &mut Connection,
        slot: i64,
        quota: u32,
        (new, latest): (u64, u64),
        kept: &[&str],
        left: usize,
    ) -> Result<Self, Error> {
        let (clients, quota) = (clients_of(connection, slot).await?, u64::from(quota));
        let wanted = usize::try_from(clients.saturating_add(new).saturating_sub(quota)).unwrap_or(usize::MAX);
        let mut places = Self { quota, clients, unused: VecDeque::new(), has_more: false, gone: Vec::new(), at: 0 };
        let is_in_reach = places.excess().is_some_and(|excess| excess <= AT_ONCE);
        if wanted == 0 || !is_in_reach {
            return Ok(places);
        }
        let most = wanted.min(left);
        let before = latest.saturating_sub(GIVES_WAY_AFTER);
        let mut unused = oldest(connection, slot, before, most.saturating_add(kept.len())).await?;
        unused.retain(|client| !kept.contains(&client.client_id.as_str()));
        unused.truncate(most);
        places.has_more = most < wanted && unused.len() == most;
        places.unused = unused.into();
        Ok(places)
    }

    /// How many clients have to give way to one more.
    fn excess(&self) -> Option<usize> {
        usize::try_from(self.clients.saturating_add(1).saturating_sub(self.quota)).ok()
    }

    /// How many clients have to give way to one that arrives at this time, in UNIX seconds, if it gets a place. A tenant
    /// that is further above its quota than one transaction can bring it down is refused; see [`Backend::delete_unused`].
    pub(super) fn price(&self, at: u64) -> Result<usize, Refusal> {
        let price = self.excess().filter(|excess| *excess <= AT_ONCE).ok_or(Refusal::QuotaUsedUp)?;
        let Some(youngest) = price.checked_sub(1) else { return Ok(0) };
        // They are in the order of their age.
        match self.unused.get(youngest) {
            Some(youngest) if youngest.answered_at < column(at.saturating_sub(GIVES_WAY_AFTER)) => Ok(price),
            // The next batch has room.
            None if self.has_more => Err(Refusal::RateLimited { next_token_in: 0 }),
            _ => Err(Refusal::QuotaUsedUp),
        }
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
