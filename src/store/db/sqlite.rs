//! SQLite: the database for one store, in one file.
//!
//! WAL with full synchronisation: what is committed survives a power cut, and one sync does for a whole batch. All
//! writes of this process go through one connection, so they wait for each other here and not in SQLite's busy loop;
//! another process, such as the command line, is waited for with the busy timeout.

/// A text for each dialect of SQL: this is the one of SQLite.
macro_rules! sql {
    (sqlite: $sqlite:expr, postgres: $postgres:expr $(,)?) => {
        $sqlite
    };
}

mod backup;
mod open;
#[cfg(test)]
mod plans;
mod search;
#[allow(clippy::duplicate_mod, reason = "what both databases do alike is written once and compiled for each")]
#[path = "sql/mod.rs"]
mod sql;

use std::iter::successors;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnection as Connection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite as Driver, Transaction};
use tokio::sync::Mutex;

use self::Sqlite as Backend;
use self::open::{Look, connect_options, create_empty, look, migrate};
use self::sql::KnownTenants;
use super::failure::{describe, sqlite_code};
use super::migration::Found;
use super::{Error, IfMissing, IfOlder};
use crate::store::clock::Steady;

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

/// SQLite's result code of a database that another process has locked.
const BUSY: u32 = 5;

/// Whether statements are kept prepared: each connection is one of SQLite itself.
const PERSISTENT: bool = true;

/// Whether a transaction that writes is the only one that does.
const WRITES_ALONE: bool = true;

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
        let how = if if_older == IfOlder::Migrate { Look::AtAll } else { Look::AtTables };
        let found = look(path, how).await.map_err(refuse)?;
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
                // SQLite itself rolls back what finds the disk full; a connection that believes to be in that
                // transaction still could begin no other.
                .after_release(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
                .connect_with(options.clone())
        };
        let started = Instant::now();
        let writer = loop {
            match pool(1).await {
                // SQLite waits for no lock when it turns a new file to WAL, so two first starters may collide here.
                Err(error) if sqlite_code(&error) == Some(BUSY) && started.elapsed() < BUSY_TIMEOUT => {
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

impl Sqlite {
    /// A connection for a statement that reads.
    async fn read(&self) -> Result<PoolConnection<Driver>, Error> {
        Ok(self.readers.acquire().await?)
    }

    /// A transaction that reads what there is at one moment.
    async fn snapshot(&self) -> Result<Transaction<'static, Driver>, Error> {
        Ok(self.readers.begin().await?)
    }

    /// The same for what clients may do.
    async fn permission_snapshot(&self) -> Result<Transaction<'static, Driver>, Error> {
        Ok(self.permission_readers.begin().await?)
    }

    /// A transaction that writes.
    async fn write(&self) -> Result<Transaction<'static, Driver>, Error> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Does work that may be done once more. Nothing is gained by it here: whoever had to wait has waited.
    async fn repeated<T, F: Future<Output = Result<T, Error>>>(&self, work: impl Fn() -> F) -> Result<T, Error> {
        work().await
    }

    async fn close_connections(&self) {
        self.readers.close().await;
        self.searchers.close().await;
        self.permission_readers.close().await;
        self.writer.close().await;
    }
}

/// Nothing: whoever writes is alone.
async fn lock_tenants(_: &mut Connection, _: impl IntoIterator<Item = i64>) -> Result<(), Error> {
    Ok(())
}

/// Nothing: whoever writes is alone.
async fn lock_store(_: &mut Connection) -> Result<(), Error> {
    Ok(())
}

const LAST_NUMBER: &str = "SELECT coalesce(max(number), 0) FROM clients";

/// So many numbers for new clients, after those of all others.
async fn client_numbers(connection: &mut Connection, clients: usize) -> Result<impl Iterator<Item = i64>, Error> {
    let last: i64 = sql::query_scalar(LAST_NUMBER).fetch_one(connection).await?;
    Ok(successors(last.checked_add(1), |number| number.checked_add(1)).take(clients))
}

/// The clock of the machine, on which all stores of this file run.
struct SharedClock;

async fn shared_clock(_: &mut Connection) -> Result<SharedClock, Error> {
    Ok(SharedClock)
}

impl SharedClock {
    /// A moment on the machine's clock, on this one.
    fn moment(&self, moment: Steady) -> Steady {
        moment
    }

    /// A moment that this clock showed once.
    fn past(&self, moment: Steady) -> Steady {
        moment
    }
}

/// A text as the database can hold it.
fn text(text: &str) -> &str {
    text
}
