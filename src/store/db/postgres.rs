//! PostgreSQL: the database for many stores.
//!
//! Each transaction stands by itself: nothing is kept in a session, so that a pooler such as PgBouncer may give each one
//! another connection. For that, statements are not kept prepared either.
//!
//! Transactions that write are READ COMMITTED and lock what they depend on: the tenants first, in the order of their
//! slots, then the row of `store`, which counts the changes. Whoever has counted a change holds that row until the
//! commit, so no change becomes visible before an earlier one.

/// A text for each dialect of SQL: this is the one of PostgreSQL.
macro_rules! sql {
    (sqlite: $sqlite:expr, postgres: $postgres:expr $(,)?) => {
        $postgres
    };
}

mod backup;
mod open;
mod search;
#[allow(clippy::duplicate_mod, reason = "what both databases do alike is written once and compiled for each")]
#[path = "sql/mod.rs"]
mod sql;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use sqlx::postgres::{PgConnection as Connection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Postgres as Driver, Transaction};
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::Postgres as Backend;
use self::sql::KnownTenants;
use super::{Error, unreadable};
use crate::store::clock::{BootId, Clock, Steady};

/// Connections that write at the same time. Registrations need one: they come in batches.
const WRITERS: u32 = 4;

/// Connections that read at the same time.
const READERS: u32 = 4;

/// Connections that search logs at the same time.
const SEARCHERS: u32 = 2;

/// Connections that read clients' permissions at the same time.
const PERMISSION_READERS: u32 = 2;

/// How long a caller waits for a free connection, or for a new one.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long an idle connection is believed to be alive, and how long one may take to show that it is.
const BELIEVED_ALIVE: Duration = Duration::from_secs(1);

/// How long the server may take to say goodbye.
const CLOSE: Duration = Duration::from_secs(2);

/// How long a batch of registrations may take before it is given up and tried once more.
const ATTEMPT: Duration = Duration::from_secs(2);

/// How long it is tried. An edge waits a little longer than that by default.
const ATTEMPTS: Duration = Duration::from_secs(3);

/// The server ends what takes longer, so that nobody whose store is gone holds a lock for long.
const WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
     SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '5s'; \
     SET LOCAL idle_in_transaction_session_timeout = '5s'";
const READ: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = '10s'";
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '10s'";

/// Whether statements are kept prepared: a pooler that gives each transaction another connection would look for them in
/// vain.
const PERSISTENT: bool = false;

/// Whether a transaction that writes is the only one that does.
const WRITES_ALONE: bool = false;

/// A PostgreSQL database.
pub struct Postgres {
    readers: PgPool,
    /// For searches in logs, which may take long: what else is read must not wait for them.
    searchers: PgPool,
    /// For what clients may do, which may be much: the change feed must not wait for it.
    permission_readers: PgPool,
    writers: PgPool,
    known: Mutex<KnownTenants>,
}

/// So many connections, each made when it is first needed.
fn pool(options: &sqlx::postgres::PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async {
                // On the way to a new primary a name may still lead to a standby.
                if open::is_standby(connection).await? {
                    Err(sqlx::Error::Protocol(open::STANDBY.to_owned()))
                } else {
                    Ok(())
                }
            })
        })
        .before_acquire(|connection, metadata| {
            Box::pin(async move { Ok(metadata.idle_for < BELIEVED_ALIVE || answers(connection).await?) })
        })
        // Without it the pool would wait for a server that vanished without a word as long as TCP does.
        .after_release(|connection, _| Box::pin(answers(connection)))
        .connect_lazy_with(options.clone())
}

