//! A batch of registrations in one transaction.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::QueryBuilder;
use subtle::ConstantTimeEq;

use super::buckets::Buckets;
use super::client_changes::Changed;
use super::clients::BlockCounts;
use super::unused_clients::{self, Places};
use super::{
    Backend, Connection, WRITES_ALONE, client_numbers, column, lock_tenants, query, query_as, query_scalar,
    shared_clock, tenant_log, to_json, unreadable,
};
use crate::edge_api::RegisteredBy;
use crate::store::admission::{Admitted, NewClient, Refusal, admit};
use crate::store::clock::Now;
use crate::store::db::{Arrival, Error, REGISTERED, Registered, RegistrationEvent};
use crate::tenant::{Name, Settings};

impl Backend {
    /// Registers a batch, as [`crate::store::db::Database::register`] says. Each client has its id before it is tried, so
    /// a batch of which nobody knows whether it was written may be tried once more.
    pub(super) async fn register_batch(&self, batch: &[Arrival]) -> Result<Vec<Result<Registered, Refusal>>, Error> {
        self.repeated(move || self.register_once(batch)).await
    }

    async fn register_once(&self, batch: &[Arrival]) -> Result<Vec<Result<Registered, Refusal>>, Error> {
        let mut transaction = self.write().await?;
        let mut known = self.known.lock().await;
        known.hold(&mut transaction, batch).await?;
        let answers = register(&mut transaction, &known, batch).await?;
        transaction.commit().await?;
        Ok(answers)
    }
}

/// The live tenants as of the change `seen`, kept so that a batch of registrations asks for one row only.
#[derive(Default)]
pub(in crate::store::db) struct KnownTenants {
    /// The database of which they are.
    instance: String,
    seen: i64,
    by_name: HashMap<Name, KnownTenant>,
}

struct KnownTenant {
    slot: i64,
    settings: Settings,
}

impl KnownTenants {
    /// Learns what changed, and holds the tenants of a batch, so that they stay as they are until the transaction ends.
    async fn hold(&mut self, connection: &mut Connection, batch: &[Arrival]) -> Result<(), Error> {
        self.catch_up(connection).await?;
        if WRITES_ALONE {
            return Ok(());
        }
        let held = self.slots_of(batch);
        lock_tenants(connection, held.iter().copied()).await?;
        // Another store may have changed them before it let go of them.
        self.catch_up(connection).await?;
        if self.slots_of(batch).is_subset(&held) {
            Ok(())
        } else {
            Err(Error::Unavailable("another one made a tenant of the same name meanwhile; try again".to_owned()))
        }
    }

    fn slots_of(&self, batch: &[Arrival]) -> BTreeSet<i64> {
        batch.iter().filter_map(|arrival| self.by_name.get(&arrival.client.tenant)).map(|tenant| tenant.slot).collect()
    }

