//! SQLite: the database for one store, in one file.
//!
//! WAL with full synchronisation: what is committed survives a power cut, and one sync does for a whole batch. All
//! writes of this process go through one connection, so they wait for each other here and not in SQLite's busy loop;
//! another process, such as the command line, is waited for with the busy timeout.

mod open;
mod register;

use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::sqlite::{SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Mutex;

use self::open::{connect_options, create_empty, has_tables, migrate};
use self::register::{KnownTenants, register};
use super::{Database, Error, IfMissing, Registered, StoredTenant};
use crate::edge_api::{Changes, TenantChange};
use crate::store::admission::{NewClient, Refusal};
use crate::tenant::{Domain, Name, Tenant};

/// How long a writer waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a process waits before it tries again what SQLite itself does not wait for.
const BUSY_RETRY: Duration = Duration::from_millis(10);

/// Pages of the WAL after which it is carried over into the file. New clients land on scattered pages of the index of
/// ids; the more of them come together, the less often each page is carried.
const WAL_PAGES: u32 = 4_000;

/// Connections that read at the same time.
const READERS: u32 = 4;

/// Clients of a deleted tenant that are deleted in one transaction.
const DELETED_CLIENTS: u32 = 2_000;

/// How long others get between two such transactions: the longest that SQLite sleeps while it waits for a lock, so
/// that whoever waits for this one finds it free.
const DELETION_PAUSE: Duration = Duration::from_millis(100);

/// Most tenants on one page of the change feed.
const PAGE_TENANTS: usize = 500;

/// Bytes of tenants after which a page of the change feed ends.
const PAGE_BYTES: usize = 256 * 1024;

/// A SQLite database.
pub struct Sqlite {
    readers: SqlitePool,
    writer: SqlitePool,
    known: Mutex<KnownTenants>,
}

impl Sqlite {
    /// Opens the database at `path`, and brings its tables up to date. If there is none it is made, or it is
    /// [`Error::Missing`]. A file that this binary cannot serve stays as it is.
    pub async fn open(path: &Path, if_missing: IfMissing) -> Result<Self, Error> {
        let place = path.display().to_string();
        let refuse = |reason: String| Error::Open { place: place.clone(), reason };
        if !has_tables(path).await.map_err(refuse)? {
            match if_missing {
                IfMissing::Create => create_empty(path).map_err(refuse)?,
                IfMissing::Refuse => return Err(Error::Missing(place)),
            }
        }
        let options = connect_options(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", WAL_PAGES.to_string());
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
        migrate(&writer).await.map_err(refuse)?;
        let readers = pool(READERS).await.map_err(|error| refuse(describe(&error)))?;
        Ok(Self { readers, writer, known: Mutex::default() })
    }
}

impl Sqlite {
    /// The slots of deleted tenants whose clients are not all deleted yet.
    async fn dead_tenants_with_clients(&self) -> Result<Vec<i64>, Error> {
        const READ: &str = "SELECT slot FROM tenants \
                            WHERE deleted = 1 AND EXISTS (SELECT 1 FROM clients WHERE tenant = slot)";
        Ok(sqlx::query_scalar(READ).fetch_all(&self.readers).await?)
    }

    /// Deletes the clients of a deleted tenant, and says how many those were.
    async fn delete_clients(&self, slot: i64) -> Result<u64, Error> {
        let mut clients = 0_u64;
        loop {
            let deleted =
                sqlx::query("DELETE FROM clients WHERE rowid IN (SELECT rowid FROM clients WHERE tenant = ? LIMIT ?)")
                    .bind(slot)
                    .bind(DELETED_CLIENTS)
                    .execute(&self.writer)
                    .await?
                    .rows_affected();
            clients = clients.saturating_add(deleted);
            if deleted < DELETED_CLIENTS.into() {
                return Ok(clients);
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
}

/// The statement that reads [`TenantRow`]s, with its condition.
macro_rules! select_tenants {
    ($condition:literal) => {
        concat!(
            "SELECT slot, version, name, settings, deleted, \
             (SELECT json_group_array(host) FROM \
              (SELECT host FROM tenant_domains WHERE tenant = slot ORDER BY position)) AS hosts \
             FROM tenants WHERE ",
            $condition
        )
    };
}

impl TenantRow {
    fn stored(self) -> Result<StoredTenant, Error> {
        let parsed = || -> Option<StoredTenant> {
            let tenant = Tenant {
                name: self.name.clone().try_into().ok()?,
                domains: serde_json::from_str(&self.hosts).ok()?,
                settings: serde_json::from_str(&self.settings).ok()?,
            };
            Some(StoredTenant { slot: self.slot, version: self.version.try_into().ok()?, tenant })
        };
        parsed().ok_or_else(|| unreadable(&format!("the tenant {}", self.name)))
    }

    /// The newest state as the edge is told it. It is not parsed: an edge may know settings that this binary does not.
    fn change(self) -> Result<TenantChange, Error> {
        #[derive(Serialize)]
        struct Parts<'a> {
            name: &'a str,
            domains: Box<RawValue>,
            settings: Box<RawValue>,
        }
        let Self { slot, version, name, hosts, settings, deleted } = self;
        let json = || {
            let (domains, settings) = (RawValue::from_string(hosts)?, RawValue::from_string(settings)?);
            to_raw_value(&Parts { name: &name, domains, settings })
        };
        let tenant = (!deleted).then(json).transpose().map_err(|_| unreadable(&format!("the tenant {name}")))?;
        Ok(TenantChange { slot, version: count(version)?, tenant })
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

    async fn signing_key_seed(&self, candidate: [u8; 32]) -> Result<[u8; 32], Error> {
        const READ: &str = "SELECT ed25519_seed FROM signing_key";
        let mut seed: Option<Vec<u8>> = sqlx::query_scalar(READ).fetch_optional(&self.readers).await?;
        if seed.is_none() {
            sqlx::query("INSERT OR IGNORE INTO signing_key (id, ed25519_seed) VALUES (1, ?)")
                .bind(candidate.as_slice())
                .execute(&self.writer)
                .await?;
            seed = sqlx::query_scalar(READ).fetch_optional(&self.writer).await?;
        }
        seed.and_then(|seed| seed.try_into().ok()).ok_or_else(|| unreadable("the signing key"))
    }

    async fn create_tenant(&self, tenant: &Tenant) -> Result<(), Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let version = next_change(&mut transaction).await?;
        let slot: Option<i64> = sqlx::query_scalar(
            "INSERT INTO tenants (name, version, settings) VALUES (?, ?, ?) \
             ON CONFLICT (name) WHERE deleted = 0 DO NOTHING RETURNING slot",
        )
        .bind(tenant.name.as_str())
        .bind(version)
        .bind(to_json(&tenant.settings)?)
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

    async fn replace_tenant(&self, changed: &StoredTenant) -> Result<bool, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let version = next_change(&mut transaction).await?;
        let updated =
            sqlx::query("UPDATE tenants SET version = ?, settings = ? WHERE slot = ? AND version = ? AND deleted = 0")
                .bind(version)
                .bind(to_json(&changed.tenant.settings)?)
                .bind(changed.slot)
                .bind(column(changed.version))
                .execute(&mut *transaction)
                .await?;
        if updated.rows_affected() == 0 {
            return Ok(false);
        }
        write_domains(&mut transaction, changed.slot.into(), &changed.tenant.domains).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn delete_tenant(&self, name: &Name) -> Result<Option<u64>, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let version = next_change(&mut transaction).await?;
        let slot: Option<i64> = sqlx::query_scalar(
            "UPDATE tenants SET version = ?, deleted = 1, settings = '{}' WHERE name = ? AND deleted = 0 \
             RETURNING slot",
        )
        .bind(version)
        .bind(name.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(slot) = slot else { return Ok(None) };
        write_domains(&mut transaction, slot, &[]).await?;
        transaction.commit().await?;
        let mut clients = 0;
        for dead in self.dead_tenants_with_clients().await? {
            let deleted = self.delete_clients(dead).await?;
            if dead == slot {
                clients = deleted;
            }
        }
        Ok(Some(clients))
    }

    async fn changes(&self, after: u64, instance: Option<&str>) -> Result<Changes, Error> {
        let mut snapshot = self.readers.begin().await?;
        let (own_instance, newest): (String, i64) =
            sqlx::query_as("SELECT instance, changes FROM store").fetch_one(&mut *snapshot).await?;
        let newest = count(newest)?;
        let full = instance != Some(own_instance.as_str()) || after > newest;
        // A telling of everything needs no tombstones.
        let rows: Vec<TenantRow> =
            sqlx::query_as(select_tenants!("version > ? AND (NOT deleted OR ?) ORDER BY version LIMIT ?"))
                .bind(if full { 0 } else { column(after) })
                .bind(!full)
                .bind(column(PAGE_TENANTS.saturating_add(1) as u64))
                .fetch_all(&mut *snapshot)
                .await?;

        let (mut tenants, mut bytes, mut more) = (Vec::<TenantChange>::new(), 0_usize, false);
        for row in rows {
            if tenants.len() == PAGE_TENANTS || bytes >= PAGE_BYTES {
                more = true;
                break;
            }
            let change = row.change()?;
            bytes = bytes.saturating_add(change.tenant.as_ref().map_or(0, |json| json.get().len()));
            tenants.push(change);
        }
        let head = if more { tenants.last().map_or(newest, |last| last.version) } else { newest };
        Ok(Changes { instance: own_instance, full, head, more, tenants })
    }

    async fn register(&self, batch: &[NewClient], now: u64) -> Result<Vec<Result<Registered, Refusal>>, Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let mut known = self.known.lock().await;
        known.catch_up(&mut transaction).await?;
        let answers = register(&mut transaction, &known, batch, now).await?;
        transaction.commit().await?;
        Ok(answers)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
