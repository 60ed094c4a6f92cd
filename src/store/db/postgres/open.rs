//! Opening a PostgreSQL database: what is not ours stays as it is.

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{PERMISSION_READERS, Postgres, READERS, SEARCHERS, WRITERS, pool};
use crate::store::db::failure::describe;
use crate::store::db::migration::{Found, judge_applied, judge_tables, not_migrated};
use crate::store::db::{Error, IfMissing, IfOlder};

/// The migrations. They are applied in a transaction of ours, under a lock of ours.
static MIGRATIONS: Migrator = Migrator { locking: false, ..sqlx::migrate!("src/store/db/migrations/postgres") };

/// How long a server may take to let this program in.
const CONNECT: Duration = Duration::from_secs(10);

/// The oldest version of the server whose functions are enough, as it tells it.
const OLDEST_SERVER: i32 = 130_000;

/// What a server that takes no writes is told of.
pub(super) const STANDBY: &str = "it is a standby, which takes no writes; name the primary";

/// What to do about tables that are not ours.
const CHOOSE: &str = "choose another database";

/// The parameters that a URL may have.
const PARAMETERS: [&str; 12] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

impl Postgres {
    /// Opens the database that `url` names. If it has no tables they are made, or it is [`Error::Missing`]; if they are of
    /// an older version they are brought up to date, or it is [`Error::Older`]. The database itself has to be there.
    pub async fn open(url: &str, if_missing: IfMissing, if_older: IfOlder) -> Result<Self, Error> {
        let options =
            connect_options(url).map_err(|reason| Error::Open { place: "postgres:…".to_owned(), reason })?;
        let place = place(&options);
        let refuse = |reason: String| Error::Open { place: place.clone(), reason };
        if if_older == IfOlder::Keep {
            return Err(refuse(super::backup::PG_DUMP.to_owned()));
        }
        let mut connection = match timeout(CONNECT, options.connect()).await {
            Ok(connected) => connected.map_err(|error| refuse(describe(&error)))?,
            Err(_) => return Err(refuse("it does not answer; look at the host and the port".to_owned())),
        };
        check_server(&mut connection).await.map_err(refuse)?;
        let found = look(&mut connection).await.map_err(refuse)?;
        match (found, if_missing, if_older) {
            (Found::Nothing, IfMissing::Refuse, _) => return Err(Error::Missing(place)),
            (Found::Older, _, IfOlder::Refuse) => return Err(Error::Older(place)),
            (Found::Nothing | Found::Older, ..) => migrate(&mut connection).await.map_err(refuse)?,
            (Found::Current, ..) => {}
        }
        connection.close().await.map_err(|error| refuse(describe(&error)))?;
        Ok(Self {
            readers: pool(&options, READERS),
            searchers: pool(&options, SEARCHERS),
            permission_readers: pool(&options, PERMISSION_READERS),
            writers: pool(&options, WRITERS),
            known: Mutex::default(),
        })
    }
}

/// What a URL says. An error shows nothing of it: it may hold a password.
fn connect_options(url: &str) -> Result<PgConnectOptions, String> {
    let query = url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let names = || query.split('&').filter_map(|pair| pair.split('=').next()).filter(|name| !name.is_empty());
    if names().any(|name| !PARAMETERS.contains(&name)) {
        return Err(format!("it has an unknown parameter; there are {}", PARAMETERS.join(", ")));
    }
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| "it is not well-formed; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full")?
        .disable_statement_logging()
        .extra_float_digits(None);
    let options =
        if names().any(|name| name == "application_name") { options } else { options.application_name("dcr-store") };
    Ok(options)
}

/// The database's place, without credentials.
fn place(options: &PgConnectOptions) -> String {
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let database = options.get_database().unwrap_or(options.get_username());
    format!("postgres://{host}:{}/{database}", options.get_port())
}

/// Whether the server takes no writes. Asked in the simple protocol: outside of a transaction a pooler may give each half
/// of a prepared statement another connection.
pub(super) async fn is_standby(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    connection.fetch_one("SELECT pg_is_in_recovery()").await?.try_get(0)
}

/// Fails if what is acknowledged would not be durable there, or the server cannot serve this program.
async fn check_server(connection: &mut PgConnection) -> Result<(), String> {
    if is_standby(connection).await.map_err(|error| describe(&error))? {
        return Err(STANDBY.to_owned());
    }
    let setting = async |connection: &mut PgConnection, show: &'static str| -> Result<String, String> {
        let row = connection.fetch_one(show).await;
        row.and_then(|row| row.try_get(0)).map_err(|error| describe(&error))
    };
    let version = setting(connection, "SHOW server_version_num").await?;
    if version.parse::<i32>().is_ok_and(|version| version < OLDEST_SERVER) {
        return Err("the server is older than PostgreSQL 13; bring it up to date".to_owned());
    }
    if setting(connection, "SHOW server_encoding").await? != "UTF8" {
        return Err("its encoding is not UTF8; make it with createdb --encoding=UTF8 --template=template0".to_owned());
    }
    if setting(connection, "SHOW synchronous_commit").await? == "off" {
        return Err("synchronous_commit is off, so a client that was answered could be lost; turn it on for this \
                    user or this database"
            .to_owned());
    }
    if setting(connection, "SHOW fsync").await? == "off" {
        tracing::warn!("fsync is off on the database's server: a power cut may lose everything");
    }
    Ok(())
}

/// Looks at the tables without changing anything.
async fn look(connection: &mut PgConnection) -> Result<Found, String> {
    let mut transaction = connection.begin().await.map_err(|error| describe(&error))?;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()")
            .persistent(false)
            .fetch_all(&mut *transaction)
            .await
            .map_err(|error| describe(&error))?;
    if let Some(found) = judge_tables(&tables, CHOOSE)? {
        return Ok(found);
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
            .persistent(false)
            .fetch_all(&mut *transaction)
            .await
            .map_err(|error| describe(&error))?;
    judge_applied(&MIGRATIONS, &applied, CHOOSE)
}

/// Brings the tables up to date, in one transaction. The lock keeps stores that start at the same time apart: it is on
/// this database alone, and the number is that of nobody else's.
async fn migrate(connection: &mut PgConnection) -> Result<(), String> {
    let mut transaction = connection.begin().await.map_err(|error| describe(&error))?;
    transaction
        .execute("SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock(7591006749000000001); DEALLOCATE ALL")
        .await
        .map_err(|error| describe(&error))?;
    MIGRATIONS.run(&mut *transaction).await.map_err(|error| not_migrated(&error, "they are"))?;
    // The statements that this prepared must not be in the way of others who get the connection from a pooler.
    transaction.execute("DEALLOCATE ALL").await.map_err(|error| describe(&error))?;
    transaction.commit().await.map_err(|error| describe(&error))
}