/// Fails if the connection does not answer soon.
async fn answers(connection: &mut Connection) -> Result<bool, sqlx::Error> {
    match timeout(BELIEVED_ALIVE, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

impl Postgres {
    /// A transaction for statements that read.
    async fn read(&self) -> Result<Transaction<'static, Driver>, Error> {
        Ok(self.readers.begin_with(READ).await?)
    }

    /// A transaction that reads what there is at one moment.
    async fn snapshot(&self) -> Result<Transaction<'static, Driver>, Error> {
        Ok(self.readers.begin_with(SNAPSHOT).await?)
    }

    /// The same for what clients may do.
    async fn permission_snapshot(&self) -> Result<Transaction<'static, Driver>, Error> {
        Ok(self.permission_readers.begin_with(SNAPSHOT).await?)
    }

    /// A transaction that writes.
    async fn write(&self) -> Result<Transaction<'static, Driver>, Error> {
        Ok(self.writers.begin_with(WRITE).await?)
    }

    /// Does work that may be done once more, if the connection breaks, the server is replaced or others are in the way.
    async fn repeated<T, F: Future<Output = Result<T, Error>>>(&self, work: impl Fn() -> F) -> Result<T, Error> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_millis(500))
            .without_max_times()
            .with_jitter();
        let began = Instant::now();
        let attempt = || async {
            let answer = timeout(ATTEMPT, work()).await;
            answer.unwrap_or_else(|_| Err(Error::Unavailable("it did not answer in time; try again".to_owned())))
        };
        attempt
            .retry(pauses)
            .when(|error| matches!(error, Error::Unavailable(_)) && began.elapsed() < ATTEMPTS)
            .notify(|error, _| tracing::warn!(%error, "trying once more"))
            .await
    }

    async fn close_connections(&self) {
        let pools = [&self.readers, &self.searchers, &self.permission_readers, &self.writers];
        // Each waits for what its server says to the end, which may be nothing.
        _ = timeout(CLOSE, async {
            for pool in pools {
                pool.close().await
            }
        })
        .await;
    }
}

/// Locks the tenants in these slots until the transaction ends.
async fn lock_tenants(connection: &mut Connection, slots: impl IntoIterator<Item = i64>) -> Result<(), Error> {
    let slots: BTreeSet<i64> = slots.into_iter().collect();
    if !slots.is_empty() {
        let slots: Vec<i64> = slots.into_iter().collect();
        sql::query("SELECT slot FROM tenants WHERE slot = ANY($1) ORDER BY slot FOR NO KEY UPDATE")
            .bind(slots)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Locks what belongs to no tenant until the transaction ends.
async fn lock_store(connection: &mut Connection) -> Result<(), Error> {
    sql::query("SELECT id FROM store FOR UPDATE").execute(connection).await?;
    Ok(())
}

/// So many numbers for new clients, after those of all others of their tenants, which are locked.
async fn client_numbers(connection: &mut Connection, clients: usize) -> Result<impl Iterator<Item = i64>, Error> {
    let clients = i64::try_from(clients).unwrap_or(i64::MAX);
    let numbers: Vec<i64> =
        sql::query_scalar("SELECT array_agg(nextval('client_numbers')) FROM generate_series(1, $1)")
            .bind(clients)
            .fetch_one(connection)
            .await?;
    Ok(numbers.into_iter())
}

/// The clock of the database server, on which all stores run. A moment of it is told by the server's start, as that of a
/// machine's clock is told by its boot.
struct SharedClock {
    now: Steady,
    /// The same moment, or a little later, on the clock of this machine.
    here: Steady,
}

/// The time on it. Whoever locks a tenant asks for it after that: then no moment of the tenant's is later.
async fn shared_clock(connection: &mut Connection) -> Result<SharedClock, Error> {
    let (now, start): (i64, i64) = sql::query_as(
        "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT), \
         CAST(extract(epoch FROM pg_postmaster_start_time()) * 1000000 AS BIGINT)",
    )
    .fetch_one(connection)
    .await?;
    let (Ok(now), Ok(start)) = (u64::try_from(now), u128::try_from(start)) else {
        return Err(unreadable("the server's clock"));
    };
    let here = Clock::of_this_machine().map_err(|_| Error::no_randomness())?.now().steady;
    Ok(SharedClock { now: Steady { boot: BootId(start.to_be_bytes()), nanos: now.saturating_mul(1_000) }, here })
}

impl SharedClock {
    /// A moment on the clock of this machine, on this one: it was as long ago. Those of other machines stay what they are.
    fn moment(&self, moment: Steady) -> Steady {
        if moment.boot != self.here.boot {
            return moment;
        }
        let ago = self.here.nanos.saturating_sub(moment.nanos);
        Steady { nanos: self.now.nanos.saturating_sub(ago), ..self.now }
    }

    /// A moment that this clock showed once. If it is still to come, somebody set the clock back, and nothing is known of
    /// the time between.
    fn past(&self, moment: Steady) -> Steady {
        if moment.boot == self.now.boot && moment.nanos > self.now.nanos {
            Steady { boot: BootId::default(), ..moment }
        } else {
            moment
        }
    }
}

/// A text as the database can hold it: PostgreSQL has no character U+0000.
fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}
