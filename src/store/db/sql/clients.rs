//! Clients, as their tenants' owners see them.
//!
//! The numbers of clients are counted in blocks of 2,048. A page in the middle of a million is found by its block, and
//! within it by the index, which has each type by itself; `total` is a sum over blocks.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use sqlx::QueryBuilder;

use super::client_changes::record_client;
use super::{
    Backend, Connection, client_numbers, column, count, lock_tenants, query, query_as, query_scalar, text, to_json,
    unreadable,
};
use crate::store::client::{AppType, ClientData, OwnerData};
use crate::store::db::{ClientPage, Clients, Error, MadeClient, MovedClient, StoredClient};
use crate::tenant::SecurityMode;

/// How many bits of a client's number are its place in its block.
const BLOCK_BITS: u32 = 11;

/// The columns of a [`ClientRow`].
macro_rules! columns {
    () => {
        "number, client_id, version, is_dynamic <> 0 AS is_dynamic, client_secret_sha256 IS NOT NULL AS has_secret, \
         issued_at, \
         updated_at, last_used_at, metadata, app_type, owner, third_party_security_mode"
    };
}

/// The statement that reads [`ClientRow`]s, with its condition.
macro_rules! select_clients {
    ($condition:literal) => {
        concat!("SELECT ", columns!(), " FROM clients ", $condition)
    };
}

/// A statement that writes a client, and gives it as it is then.
macro_rules! returning_client {
    ($($part:expr),+) => {
        concat!($($part,)+ " RETURNING ", columns!())
    };
}

/// That the tenant in slot `$2` lives. The rows of one that was deleted go little by little, and nobody touches them.
macro_rules! of_live_tenant {
    () => {
        "client_id = $1 AND tenant = $2 AND EXISTS (SELECT 1 FROM tenants WHERE slot = $2 AND deleted = 0)"
    };
}

pub(in crate::store::db) const FIND: &str = select_clients!("WHERE client_id = $1 AND tenant = $2");

/// Those of an id, or with a text in their name, the newest first.
const SEARCH: &str = concat!(
    select_clients!("WHERE tenant = $1 AND (client_id = $2 OR "),
    sql!(
        sqlite: concat!("instr(lower(", member!("metadata", "client_name"), "), $3) > 0"),
        postgres: concat!("strpos(lower(", member!("metadata", "client_name"), " COLLATE \"C\"), $3) > 0"),
    ),
    ") ORDER BY number DESC LIMIT $4"
);

pub(in crate::store::db) const CREATE: &str = returning_client!(
    "INSERT INTO clients \
     (number, client_id, tenant, metadata, client_secret_sha256, issued_at, app_type, is_dynamic, owner) \
     SELECT $1, $2, slot, $3, $4, $5, $6, 0, $7 FROM tenants WHERE slot = $8 AND deleted = 0"
);

pub(in crate::store::db) const REPLACE: &str = returning_client!(
    "UPDATE clients SET metadata = $3, app_type = $4, owner = $5, updated_at = $6, version = version + 1, \
     fingerprint = CASE WHEN metadata = $3 THEN fingerprint END WHERE version = $7 AND ",
    of_live_tenant!()
);

pub(in crate::store::db) const REPLACE_SECRET: &str = returning_client!(
    "UPDATE clients SET client_secret_sha256 = $3, updated_at = $4, version = version + 1 \
     WHERE client_secret_sha256 IS NOT NULL AND ",
    of_live_tenant!()
);

pub(in crate::store::db) const DELETE: &str =
    concat!("DELETE FROM clients WHERE ", of_live_tenant!(), " RETURNING number, app_type");

pub(in crate::store::db) const HAS_USED: &str =
    "SELECT EXISTS (SELECT 1 FROM clients WHERE tenant = $1 AND last_used_at IS NOT NULL)";

#[async_trait]
impl Clients for Backend {
    async fn clients(&self, tenant: u32, app_types: &[AppType], offset: u64, limit: u32) -> Result<ClientPage, Error> {
        let mut snapshot = self.snapshot().await?;
        page(&mut snapshot, tenant.into(), app_types, offset, limit).await
    }

    async fn find_clients(&self, tenant: u32, wanted: &str, limit: u32) -> Result<Vec<StoredClient>, Error> {
        let mut search = self.search().await?;
        let rows: Result<Vec<ClientRow>, _> = query_as(SEARCH)
            .bind(i64::from(tenant))
            .bind(text(wanted))
            .bind(text(wanted).to_ascii_lowercase())
            .bind(i64::from(limit))
            .fetch_all(search.connection())
            .await;
        search.end(rows).await?.into_iter().map(ClientRow::stored).collect()
    }

