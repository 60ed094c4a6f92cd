//! A batch of registrations in one transaction.

use std::collections::HashMap;

use sqlx::QueryBuilder;
use sqlx::sqlite::SqliteConnection;

use super::super::{Arrival, Error, REGISTERED, Registered, RegistrationEvent};
use super::buckets::Buckets;
use super::clients::{count_added, last_number};
use super::{column, count, tenant_log, to_json, unreadable};
use crate::store::admission::{Admitted, NewClient, Refusal, admit};
use crate::store::clock::Now;
use crate::tenant::{Name, Settings};

/// The live tenants as of the change `seen`, kept so that a batch of registrations asks for one number only.
#[derive(Default)]
pub(super) struct KnownTenants {
    seen: i64,
    by_name: HashMap<Name, KnownTenant>,
}

struct KnownTenant {
    slot: i64,
    settings: Settings,
}

impl KnownTenants {
    /// Learns what changed, whoever changed it. Only committed changes are ever read here, since the transaction is
    /// one that changes no tenant.
    pub(super) async fn catch_up(&mut self, connection: &mut SqliteConnection) -> Result<(), Error> {
        let newest: i64 = sqlx::query_scalar("SELECT changes FROM store").fetch_one(&mut *connection).await?;
        if newest == self.seen {
            return Ok(());
        }
        let changed: Vec<(i64, String, String, bool)> =
            sqlx::query_as("SELECT slot, name, settings, deleted FROM tenants WHERE version > ? ORDER BY version")
                .bind(self.seen)
                .fetch_all(connection)
                .await?;
        // In the order of the changes, so a name that was given anew ends with its new owner.
        for (slot, name, settings, deleted) in changed {
            let Ok(name) = Name::try_from(name) else { return Err(unreadable(&format!("the tenant in slot {slot}"))) };
            self.by_name.remove(&name);
            if !deleted {
                match serde_json::from_str(&settings) {
                    Ok(settings) => _ = self.by_name.insert(name, KnownTenant { slot, settings }),
                    Err(_) => tracing::error!(%name, "the tenant's settings cannot be read; it gets no clients"),
                }
            }
        }
        self.seen = newest;
        Ok(())
    }
}

/// What public clients that are folded into one have in common: the tenant's slot and the metadata's fingerprint.
type FoldKey = (i64, [u8; 32]);

/// A registration that passed every check of its own.
struct Checked<'a> {
    client: &'a NewClient,
    at: Now,
    tenant: &'a KnownTenant,
    admitted: Admitted,
}

impl<'a> Checked<'a> {
    fn new(Arrival { client, at }: &'a Arrival, known: &'a KnownTenants) -> Result<Self, Refusal> {
        let tenant = known.by_name.get(&client.tenant).ok_or(Refusal::UnknownTenant)?;
        Ok(Self { client, at: *at, tenant, admitted: admit(client, &tenant.settings)? })
    }

    /// Its key, if its tenant folds.
    fn fold_key(&self) -> Option<FoldKey> {
        let folds = self.tenant.settings.dcr_edge.deduplicate_public_clients;
        self.admitted.fingerprint.filter(|_| folds).map(|fingerprint| (self.tenant.slot, fingerprint))
    }

    fn is_same(&self, tenant: i64, client_secret_sha256: Option<&[u8]>, metadata: &str) -> bool {
        (
            self.tenant.slot,
            self.client.client_secret_sha256.as_ref().map(<[u8; 32]>::as_slice),
            &*self.admitted.metadata,
        ) == (tenant, client_secret_sha256, metadata)
    }
}

/// What becomes of one registration of a batch, before the quotas and the fleet's limit are known.
enum Outcome {
    Settled(Result<Registered, Refusal>),
    /// The new client with this index.
    New(usize),
    /// The same as the new client with this index.
    SameAs(usize),
}