    /// Learns what changed, whoever changed it. Only committed changes are ever read here, since the transaction is
    /// one that changes no tenant.
    async fn catch_up(&mut self, connection: &mut Connection) -> Result<(), Error> {
        let (instance, newest): (String, i64) =
            query_as(concat!("SELECT ", instance!(), ", changes FROM store")).fetch_one(&mut *connection).await?;
        if instance != self.instance {
            *self = Self { instance, ..Self::default() };
        }
        if newest == self.seen {
            return Ok(());
        }
        let changed: Vec<(i64, String, String, bool)> =
            query_as("SELECT slot, name, settings, deleted <> 0 FROM tenants WHERE version > $1 ORDER BY version")
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
        let has_same_secret = match (&self.client.client_secret_sha256, client_secret_sha256) {
            (Some(own), Some(other)) => bool::from(own.as_slice().ct_eq(other)),
            (own, other) => own.is_none() && other.is_none(),
        };
        has_same_secret && self.tenant.slot == tenant && &*self.admitted.metadata == metadata
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
async fn register(
    connection: &mut Connection,
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
    let mut answered = Answered::default();
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
            if same {
                answered.add(stored, checked.at.unix_seconds);
            }
            Outcome::Settled(if same { stored.registered() } else { Err(Refusal::Conflict) })
        } else if let Some((index, other)) = same_id {
            let secret = other.client.client_secret_sha256.as_ref().map(<[u8; 32]>::as_slice);
            if checked.is_same(other.tenant.slot, secret, &other.admitted.metadata) {
                Outcome::SameAs(index)
            } else {
                Outcome::Settled(Err(Refusal::Conflict))
            }
        } else if let Some(stored) = fold_key.and_then(|key| by_fold_key.get(&key)) {
            answered.add(stored, checked.at.unix_seconds);
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

    // Whoever is answered with a client that is there already must find it there.
    let kept: Vec<&str> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Settled(Ok(registered)) => Some(registered.client_id.as_str()),
            _ => None,
        })
        .collect();
    let mut places = places(connection, &new, &kept).await?;
    let clock = shared_clock(connection).await?;
    let mut buckets = Buckets::read(connection, &clock, new.iter().map(|checked| checked.tenant.slot)).await?;
    let mut limit = |checked: &Checked| {
        let KnownTenant { slot, settings } = checked.tenant;
        let now = checked.at.unix_seconds;
        let place = match places.get_mut(slot) {
            None => None,
            Some(places) => Some((places.price(now)?, places)),
        };
        let token = buckets.of(*slot).take(clock.moment(checked.at.steady), settings.dcr_edge.rate_limit);
        token.map_err(|next_token_in| Refusal::RateLimited { next_token_in })?;
        if let Some((price, places)) = place {
            places.take(now, price);
        }
        Ok(())
    };
    let limits: Vec<Result<(), Refusal>> = new.iter().map(&mut limit).collect();
    let accepted: Vec<_> =
        new.iter().zip(&limits).filter_map(|(checked, limit)| limit.is_ok().then_some(checked)).collect();
    give_way(connection, &places).await?;
    answered.write(connection).await?;
    insert(connection, &accepted).await?;
    tell(connection, &accepted).await?;
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

/// Tells edges of clients whose ids somebody may have asked for before. Nobody can have guessed one of an edge's.
async fn tell(connection: &mut Connection, accepted: &[&Checked<'_>]) -> Result<(), Error> {
    let mut changed = Changed::default();
    for checked in accepted.iter().filter(|checked| checked.client.registered_by == RegisteredBy::Server) {
        changed.client(checked.tenant.slot, checked.client.client_id.as_str());
    }
    changed.write(connection).await
}

#[derive(sqlx::FromRow)]
struct StoredClient {
    client_id: String,
    tenant: i64,
    metadata: String,
    client_secret_sha256: Option<Vec<u8>>,
    fingerprint: Option<Vec<u8>>,
    issued_at: i64,
    /// When a registration was answered with it last, in UNIX seconds, as far as that was noted.
    answered_at: i64,
    /// Whether it may give way some day.
    is_unused: bool,
}

/// The columns of a [`StoredClient`].
macro_rules! columns {
    () => {
        "client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at, \
         coalesce(answered_at, issued_at) AS answered_at, \
         is_dynamic = 1 AND last_used_at IS NULL AND updated_at IS NULL AS is_unused"
    };
}

impl StoredClient {
    fn registered(&self) -> Result<Registered, Refusal> {
        let issued_at = self.issued_at.try_into().unwrap_or_default();
        Ok(Registered { client_id: self.client_id.clone(), issued_at, created: false })
    }
}

pub(in crate::store::db) const BY_ID: &str =
    concat!("SELECT ", columns!(), " FROM clients WHERE client_id IN (", texts!("$1"), ")");

/// `CROSS JOIN`: SQLite then looks for each key, whatever it believes of the table.
pub(in crate::store::db) const BY_FOLD_KEY: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM ",
    rows!("$1", "key"),
    sql!(sqlite: " CROSS JOIN", postgres: " JOIN"),
    " clients ON tenant = CAST(key.value ->> 0 AS BIGINT) AND fingerprint = ",
    bytes!("key.value ->> 1"),
    " ORDER BY issued_at DESC, client_id DESC"
);

/// How old the last noted answer with an unused client has to be for the next one to be noted, in seconds. Its row is
/// written anew, which may have tens of kilobytes.
const ANSWER_INTERVAL: i64 = 300;

/// The unused clients that registrations of a batch were answered with, and when, where that is to be noted: whoever got
/// an answer shall find the client there for as long as a new one.
#[derive(Default)]
struct Answered(HashMap<String, i64>);

impl Answered {
    fn add(&mut self, client: &StoredClient, at: u64) {
        let at = column(at);
        if client.is_unused && at.saturating_sub(client.answered_at) >= ANSWER_INTERVAL {
            let latest = self.0.entry(client.client_id.clone()).or_insert(at);
            *latest = at.max(*latest);
        }
    }

