//! Clients, as their tenants' owners see them.
//!
//! The numbers of clients are counted in blocks of 2,048. A page in the middle of a million is found by its block, and
//! within it by the index, which has each type by itself; `total` is a sum over blocks.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::{Sqlite, column, count, to_json, unreadable};
use crate::store::client::{AppType, ClientData, OwnerData};
use crate::store::db::{ClientPage, Clients, Error, MadeClient, StoredClient};

/// How many bits of a client's number are its place in its block.
const BLOCK_BITS: u32 = 11;

/// The columns of a [`ClientRow`].
macro_rules! columns {
    () => {
        "number, client_id, version, is_dynamic, client_secret_sha256 IS NOT NULL AS has_secret, issued_at, \
         updated_at, last_used_at, metadata, app_type, owner"
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
    ($statement:literal) => {
        concat!($statement, " RETURNING ", columns!())
    };
}

#[async_trait]
impl Clients for Sqlite {
    async fn clients(&self, tenant: u32, app_types: &[AppType], offset: u64, limit: u32) -> Result<ClientPage, Error> {
        let mut snapshot = self.readers.begin().await?;
        page(&mut snapshot, tenant, app_types, offset, limit).await
    }

    async fn client(&self, tenant: u32, client_id: &str) -> Result<Option<StoredClient>, Error> {
        let row: Option<ClientRow> = sqlx::query_as(select_clients!("WHERE client_id = ? AND tenant = ?"))
            .bind(client_id)
            .bind(tenant)
            .fetch_optional(&self.readers)
            .await?;
        row.map(ClientRow::stored).transpose()
    }

    async fn client_secret_sha256(&self, tenant: u32, client_id: &str) -> Result<Option<[u8; 32]>, Error> {
        let hash: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT client_secret_sha256 FROM clients \
             WHERE client_id = ? AND tenant = ? AND client_secret_sha256 IS NOT NULL",
        )
        .bind(client_id)
        .bind(tenant)
        .fetch_optional(&self.readers)
        .await?;
        hash.map(|hash| hash.try_into().map_err(|_| unreadable("a client's secret"))).transpose()
    }

    async fn create_client(&self, tenant: u32, client: &MadeClient, now: u64) -> Result<Option<StoredClient>, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let row: Option<ClientRow> = sqlx::query_as(returning_client!(
            "INSERT INTO clients (client_id, tenant, metadata, client_secret_sha256, issued_at, app_type, is_dynamic, \
             owner) SELECT ?, slot, ?, ?, ?, ?, 0, ? FROM tenants WHERE slot = ? AND deleted = 0"
        ))
        .bind(&client.client_id)
        .bind(&client.data.metadata)
        .bind(client.client_secret_sha256.as_ref().map(<[u8; 32]>::as_slice))
        .bind(column(now / 1_000))
        .bind(client.data.app_type.as_str())
        .bind(to_json(&client.data.owner)?)
        .bind(tenant)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        recount(&mut transaction, tenant, row.number).await?;
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
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let row: Option<ClientRow> = sqlx::query_as(returning_client!(
            "UPDATE clients SET metadata = ?1, app_type = ?2, owner = ?3, updated_at = ?4, version = version + 1, \
             fingerprint = iif(metadata = ?1, fingerprint, NULL) \
             WHERE client_id = ?5 AND tenant = ?6 AND version = ?7"
        ))
        .bind(&data.metadata)
        .bind(data.app_type.as_str())
        .bind(to_json(&data.owner)?)
        .bind(column(now))
        .bind(&stored.client_id)
        .bind(tenant)
        .bind(column(stored.version))
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if data.app_type != stored.data.app_type {
            recount(&mut transaction, tenant, row.number).await?;
        }
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
        let row: Option<ClientRow> = sqlx::query_as(returning_client!(
            "UPDATE clients SET client_secret_sha256 = ?, updated_at = ?, version = version + 1 \
             WHERE client_id = ? AND tenant = ? AND client_secret_sha256 IS NOT NULL"
        ))
        .bind(client_secret_sha256.as_slice())
        .bind(column(now))
        .bind(client_id)
        .bind(tenant)
        .fetch_optional(&self.writer)
        .await?;
        row.map(ClientRow::stored).transpose()
    }

    async fn delete_client(&self, tenant: u32, client_id: &str) -> Result<(), Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let number: Option<i64> =
            sqlx::query_scalar("DELETE FROM clients WHERE client_id = ? AND tenant = ? RETURNING number")
                .bind(client_id)
                .bind(tenant)
                .fetch_optional(&mut *transaction)
                .await?;
        if let Some(number) = number {
            recount(&mut transaction, tenant, number).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    async fn note_client_uses(&self, clients: &[(u32, String)], now: u64) -> Result<(), Error> {
        sqlx::query(NOTE_USES).bind(column(now / 1_000)).bind(to_json(&clients)?).execute(&self.writer).await?;
        Ok(())
    }
}