/// Registers what can be registered of a batch, and says what became of each, in the order of the batch.
pub(super) async fn register(
    connection: &mut SqliteConnection,
    known: &KnownTenants,
    batch: &[Arrival],
) -> Result<Vec<Result<Registered, Refusal>>, Error> {
    let checked: Vec<_> = batch.iter().map(|arrival| Checked::new(arrival, known)).collect();
    let by_id = stored_by_id(connection, &checked).await?;
    let by_fold_key = stored_by_fold_key(connection, &checked).await?;

    let mut outcomes = Vec::with_capacity(batch.len());
    let mut new: Vec<Checked> = Vec::with_capacity(batch.len());
    let mut new_by_id: HashMap<&str, usize> = HashMap::new();
    let mut new_by_fold_key: HashMap<FoldKey, usize> = HashMap::new();
    for checked in checked {
        let checked = match checked {
            Ok(checked) => checked,
            Err(refusal) => {
                outcomes.push(Outcome::Settled(Err(refusal)));
                continue;
            }
        };
        let id = checked.client.client_id.as_str();
        let fold_key = checked.fold_key();
        let same_id = new_by_id.get(id).and_then(|&index| Some((index, new.get(index)?)));
        outcomes.push(if let Some(stored) = by_id.get(id) {
            let same = checked.is_same(stored.tenant, stored.client_secret_sha256.as_deref(), &stored.metadata);
            Outcome::Settled(if same { stored.registered() } else { Err(Refusal::Conflict) })
        } else if let Some((index, other)) = same_id {
            let secret = other.client.client_secret_sha256.as_ref().map(<[u8; 32]>::as_slice);
            if checked.is_same(other.tenant.slot, secret, &other.admitted.metadata) {
                Outcome::SameAs(index)
            } else {
                Outcome::Settled(Err(Refusal::Conflict))
            }
        } else if let Some(stored) = fold_key.and_then(|key| by_fold_key.get(&key)) {
            Outcome::Settled(stored.registered())
        } else if let Some(&index) = fold_key.and_then(|key| new_by_fold_key.get(&key)) {
            Outcome::SameAs(index)
        } else {
            let index = new.len();
            new_by_id.insert(id, index);
            if let Some(key) = fold_key {
                new_by_fold_key.insert(key, index);
            }
            new.push(checked);
            Outcome::New(index)
        });
    }

    let mut room = room(connection, &new).await?;
    let mut buckets = Buckets::read(connection, new.iter().map(|checked| checked.tenant.slot)).await?;
    let mut limit = |checked: &Checked| {
        let KnownTenant { slot, settings } = checked.tenant;
        let mut room = room.get_mut(slot);
        if room.as_ref().is_some_and(|room| **room == 0) {
            return Err(Refusal::QuotaUsedUp);
        }
        let token = buckets.of(*slot).take(checked.at.steady, settings.dcr_edge.rate_limit);
        token.map_err(|next_token_in| Refusal::RateLimited { next_token_in })?;
        if let Some(room) = &mut room {
            **room = room.saturating_sub(1);
        }
        Ok(())
    };
    let limits: Vec<Result<(), Refusal>> = new.iter().map(&mut limit).collect();
    let accepted: Vec<_> =
        new.iter().zip(&limits).filter_map(|(checked, limit)| limit.is_ok().then_some(checked)).collect();
    insert(connection, &accepted).await?;
    log(connection, &accepted).await?;
    buckets.write(connection).await?;

    let answer = |index: usize, created| {
        let Some((checked, limit)) = new.get(index).zip(limits.get(index)) else { return Err(Refusal::QuotaUsedUp) };
        limit.clone()?;
        Ok(Registered { client_id: checked.client.client_id.clone(), issued_at: checked.at.unix_seconds, created })
    };
    let answers = outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Settled(answer) => answer,
        Outcome::New(index) => answer(index, true),
        Outcome::SameAs(index) => answer(index, false),
    });
    Ok(answers.collect())
}

#[derive(sqlx::FromRow)]
struct StoredClient {
    client_id: String,
    tenant: i64,
    metadata: String,
    client_secret_sha256: Option<Vec<u8>>,
    fingerprint: Option<Vec<u8>>,
    issued_at: i64,
}

impl StoredClient {
    fn registered(&self) -> Result<Registered, Refusal> {
        let issued_at = self.issued_at.try_into().unwrap_or_default();
        Ok(Registered { client_id: self.client_id.clone(), issued_at, created: false })
    }
}