    async fn client(&self, tenant: u32, client_id: &str) -> Result<Option<StoredClient>, Error> {
        find(&mut *self.read().await?, tenant, client_id).await
    }

    async fn client_secret_sha256(&self, tenant: u32, client_id: &str) -> Result<Option<[u8; 32]>, Error> {
        secret_sha256(&mut *self.read().await?, tenant, client_id).await
    }

    async fn create_client(&self, tenant: u32, client: &MadeClient, now: u64) -> Result<Option<StoredClient>, Error> {
        let mut transaction = self.write().await?;
        let slot = i64::from(tenant);
        lock_tenants(&mut transaction, [slot]).await?;
        let number = client_numbers(&mut transaction, 1).await?.next();
        let row: Option<ClientRow> = query_as(CREATE)
            .bind(number)
            .bind(&client.client_id)
            .bind(&client.data.metadata)
            .bind(client.client_secret_sha256.as_ref().map(<[u8; 32]>::as_slice))
            .bind(column(now / 1_000))
            .bind(client.data.app_type.as_str())
            .bind(to_json(&client.data.owner)?)
            .bind(slot)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let mut counts = BlockCounts::default();
        counts.add(slot, row.number, &row.app_type, 1);
        counts.write(&mut transaction).await?;
        transaction.commit().await?;
        row.stored().map(Some)
    }