const NOTE_USES: &str = "UPDATE clients SET last_used_at = ?1 FROM json_each(?2) AS used \
     WHERE client_id = used.value ->> 1 AND tenant = used.value ->> 0";

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
}

impl ClientRow {
    fn stored(self) -> Result<StoredClient, Error> {
        let damaged = || unreadable(&format!("the client {}", self.client_id));
        let owner: Option<OwnerData> =
            self.owner.as_deref().map(serde_json::from_str).transpose().map_err(|_| damaged())?;
        let app_type = AppType::named(&self.app_type).ok_or_else(damaged)?;
        let issued_at = count(self.issued_at)?;
        Ok(StoredClient {
            client_id: self.client_id,
            version: count(self.version)?,
            is_dynamic: self.is_dynamic,
            has_secret: self.has_secret,
            issued_at,
            updated_at: self.updated_at.map_or(Ok(issued_at.saturating_mul(1_000)), count)?,
            last_used_at: self.last_used_at.map(count).transpose()?,
            data: ClientData { metadata: self.metadata, app_type, owner: owner.unwrap_or_default() },
        })
    }
}

/// Counts again the clients that the tenant has in the block of the client with this number.
async fn recount(connection: &mut SqliteConnection, tenant: u32, number: i64) -> Result<(), Error> {
    let block = number >> BLOCK_BITS;
    sqlx::query("DELETE FROM client_blocks WHERE tenant = ? AND block = ?")
        .bind(tenant)
        .bind(block)
        .execute(&mut *connection)
        .await?;
    sqlx::query(RECOUNT).bind(tenant).bind(block).bind(BLOCK_BITS).execute(connection).await?;
    Ok(())
}

/// `NOT INDEXED`: the numbers are a few, the tenant's clients may be all.
const RECOUNT: &str = "INSERT INTO client_blocks (tenant, block, app_type, clients) \
     SELECT ?1, ?2, app_type, count(*) FROM clients NOT INDEXED \
     WHERE number >= ?2 << ?3 AND number < (?2 + 1) << ?3 AND tenant = ?1 GROUP BY app_type";

/// The number of the client that was added last.
pub(super) async fn last_number(connection: &mut SqliteConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT coalesce(max(number), 0) FROM clients").fetch_one(connection).await?)
}

/// Counts the clients that were added after the one with the number `last`.
pub(super) async fn count_added(connection: &mut SqliteConnection, last: i64) -> Result<(), Error> {
    sqlx::query(COUNT_ADDED).bind(BLOCK_BITS).bind(last).execute(connection).await?;
    Ok(())
}

const COUNT_ADDED: &str = "INSERT INTO client_blocks (tenant, block, app_type, clients) \
     SELECT tenant, number >> ?1, app_type, count(*) FROM clients NOT INDEXED WHERE number > ?2 \
     GROUP BY tenant, number >> ?1, app_type \
     ON CONFLICT DO UPDATE SET clients = clients + excluded.clients";