/// The clients that have an id of the batch already.
async fn stored_by_id(
    connection: &mut SqliteConnection,
    checked: &[Result<Checked<'_>, Refusal>],
) -> Result<HashMap<String, StoredClient>, Error> {
    let ids: Vec<&str> = checked.iter().flatten().map(|checked| checked.client.client_id.as_str()).collect();
    let stored: Vec<StoredClient> = sqlx::query_as(
        "SELECT client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at FROM clients \
         WHERE client_id IN (SELECT value FROM json_each(?))",
    )
    .bind(to_json(&ids)?)
    .fetch_all(connection)
    .await?;
    Ok(stored.into_iter().map(|client| (client.client_id.clone(), client)).collect())
}

/// The oldest client for each fold key of the batch.
async fn stored_by_fold_key(
    connection: &mut SqliteConnection,
    checked: &[Result<Checked<'_>, Refusal>],
) -> Result<HashMap<FoldKey, StoredClient>, Error> {
    let keys: Vec<(i64, String)> =
        checked.iter().flatten().filter_map(Checked::fold_key).map(|(slot, key)| (slot, hex::encode(key))).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let stored: Vec<StoredClient> = sqlx::query_as(
        "SELECT client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at \
         FROM json_each(?) AS key CROSS JOIN clients \
         ON tenant = key.value ->> 0 AND fingerprint = unhex(key.value ->> 1) \
         ORDER BY issued_at DESC, client_id DESC",
    )
    .bind(to_json(&keys)?)
    .fetch_all(connection)
    .await?;
    // The oldest comes last and stays.
    let by_key = stored.into_iter().filter_map(|client| {
        let fingerprint = client.fingerprint.as_deref()?.try_into().ok()?;
        Some(((client.tenant, fingerprint), client))
    });
    Ok(by_key.collect())
}

/// How many new clients each tenant with a quota may still have.
async fn room(connection: &mut SqliteConnection, new: &[Checked<'_>]) -> Result<HashMap<i64, u64>, Error> {
    let mut room = HashMap::new();
    for KnownTenant { slot, settings } in new.iter().map(|checked| checked.tenant) {
        let Some(quota) = settings.dcr_edge.client_quota.filter(|_| !room.contains_key(slot)) else { continue };
        let have: i64 = sqlx::query_scalar("SELECT coalesce(sum(clients), 0) FROM client_blocks WHERE tenant = ?")
            .bind(slot)
            .fetch_one(&mut *connection)
            .await?;
        room.insert(*slot, u64::from(quota.get()).saturating_sub(count(have)?));
    }
    Ok(room)
}

/// Writes what the tenants' owners see of the registrations into their logs.
async fn log(connection: &mut SqliteConnection, clients: &[&Checked<'_>]) -> Result<(), Error> {
    let event = |checked: &&'_ Checked| {
        let Admitted { client_name, redirect_hosts, .. } = &checked.admitted;
        let NewClient { client_id, origin, .. } = checked.client;
        let date = checked.at.unix_seconds.saturating_mul(1_000);
        serde_json::value::to_raw_value(&RegistrationEvent::new(
            client_id,
            client_name.as_deref(),
            redirect_hosts,
            origin,
        ))
        .map(|data| (checked.tenant.slot, date, data))
    };
    let events: Vec<_> = clients
        .iter()
        .map(event)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Failed("an event of a log cannot be written as JSON".to_owned()))?;
    tenant_log::write_events(connection, REGISTERED, &events).await
}

/// Writes the clients with as few statements as SQLite's limit on parameters allows: each statement is a way to the
/// connection's thread and back. `OR FAIL`: whatever fails, the whole transaction is rolled back, so SQLite need not
/// keep a journal to undo this statement alone.
async fn insert(connection: &mut SqliteConnection, clients: &[&Checked<'_>]) -> Result<(), Error> {
    if clients.is_empty() {
        return Ok(());
    }
    let last = last_number(connection).await?;
    for rows in clients.chunks(1_000) {
        QueryBuilder::new(
            "INSERT OR FAIL INTO clients \
             (client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at, app_type) ",
        )
        .push_values(rows, |mut row, checked| {
            row.push_bind(checked.client.client_id.as_str())
                .push_bind(checked.tenant.slot)
                .push_bind(checked.admitted.metadata.as_str())
                .push_bind(checked.client.client_secret_sha256.as_ref().map(<[u8; 32]>::as_slice))
                .push_bind(checked.admitted.fingerprint.as_ref().map(<[u8; 32]>::as_slice))
                .push_bind(column(checked.at.unix_seconds))
                .push_bind(checked.admitted.app_type.as_str());
        })
        .build()
        .persistent(false)
        .execute(&mut *connection)
        .await?;
    }
    count_added(connection, last).await
}