    async fn replace_client(
        &self,
        tenant: u32,
        stored: &StoredClient,
        data: &ClientData,
        now: u64,
    ) -> Result<Option<StoredClient>, Error> {
        let mut transaction = self.write().await?;
        let slot = i64::from(tenant);
        lock_tenants(&mut transaction, [slot]).await?;
        let row: Option<ClientRow> = query_as(REPLACE)
            .bind(&stored.client_id)
            .bind(slot)
            .bind(&data.metadata)
            .bind(data.app_type.as_str())
            .bind(to_json(&data.owner)?)
            .bind(column(now))
            .bind(column(stored.version))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(None) };
        if data.app_type != stored.data.app_type {
            let mut counts = BlockCounts::default();
            counts.add(slot, row.number, stored.data.app_type.as_str(), -1);
            counts.add(slot, row.number, data.app_type.as_str(), 1);
            counts.write(&mut transaction).await?;
        }
        record_client(&mut transaction, slot, &stored.client_id).await?;
        transaction.commit().await?;
        row.stored().map(Some)
    }

    async fn replace_client_secret(
        &self,
        tenant: u32,
        client_id: &str,
        client_secret_sha256: [u8; 32],
        now: u64,
    ) -> Result<Option<StoredClient>, Error> {
        let mut transaction = self.write().await?;
        let slot = i64::from(tenant);
        lock_tenants(&mut transaction, [slot]).await?;
        let row: Option<ClientRow> = query_as(REPLACE_SECRET)
            .bind(text(client_id))
            .bind(slot)
            .bind(client_secret_sha256.as_slice())
            .bind(column(now))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(None) };
        record_client(&mut transaction, slot, client_id).await?;
        transaction.commit().await?;
        row.stored().map(Some)
    }

    async fn delete_client(&self, tenant: u32, client_id: &str) -> Result<(), Error> {
        let mut transaction = self.write().await?;
        let slot = i64::from(tenant);
        lock_tenants(&mut transaction, [slot]).await?;
        let deleted: Option<(i64, String)> =
            query_as(DELETE).bind(text(client_id)).bind(slot).fetch_optional(&mut *transaction).await?;
        if let Some((number, app_type)) = deleted {
            let mut counts = BlockCounts::default();
            counts.add(slot, number, &app_type, -1);
            counts.write(&mut transaction).await?;
            record_client(&mut transaction, slot, client_id).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    async fn note_client_uses(&self, clients: &[(u32, String)], now: u64) -> Result<(), Error> {
        let mut transaction = self.write().await?;
        lock_tenants(&mut transaction, clients.iter().map(|(tenant, _)| i64::from(*tenant))).await?;
        query(NOTE_USES).bind(column(now / 1_000)).bind(to_json(&clients)?).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    async fn has_used_client(&self, tenant: u32) -> Result<bool, Error> {
        Ok(query_scalar(HAS_USED).bind(i64::from(tenant)).fetch_one(&mut *self.read().await?).await?)
    }

    async fn delete_unused_clients(&self, tenant: u32, now: u64) -> Result<u64, Error> {
        self.delete_unused(tenant, now).await
    }
}

/// The tenant's client with this id.
pub(super) async fn find(
    connection: &mut Connection,
    tenant: u32,
    client_id: &str,
) -> Result<Option<StoredClient>, Error> {
    let row: Option<ClientRow> =
        query_as(FIND).bind(text(client_id)).bind(i64::from(tenant)).fetch_optional(connection).await?;
    row.map(ClientRow::stored).transpose()
}

/// SHA-256 of the secret of the tenant's client with this id, if there is one that has a secret.
pub(super) async fn secret_sha256(
    connection: &mut Connection,
    tenant: u32,
    client_id: &str,
) -> Result<Option<[u8; 32]>, Error> {
    let hash: Option<Vec<u8>> =
        query_scalar(SECRET_SHA256).bind(text(client_id)).bind(i64::from(tenant)).fetch_optional(connection).await?;
    hash.map(|hash| hash.try_into().map_err(|_| unreadable("a client's secret"))).transpose()
}

pub(in crate::store::db) const SECRET_SHA256: &str = "SELECT client_secret_sha256 FROM clients \
     WHERE client_id = $1 AND tenant = $2 AND client_secret_sha256 IS NOT NULL";

pub(in crate::store::db) const NOTE_USES: &str = concat!(
    "UPDATE clients SET last_used_at = $1 FROM ",
    rows!("$2", "used"),
    " WHERE client_id = used.value ->> 1 AND tenant = CAST(used.value ->> 0 AS BIGINT) \
     AND EXISTS (SELECT 1 FROM tenants WHERE slot = tenant AND deleted = 0)"
);

#[derive(sqlx::FromRow)]
struct ClientRow {
    number: i64,
    client_id: String,
    version: i64,
    is_dynamic: bool,
    has_secret: bool,
    issued_at: i64,
    updated_at: Option<i64>,
    last_used_at: Option<i64>,
    metadata: String,
    app_type: String,
    /// JSON.
    owner: Option<String>,
    third_party_security_mode: String,
}

impl ClientRow {
    fn stored(self) -> Result<StoredClient, Error> {
        let damaged = || unreadable(&format!("the client {}", self.client_id));
        let owner: Option<OwnerData> =
            self.owner.as_deref().map(serde_json::from_str).transpose().map_err(|_| damaged())?;
        let app_type = AppType::named(&self.app_type).ok_or_else(damaged)?;
        let security_mode = SecurityMode::named(&self.third_party_security_mode).ok_or_else(damaged)?;
        let issued_at = count(self.issued_at)?;
        Ok(StoredClient {
            client_id: self.client_id,
            version: count(self.version)?,
            is_dynamic: self.is_dynamic,
            security_mode,
            has_secret: self.has_secret,
            issued_at,
            updated_at: self.updated_at.map_or(Ok(issued_at.saturating_mul(1_000)), count)?,
            last_used_at: self.last_used_at.map(count).transpose()?,
            data: ClientData { metadata: self.metadata, app_type, owner: owner.unwrap_or_default() },
        })
    }
}

/// How many clients come into blocks and go, by tenant, block and type: what a transaction has to count.
#[derive(Default)]
pub(super) struct BlockCounts(BTreeMap<(i64, i64, String), i64>);

impl BlockCounts {
    /// So many clients more, or fewer, where the tenant's client with this number is.
    pub(super) fn add(&mut self, tenant: i64, number: i64, app_type: &str, clients: i64) {
        let count = self.0.entry((tenant, number >> BLOCK_BITS, app_type.to_owned())).or_default();
        *count = count.saturating_add(clients);
    }

    /// Counts them. A block without clients of a type has no row of it.
    pub(super) async fn write(self, connection: &mut Connection) -> Result<(), Error> {
        let changed: Vec<_> = self
            .0
            .into_iter()
            .filter(|(_, clients)| *clients != 0)
            .map(|((tenant, block, app_type), clients)| (tenant, block, app_type, clients))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let rows = to_json(&changed)?;
        query(COUNT).bind(&rows).execute(&mut *connection).await?;
        if changed.iter().any(|(.., clients)| *clients < 0) {
            query(DROP_EMPTY).bind(&rows).execute(connection).await?;
        }
        Ok(())
    }
}

/// The columns that identify a row of counts, in a row of JSON.
macro_rules! counted {
    () => {
        "CAST(counted.value ->> 0 AS BIGINT), CAST(counted.value ->> 1 AS BIGINT), counted.value ->> 2"
    };
}

/// `WHERE true`: without it SQLite reads `ON` as a part of the join.
const COUNT: &str = concat!(
    "INSERT INTO client_blocks (tenant, block, app_type, clients) SELECT ",
    counted!(),
    ", CAST(counted.value ->> 3 AS BIGINT) FROM ",
    rows!("$1", "counted"),
    " WHERE true ON CONFLICT (tenant, block, app_type) DO UPDATE SET clients = client_blocks.clients + excluded.clients"
);

pub(in crate::store::db) const DROP_EMPTY: &str = concat!(
    "DELETE FROM client_blocks WHERE clients <= 0 AND (tenant, block, app_type) IN (SELECT ",
    counted!(),
    " FROM ",
    rows!("$1", "counted"),
    ")"
);

/// Some of a tenant's clients, of one moment.
async fn page(
    connection: &mut Connection,
    tenant: i64,
    app_types: &[AppType],
    offset: u64,
    limit: u32,
) -> Result<ClientPage, Error> {
    let names: Vec<&str> = app_types.iter().map(|app_type| app_type.as_str()).collect();
    let types = to_json(&names)?;
    let (blocks, clients): (String, String) =
        query_as(BLOCKS).bind(tenant).bind(&types).fetch_one(&mut *connection).await?;
    let damaged = |_| unreadable("the number of clients");
    let blocks: Vec<i64> = serde_json::from_str(&blocks).map_err(damaged)?;
    let clients: Vec<u64> = serde_json::from_str(&clients).map_err(damaged)?;
    let mut by_block: BTreeMap<i64, u64> = BTreeMap::new();
    for (block, clients) in blocks.into_iter().zip(clients) {
        let of_all_types = by_block.entry(block).or_default();
        *of_all_types = of_all_types.saturating_add(clients);
    }
    // The block with the client that comes after the first `offset`, and how many come before that block.
    let (mut total, mut start) = (0_u64, None);
    for (block, clients) in by_block {
        let before = total;
        total = total.saturating_add(clients);
        if start.is_none() && total > offset {
            start = Some((block, before));
        }
    }
    let rows: Vec<ClientRow> = match start {
        None => Vec::new(),
        Some((block, before)) => {
            let skipped = offset.saturating_sub(before);
            query_as(ROWS)
                .bind(tenant)
                .bind(&types)
                .bind(block << BLOCK_BITS)
                .bind(i64::from(limit))
                .bind(column(skipped))
                .fetch_all(connection)
                .await?
        }
    };
    let clients = rows.into_iter().map(ClientRow::stored).collect::<Result<_, _>>()?;
    Ok(ClientPage { clients, total })
}

/// The blocks with clients of these types, and how many each has, as two lists in the same order: one row for all, since
/// each row is a way between two threads.
pub(in crate::store::db) const BLOCKS: &str = concat!(
    sql!(
        sqlite: "SELECT json_group_array(block), json_group_array(clients)",
        postgres: "SELECT coalesce(json_agg(block)::text, '[]'), coalesce(json_agg(clients)::text, '[]')",
    ),
    " FROM client_blocks WHERE tenant = $1 AND app_type IN (",
    texts!("$2"),
    ")"
);

/// The numbers of a tenant's clients of one type, from one number on; none if the type is not asked for: the index is
/// then asked for NULL, where a condition beside it would be asked for each client of the type.
macro_rules! numbers_of {
    ($app_type:literal) => {
        concat!(
            "SELECT number FROM clients WHERE tenant = $1 AND number >= $3 \
             AND app_type = (",
            texts!("$2"),
            " WHERE value = '",
            $app_type,
            "')"
        )
    };
}

/// A page: the numbers of all types, each in the order of the index, are merged and not sorted.
macro_rules! page_of {
    ($columns:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM clients WHERE number IN (SELECT number FROM (",
            numbers_of!("native"),
            " UNION ALL ",
            numbers_of!("regular_web"),
            " UNION ALL ",
            numbers_of!("spa"),
            " UNION ALL ",
            numbers_of!("non_interactive"),
            " ORDER BY number LIMIT $4 OFFSET $5) AS numbers) ORDER BY number"
        )
    };
}

pub(in crate::store::db) const ROWS: &str = page_of!(columns!());

/// The columns of a [`MovedRow`].
macro_rules! moved_columns {
    () => {
        concat!(columns!(), ", tenant, client_secret_sha256, answered_at, fingerprint")
    };
}

pub(in crate::store::db) const MOVED_ROWS: &str = page_of!(moved_columns!());

pub(in crate::store::db) const MOVED_BY_ID: &str =
    concat!("SELECT ", moved_columns!(), " FROM clients WHERE client_id IN (", texts!("$1"), ")");

#[derive(sqlx::FromRow)]
struct MovedRow {
    #[sqlx(flatten)]
    client: ClientRow,
    tenant: i64,
    client_secret_sha256: Option<Vec<u8>>,
    answered_at: Option<i64>,
    fingerprint: Option<Vec<u8>>,
}

impl MovedRow {
    fn stored(self) -> Result<MovedClient, Error> {
        let client = self.client.stored()?;
        let digest =
            |bytes: Vec<u8>| bytes.try_into().map_err(|_| unreadable(&format!("the client {}", client.client_id)));
        Ok(MovedClient {
            client_secret_sha256: self.client_secret_sha256.map(digest).transpose()?,
            answered_at: self.answered_at.map(count).transpose()?,
            fingerprint: self.fingerprint.map(digest).transpose()?,
            client,
        })
    }
}

/// So many of a tenant's clients after the one with the number `after`, each with its number, in the order of creation.
pub(super) async fn moved_after(
    connection: &mut Connection,
    tenant: i64,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, MovedClient)>, Error> {
    let rows: Vec<MovedRow> = query_as(MOVED_ROWS)
        .bind(tenant)
        .bind(to_json(&AppType::ALL)?)
        .bind(after.saturating_add(1))
        .bind(limit)
        .bind(0_i64)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(|row| Ok((row.client.number, row.stored()?))).collect()
}

/// Those of the clients that there are, each with the slot of its tenant, by id.
pub(super) async fn moved_by_id(
    connection: &mut Connection,
    client_ids: &[&str],
) -> Result<HashMap<String, (i64, MovedClient)>, Error> {
    if client_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<MovedRow> = query_as(MOVED_BY_ID).bind(to_json(&client_ids)?).fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((row.client.client_id.clone(), (row.tenant, row.stored()?)))).collect()
}

/// Adds clients to a tenant, some hundreds at most, as the last ones of all.
pub(super) async fn insert_moved(
    connection: &mut Connection,
    tenant: i64,
    clients: &[&MovedClient],
) -> Result<(), Error> {
    if clients.is_empty() {
        return Ok(());
    }
    let numbers = client_numbers(connection, clients.len()).await?;
    let mut counts = BlockCounts::default();
    let mut rows = Vec::with_capacity(clients.len());
    for (number, moved) in numbers.zip(clients) {
        let owner = &moved.client.data.owner;
        let owner = if *owner == OwnerData::default() { None } else { Some(to_json(owner)?) };
        rows.push((number, moved, owner));
    }
    QueryBuilder::new(
        "INSERT INTO clients \
         (number, client_id, tenant, metadata, client_secret_sha256, fingerprint, issued_at, app_type, is_dynamic, \
          updated_at, owner, last_used_at, answered_at, third_party_security_mode) ",
    )
    .push_values(rows, |mut row, (number, moved, owner)| {
        let MovedClient { client, client_secret_sha256, answered_at, fingerprint } = moved;
        let updated_at = Some(client.updated_at).filter(|at| *at != client.issued_at.saturating_mul(1_000));
        let app_type = client.data.app_type.as_str();
        counts.add(tenant, number, app_type, 1);
        row.push_bind(number)
            .push_bind(client.client_id.as_str())
            .push_bind(tenant)
            .push_bind(client.data.metadata.as_str())
            .push_bind(client_secret_sha256.as_ref().map(<[u8; 32]>::as_slice))
            .push_bind(fingerprint.as_ref().map(<[u8; 32]>::as_slice))
            .push_bind(column(client.issued_at))
            .push_bind(app_type)
            .push_bind(i64::from(client.is_dynamic))
            .push_bind(updated_at.map(column))
            .push_bind(owner)
            .push_bind(client.last_used_at.map(column))
            .push_bind(answered_at.map(column))
            .push_bind(client.security_mode.as_str());
    })
    .build()
    .persistent(false)
    .execute(&mut *connection)
    .await?;
    counts.write(connection).await
}
