//! SQLite: the database for one store, in one file.
//!
//! WAL with full synchronisation: what is committed survives a power cut, and one sync does for a whole batch. All
//! writes of this process go through one connection, so they wait for each other here and not in SQLite's busy loop;
//! another process, such as the command line, is waited for with the busy timeout.

mod backup;
mod buckets;
mod changes;
mod client_changes;
mod clients;
mod documents;
mod network_acls;
mod open;
mod permissions;
mod register;
mod signing_keys;
mod tenant_log;
mod transfer;
mod unused_clients;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Mutex;

use self::open::{Found, connect_options, create_empty, look, migrate};
use self::register::{KnownTenants, register};
use super::{Arrival, Database, Error, IfMissing, IfOlder, Registered, StoredTenant};
use crate::edge_api::Changes;
use crate::store::admission::Refusal;
use crate::store::clock::Now;
use crate::tenant::{Domain, Name, Settings, Tenant};

/// How long a writer waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a process waits before it tries again what SQLite itself does not wait for.
const BUSY_RETRY: Duration = Duration::from_millis(10);

/// Pages of the WAL after which it is carried over into the file. New clients land on scattered pages of the index of
/// ids; the more of them come together, the less often each page is carried.
const WAL_PAGES: u32 = 4_000;

/// Most bytes that the WAL keeps once it was carried over. It has more where it could not be for long, as beside a copy.
const WAL_BYTES: u32 = 64 * 1024 * 1024;

/// Connections that read at the same time.
const READERS: u32 = 4;

/// Connections that search logs at the same time.
const SEARCHERS: u32 = 2;

/// Connections that read clients' permissions at the same time.
const PERMISSION_READERS: u32 = 2;

/// Rows of a deleted tenant that are deleted in one transaction.
const DELETED_ROWS: u32 = 2_000;

/// How long others get between two such transactions: the longest that SQLite sleeps while it waits for a lock, so
/// that whoever waits for this one finds it free.
const DELETION_PAUSE: Duration = Duration::from_millis(100);

/// A SQLite database.
pub struct Sqlite {
    path: PathBuf,
    readers: SqlitePool,
    /// For searches in logs, which may take long: what else is read must not wait for them.
    searchers: SqlitePool,
    /// For what clients may do, which may be much: the change feed must not wait for it.
    permission_readers: SqlitePool,
    writer: SqlitePool,
    known: Mutex<KnownTenants>,
}

impl Sqlite {
    /// Opens the database at `path`. If there is none it is made, or it is [`Error::Missing`]; if it is of an older
    /// version it is brought up to date, or it is [`Error::Older`]. A file that this binary cannot serve stays as it is.
    pub async fn open(path: &Path, if_missing: IfMissing, if_older: IfOlder) -> Result<Self, Error> {
        let place = path.display().to_string();
        let refuse = |reason: String| Error::Open { place: place.clone(), reason };
        let found = look(path).await.map_err(refuse)?;
        match (found, if_missing, if_older) {
            (Found::Nothing, IfMissing::Create, _) => create_empty(path).map_err(refuse)?,
            (Found::Nothing, IfMissing::Refuse, _) => return Err(Error::Missing(place)),
            (Found::Older, _, IfOlder::Refuse) => return Err(Error::Older(place)),
            (Found::Older, _, IfOlder::Migrate | IfOlder::Keep) | (Found::Current, ..) => {}
        }
        let keeps_tables = found == Found::Older && if_older == IfOlder::Keep;
        let options = connect_options(path);
        // The mode is in the file.
        let options = if keeps_tables { options } else { options.journal_mode(SqliteJournalMode::Wal) }
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", WAL_PAGES.to_string())
            .pragma("journal_size_limit", WAL_BYTES.to_string());
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .connect_with(options.clone())
        };
        let started = Instant::now();
        let writer = loop {
            match pool(1).await {
                // SQLite waits for no lock when it turns a new file to WAL, so two first starters may collide here.
                Err(error) if is_busy(&error) && started.elapsed() < BUSY_TIMEOUT => {
                    tokio::time::sleep(BUSY_RETRY).await
                }
                opened => break opened.map_err(|error| refuse(describe(&error)))?,
            }
        };
        if found != Found::Current && !keeps_tables {
            migrate(&writer).await.map_err(refuse)?;
        }
        let readers = pool(READERS).await.map_err(|error| refuse(describe(&error)))?;
        let searchers = pool(SEARCHERS).await.map_err(|error| refuse(describe(&error)))?;
        let permission_readers = pool(PERMISSION_READERS).await.map_err(|error| refuse(describe(&error)))?;
        Ok(Self { path: path.to_owned(), readers, searchers, permission_readers, writer, known: Mutex::default() })
    }
}