/// Some of a tenant's clients, of one moment.
async fn page(
    connection: &mut SqliteConnection,
    tenant: u32,
    app_types: &[AppType],
    offset: u64,
    limit: u32,
) -> Result<ClientPage, Error> {
    let names: Vec<&str> = app_types.iter().map(|app_type| app_type.as_str()).collect();
    let types = to_json(&names)?;
    let total: i64 = sqlx::query_scalar(TOTAL).bind(tenant).bind(&types).fetch_one(&mut *connection).await?;
    let start: Option<(i64, i64)> = sqlx::query_as(BLOCK_OF)
        .bind(tenant)
        .bind(&types)
        .bind(column(offset))
        .fetch_optional(&mut *connection)
        .await?;
    let rows: Vec<ClientRow> = match start {
        None => Vec::new(),
        Some((block, before)) => {
            let skipped = offset.saturating_sub(count(before)?);
            sqlx::query_as(ROWS)
                .bind(tenant)
                .bind(&types)
                .bind(block << BLOCK_BITS)
                .bind(limit)
                .bind(column(skipped))
                .fetch_all(connection)
                .await?
        }
    };
    let clients = rows.into_iter().map(ClientRow::stored).collect::<Result<_, _>>()?;
    Ok(ClientPage { clients, total: count(total)? })
}

const TOTAL: &str = "SELECT coalesce(sum(clients), 0) FROM client_blocks \
     WHERE tenant = ?1 AND app_type IN (SELECT value FROM json_each(?2))";

/// The block with the client that comes after the first `?3`, and how many come before that block.
const BLOCK_OF: &str = "SELECT block, upto - clients FROM \
     (SELECT block, sum(clients) AS clients, sum(sum(clients)) OVER (ORDER BY block) AS upto FROM client_blocks \
      WHERE tenant = ?1 AND app_type IN (SELECT value FROM json_each(?2)) GROUP BY block) \
     WHERE upto > ?3 LIMIT 1";

/// The numbers of a tenant's clients of one type, from one number on; none if the type is not asked for: the index is
/// then asked for NULL, where a condition beside it would be asked for each client of the type.
macro_rules! numbers_of {
    ($app_type:literal) => {
        concat!(
            "SELECT number FROM clients WHERE tenant = ?1 AND number >= ?3 \
             AND app_type = (SELECT value FROM json_each(?2) WHERE value = '",
            $app_type,
            "')"
        )
    };
}

/// The page: the numbers of all types, each in the order of the index, are merged and not sorted.
const ROWS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM clients WHERE number IN (SELECT number FROM (",
    numbers_of!("native"),
    " UNION ALL ",
    numbers_of!("regular_web"),
    " UNION ALL ",
    numbers_of!("spa"),
    " UNION ALL ",
    numbers_of!("non_interactive"),
    " ORDER BY number LIMIT ?4 OFFSET ?5)) ORDER BY number"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::{Database, IfMissing};

    #[tokio::test]
    async fn every_page_is_read_by_an_index_and_nothing_is_sorted() {
        let folder = tempfile::tempdir().unwrap();
        let database = Sqlite::open(&folder.path().join("dcr.db"), IfMissing::Create).await.unwrap();
        for statement in [TOTAL, BLOCK_OF, ROWS, COUNT_ADDED, RECOUNT, NOTE_USES] {
            // Only what a batch or a block has may be sorted, to be counted.
            let counts = statement == COUNT_ADDED || statement == RECOUNT;
            let steps = plan_of(&database, statement).await;
            assert!(steps.iter().any(|step| step.starts_with("SEARCH client")), "{statement}: {steps:#?}");
            for step in &steps {
                assert!(!step.starts_with("SCAN client"), "{statement}: {steps:#?}");
                assert!(counts || !step.contains("TEMP B-TREE"), "{statement}: {steps:#?}");
            }
        }
        for app_type in AppType::ALL {
            assert!(ROWS.contains(&format!("value = '{}'", app_type.as_str())));
        }
        let page_arms = plan_of(&database, ROWS).await;
        let by_index =
            page_arms.iter().filter(|step| step.ends_with("clients_tenant (tenant=? AND app_type=? AND rowid>?)"));
        assert_eq!(by_index.count(), AppType::ALL.len(), "{page_arms:#?}");
        database.close().await;
    }

    async fn plan_of(database: &Sqlite, statement: &str) -> Vec<String> {
        let explain = format!("EXPLAIN QUERY PLAN {statement}");
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(explain)).fetch_all(&database.readers).await.unwrap();
        plan.into_iter().map(|(.., step)| step).collect()
    }
}