    async fn write(self, connection: &mut Connection) -> Result<(), Error> {
        if !self.0.is_empty() {
            query(NOTE_ANSWERS).bind(to_json(&self.0)?).execute(connection).await?;
        }
        Ok(())
    }
}

pub(in crate::store::db) const NOTE_ANSWERS: &str = concat!(
    "UPDATE clients SET answered_at = CAST(answered.value AS BIGINT) FROM ",
    sql!(sqlite: "json_each($1)", postgres: "json_each_text($1::json)"),
    " AS answered WHERE client_id = answered.key"
);

/// The clients that have an id of the batch already.
async fn stored_by_id(
    connection: &mut Connection,
    checked: &[Result<Checked<'_>, Refusal>],
) -> Result<HashMap<String, StoredClient>, Error> {
    let ids: Vec<&str> = checked.iter().flatten().map(|checked| checked.client.client_id.as_str()).collect();
    let stored: Vec<StoredClient> = query_as(BY_ID).bind(to_json(&ids)?).fetch_all(connection).await?;
    Ok(stored.into_iter().map(|client| (client.client_id.clone(), client)).collect())
}

/// The oldest client for each fold key of the batch.
async fn stored_by_fold_key(
    connection: &mut Connection,
    checked: &[Result<Checked<'_>, Refusal>],
) -> Result<HashMap<FoldKey, StoredClient>, Error> {
    let keys: Vec<(i64, String)> =
        checked.iter().flatten().filter_map(Checked::fold_key).map(|(slot, key)| (slot, hex::encode(key))).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let stored: Vec<StoredClient> = query_as(BY_FOLD_KEY).bind(to_json(&keys)?).fetch_all(connection).await?;
    // The oldest comes last and stays.
    let by_key = stored.into_iter().filter_map(|client| {
        let fingerprint = client.fingerprint.as_deref()?.try_into().ok()?;
        Some(((client.tenant, fingerprint), client))
    });
    Ok(by_key.collect())
}

/// The places that each tenant with a quota has for new clients. None of `kept` gives way. What the whole batch may have
/// give way is divided in the order in which the tenants come first.
async fn places(
    connection: &mut Connection,
    new: &[Checked<'_>],
    kept: &[&str],
) -> Result<HashMap<i64, Places>, Error> {
    let mut slots = Vec::new();
    let mut wanted: HashMap<i64, (u32, u64, u64)> = HashMap::new();
    for Checked { tenant: KnownTenant { slot, settings }, at, .. } in new {
        let Some(quota) = settings.dcr_edge.client_quota else { continue };
        let (_, number, latest) = wanted.entry(*slot).or_insert_with(|| {
            slots.push(*slot);
            (quota.get(), 0, 0)
        });
        *number = number.saturating_add(1);
        *latest = at.unix_seconds.max(*latest);
    }
    let (mut places, mut left) = (HashMap::new(), unused_clients::AT_ONCE);
    for slot in slots {
        let Some((quota, number, latest)) = wanted.remove(&slot) else { continue };
        let of_tenant = Places::read(connection, slot, quota, (number, latest), kept, left).await?;
        left = left.saturating_sub(of_tenant.unused.len());
        places.insert(slot, of_tenant);
    }
    Ok(places)
}

/// Deletes the clients that give way to new ones, and tells their tenants' owners.
async fn give_way(connection: &mut Connection, places: &HashMap<i64, Places>) -> Result<(), Error> {
    let with_gone = places.iter().filter(|(_, places)| !places.gone.is_empty());
    let events: Vec<_> =
        with_gone.map(|(slot, places)| (*slot, places.at.saturating_mul(1_000), places.event())).collect();
    unused_clients::delete(connection, places.values().flat_map(|places| &places.gone)).await?;
    tenant_log::write_events(connection, REGISTERED, &events).await
}

/// Of the tenants in the slots of `$1`, those that grant third parties nothing by default: the rule of
/// [`crate::management::effective_permissions`], except that a grant counts for the scopes that the API had when it was
/// written. Whether the API has lost them since is left out: that would read all scopes of every API for each batch.
pub(in crate::store::db) const WITHOUT_GRANT: &str = concat!(
    "SELECT value FROM (",
    integers!("$1"),
    ") AS slot WHERE NOT EXISTS (SELECT 1 FROM client_grants JOIN resource_servers \
     ON resource_servers.tenant = client_grants.tenant AND identifier = audience \
     WHERE client_grants.tenant = slot.value AND client_id IS NULL AND (",
    flag!("client_grants.data", "allow_all_scopes"),
    " OR json_array_length(",
    sql!(sqlite: "client_grants.data, '$.scope'", postgres: array_or_null!("client_grants.data", "scope")),
    ") > 0) AND coalesce(",
    user_policy!("resource_servers.data"),
    ", '') <> 'deny_all')"
);

/// Writes what the tenants' owners see of the registrations into their logs.
async fn log(connection: &mut Connection, clients: &[&Checked<'_>]) -> Result<(), Error> {
    if clients.is_empty() {
        return Ok(());
    }
    let slots: HashSet<i64> = clients.iter().map(|checked| checked.tenant.slot).collect();
    let without_grant: Vec<i64> =
        query_scalar(WITHOUT_GRANT).bind(to_json(&slots)?).fetch_all(&mut *connection).await?;
    let event = |checked: &&'_ Checked| {
        let date = checked.at.unix_seconds.saturating_mul(1_000);
        let has_default_grant = !without_grant.contains(&checked.tenant.slot);
        let event = RegistrationEvent::new(checked.client, &checked.admitted, has_default_grant);
        serde_json::value::to_raw_value(&event).map(|data| (checked.tenant.slot, date, data))
    };
    let events: Vec<_> = clients
        .iter()
        .map(event)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Failed("an event of a log cannot be written as JSON".to_owned()))?;
    tenant_log::write_events(connection, REGISTERED, &events).await
}

/// Writes the clients with as few statements as SQLite's limit on parameters allows: each statement is a way to the
/// database and back. `OR FAIL`: whatever fails, the whole transaction is rolled back, so SQLite need not
/// keep a journal to undo this statement alone.
async fn insert(connection: &mut Connection, clients: &[&Checked<'_>]) -> Result<(), Error> {
    if clients.is_empty() {
        return Ok(());
    }
    // The numbers are given here, so that the clients are counted without being read again.
    let numbered: Vec<(i64, &Checked)> =
        client_numbers(connection, clients.len()).await?.zip(clients.iter().copied()).collect();
    let mut counts = BlockCounts::default();
    for rows in numbered.chunks(1_000) {
        QueryBuilder::new(concat!(
            sql!(sqlite: "INSERT OR FAIL", postgres: "INSERT"),
            " INTO clients \
             (number, client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at, app_type, \
              third_party_security_mode) ",
        ))
        .push_values(rows, |mut row, (number, checked)| {
            row.push_bind(*number)
                .push_bind(checked.client.client_id.as_str())
                .push_bind(checked.tenant.slot)
                .push_bind(checked.admitted.metadata.as_str())
                .push_bind(checked.client.client_secret_sha256.as_ref().map(<[u8; 32]>::as_slice))
                .push_bind(checked.admitted.fingerprint.as_ref().map(<[u8; 32]>::as_slice))
                .push_bind(column(checked.at.unix_seconds))
                .push_bind(checked.admitted.app_type.as_str())
                .push_bind(checked.admitted.security_mode.as_str());
            counts.add(checked.tenant.slot, *number, checked.admitted.app_type.as_str(), 1);
        })
        .build()
        .persistent(false)
        .execute(&mut *connection)
        .await?;
    }
    counts.write(connection).await
}