/// What a deleted tenant may have much of: how it is found, and how a part of it is deleted.
const CLIENTS: [&str; 2] = [
    "SELECT slot FROM tenants WHERE deleted = 1 AND EXISTS (SELECT 1 FROM clients WHERE tenant = slot)",
    "DELETE FROM clients WHERE rowid IN (SELECT rowid FROM clients WHERE tenant = ? LIMIT ?)",
];
const LOGS: [&str; 2] = [
    "SELECT slot FROM tenants WHERE deleted = 1 AND EXISTS (SELECT 1 FROM tenant_log WHERE tenant = slot)",
    "DELETE FROM tenant_log WHERE rowid IN (SELECT rowid FROM tenant_log WHERE tenant = ? LIMIT ?)",
];

impl Sqlite {
    /// Deletes little by little what is left of deleted tenants, and says how many rows `slot` had.
    async fn delete_rest(&self, [find, delete]: [&'static str; 2], slot: i64) -> Result<u64, Error> {
        let mut rows = 0;
        let dead: Vec<i64> = sqlx::query_scalar(find).fetch_all(&self.readers).await?;
        for tenant in dead {
            let deleted = self.delete_rows(delete, tenant).await?;
            if tenant == slot {
                rows = deleted;
            }
        }
        Ok(rows)
    }

    async fn delete_rows(&self, delete: &'static str, tenant: i64) -> Result<u64, Error> {
        let mut rows = 0_u64;
        loop {
            let deleted =
                sqlx::query(delete).bind(tenant).bind(DELETED_ROWS).execute(&self.writer).await?.rows_affected();
            rows = rows.saturating_add(deleted);
            if deleted < DELETED_ROWS.into() {
                return Ok(rows);
            }
            tokio::time::sleep(DELETION_PAUSE).await;
        }
    }
}

/// SQLite's primary result code, if the error is one of SQLite.
fn result_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok().map(|code: u32| code & 0xff)
}

fn is_busy(error: &sqlx::Error) -> bool {
    result_code(error) == Some(5)
}

/// An error of SQLite in words for users: never its own text, which may quote a statement or name a table.
fn describe(error: &sqlx::Error) -> String {
    let text = match error {
        sqlx::Error::Database(_) => match result_code(error).unwrap_or_default() {
            5 | 6 => "another process keeps it locked; stop that process or try again",
            8 => "it is read-only; make the file and its folder writable",
            10 => "the file system reported an error; look at the disk",
            11 => "the file is damaged; restore it from a backup",
            13 => "the disk is full; make room",
            14 => "the file cannot be opened; look at its path and permissions",
            26 => "the file is not a SQLite database; choose another path",
            code => return format!("SQLite reported the error {code}"),
        },
        sqlx::Error::Io(error) => return error.to_string(),
        sqlx::Error::PoolTimedOut => "no connection became free in time; try again",
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => "the store is shutting down",
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => "a stored value is damaged; restore a backup",
        _ => "it does not answer as expected",
    };
    text.to_owned()
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(describe(&error))
    }
}

#[derive(sqlx::FromRow)]
struct TenantRow {
    slot: u32,
    version: i64,
    name: String,
    /// A JSON array.
    hosts: String,
    /// JSON.
    settings: String,
    deleted: bool,
    permissive_eligible: bool,
    network_acl_bytes: i64,
}

/// The statement that reads [`TenantRow`]s, with its condition.
macro_rules! select_tenants {
    ($condition:literal) => {
        concat!(
            "SELECT slot, version, name, settings, deleted, permissive_eligible, network_acl_bytes, \
             (SELECT json_group_array(host) FROM \
              (SELECT host FROM tenant_domains WHERE tenant = slot ORDER BY position)) AS hosts \
             FROM tenants WHERE ",
            $condition
        )
    };
}

use select_tenants;

impl TenantRow {
    fn stored(self) -> Result<StoredTenant, Error> {
        let parsed = || -> Option<StoredTenant> {
            let tenant = Tenant {
                name: self.name.clone().try_into().ok()?,
                domains: serde_json::from_str(&self.hosts).ok()?,
                settings: serde_json::from_str(&self.settings).ok()?,
                permissive_eligible: self.permissive_eligible,
            };
            Some(StoredTenant { slot: self.slot, version: self.version.try_into().ok()?, tenant })
        };
        parsed().ok_or_else(|| unreadable(&format!("the tenant {}", self.name)))
    }
}

fn unreadable(what: &str) -> Error {
    Error::Failed(format!("{what} cannot be read; the database is damaged or was changed by hand"))
}

fn count(number: i64) -> Result<u64, Error> {
    number.try_into().map_err(|_| unreadable("a number"))
}

/// A number that SQLite can hold. Larger ones do not occur: they are times and counters.
fn column(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn to_json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::Failed("a value cannot be written as JSON".to_owned()))
}

/// Counts one more change, and gives its number.
async fn next_change(connection: &mut SqliteConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("UPDATE store SET changes = changes + 1 RETURNING changes").fetch_one(connection).await?)
}

async fn write_domains(connection: &mut SqliteConnection, slot: i64, domains: &[Domain]) -> Result<(), Error> {
    sqlx::query("DELETE FROM tenant_domains WHERE tenant = ?").bind(slot).execute(&mut *connection).await?;
    for (position, domain) in (0_i64..).zip(domains) {
        let owner: Option<String> =
            sqlx::query_scalar("SELECT name FROM tenant_domains JOIN tenants ON slot = tenant WHERE host = ?")
                .bind(domain.as_str())
                .fetch_optional(&mut *connection)
                .await?;
        if let Some(tenant) = owner {
            return Err(Error::HostTaken { host: domain.clone(), tenant });
        }
        sqlx::query("INSERT INTO tenant_domains (host, tenant, position) VALUES (?, ?, ?)")
            .bind(domain.as_str())
            .bind(slot)
            .bind(position)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[async_trait]
impl Database for Sqlite {
    async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT changes FROM store").fetch_one(&self.readers).await?;
        Ok(())
    }

    async fn create_tenant(&self, tenant: &Tenant) -> Result<(), Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let version = next_change(&mut transaction).await?;
        let slot: Option<i64> = sqlx::query_scalar(
            "INSERT INTO tenants (name, version, settings, permissive_eligible) VALUES (?, ?, ?, ?) \
             ON CONFLICT (name) WHERE deleted = 0 DO NOTHING RETURNING slot",
        )
        .bind(tenant.name.as_str())
        .bind(version)
        .bind(to_json(&tenant.settings)?)
        .bind(tenant.permissive_eligible)
        .fetch_optional(&mut *transaction)
        .await?;
        let slot = slot.ok_or_else(|| Error::TenantExists(tenant.name.clone()))?;
        write_domains(&mut transaction, slot, &tenant.domains).await?;
        Ok(transaction.commit().await?)
    }

    async fn tenants(&self) -> Result<Vec<StoredTenant>, Error> {
        let rows: Vec<TenantRow> =
            sqlx::query_as(select_tenants!("deleted = 0 ORDER BY name")).fetch_all(&self.readers).await?;
        rows.into_iter().map(TenantRow::stored).collect()
    }

    async fn readable_tenants(&self) -> Result<Vec<StoredTenant>, Error> {
        let rows: Vec<TenantRow> =
            sqlx::query_as(select_tenants!("deleted = 0 ORDER BY name")).fetch_all(&self.readers).await?;
        let stored = rows.into_iter().map(TenantRow::stored);
        Ok(stored.filter_map(|stored| stored.inspect_err(|error| tracing::error!(%error, "left out")).ok()).collect())
    }

    async fn tenant(&self, name: &Name) -> Result<Option<StoredTenant>, Error> {
        let row: Option<TenantRow> = sqlx::query_as(select_tenants!("name = ? AND deleted = 0"))
            .bind(name.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.map(TenantRow::stored).transpose()
    }

    async fn tenant_of_host(&self, host: &Domain) -> Result<Option<StoredTenant>, Error> {
        let row: Option<TenantRow> =
            sqlx::query_as(select_tenants!("slot = (SELECT tenant FROM tenant_domains WHERE host = ?)"))
                .bind(host.as_str())
                .fetch_optional(&self.readers)
                .await?;
        row.map(TenantRow::stored).transpose()
    }

    async fn replace_tenant(&self, changed: &StoredTenant, now: Now) -> Result<bool, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let before: Option<String> =
            sqlx::query_scalar("SELECT settings FROM tenants WHERE slot = ? AND version = ? AND deleted = 0")
                .bind(changed.slot)
                .bind(column(changed.version))
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(before) = before else { return Ok(false) };
        let before: Settings =
            serde_json::from_str(&before).map_err(|_| unreadable(&format!("the tenant {}", changed.tenant.name)))?;
        let version = next_change(&mut transaction).await?;
        sqlx::query("UPDATE tenants SET version = ?, settings = ?, permissive_eligible = ? WHERE slot = ?")
            .bind(version)
            .bind(to_json(&changed.tenant.settings)?)
            .bind(changed.tenant.permissive_eligible)
            .bind(changed.slot)
            .execute(&mut *transaction)
            .await?;
        write_domains(&mut transaction, changed.slot.into(), &changed.tenant.domains).await?;
        network_acls::refuse_redirects_to_itself(&mut transaction, changed.slot).await?;
        let limit = changed.tenant.settings.dcr_edge.rate_limit;
        if limit != before.dcr_edge.rate_limit {
            buckets::limit(&mut transaction, changed.slot.into(), now.steady, limit).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    async fn delete_tenant(&self, name: &Name) -> Result<Option<u64>, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let version = next_change(&mut transaction).await?;
        let slot: Option<i64> = sqlx::query_scalar(
            "UPDATE tenants SET version = ?, deleted = 1, settings = '{}', network_acl_bytes = 0 \
             WHERE name = ? AND deleted = 0 RETURNING slot",
        )
        .bind(version)
        .bind(name.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(slot) = slot else { return Ok(None) };
        write_domains(&mut transaction, slot, &[]).await?;
        for delete in [
            "DELETE FROM network_acls WHERE tenant = ?",
            "DELETE FROM buckets WHERE tenant = ?",
            // Grants go with the APIs.
            "DELETE FROM resource_servers WHERE tenant = ?",
            "DELETE FROM connections WHERE tenant = ?",
            "DELETE FROM client_blocks WHERE tenant = ?",
        ] {
            sqlx::query(delete).bind(slot).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        self.delete_rest(LOGS, slot).await?;
        Ok(Some(self.delete_rest(CLIENTS, slot).await?))
    }

    async fn changes(&self, after: u64, instance: Option<&str>) -> Result<Changes, Error> {
        let mut snapshot = self.readers.begin().await?;
        changes::page(&mut snapshot, after, instance).await
    }

    async fn forget_client_changes(&self, most: u32, seen: u64) -> Result<u64, Error> {
        self.forget_changes(most, seen).await
    }

    async fn register(&self, batch: &[Arrival]) -> Result<Vec<Result<Registered, Refusal>>, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let mut known = self.known.lock().await;
        known.catch_up(&mut transaction).await?;
        let answers = register(&mut transaction, &known, batch).await?;
        transaction.commit().await?;
        Ok(answers)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.searchers.close().await;
        self.permission_readers.close().await;
        self.writer.close().await;
    }
}

#[cfg(test)]
impl Sqlite {
    /// How SQLite finds what a statement asks for, step by step.
    async fn plan_of(&self, statement: &str) -> Vec<String> {
        let explain = format!("EXPLAIN QUERY PLAN {statement}");
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(explain)).fetch_all(&self.readers).await.unwrap();
        plan.into_iter().map(|(.., step)| step).collect()
    }
}
