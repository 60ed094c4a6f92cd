//! Opening a SQLite file: what is no database of ours stays as it is, to the byte.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Instant, SystemTime};

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool};
use sqlx::{ConnectOptions, Connection};

use super::{BUSY_RETRY, BUSY_TIMEOUT, describe};
use crate::store::db::failure::DAMAGED;
use crate::store::db::migration::{Found, judge_applied, judge_tables, not_migrated};

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/db/migrations/sqlite");

pub(super) fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).disable_statement_logging()
}

/// Makes an empty file for a database, for its owner only, unless there is one.
pub(super) fn create_empty(path: &Path) -> Result<(), String> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => sync_parent(path).map_err(|error| error.to_string()),
        Err(error) => match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            io::ErrorKind::NotFound => Err("its folder does not exist; create the folder first".to_owned()),
            _ => Err(error.to_string()),
        },
    }
}

/// How much of a file is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// Its beginning.
    AtTables,
    /// Every page, which takes a fifth of a second for 200,000 clients, and what the disk needs.
    AtAll,
}

/// Looks at the file without changing anything: a database of ours, or nothing. All else is an error.
pub(super) async fn look(path: &Path, how: Look) -> Result<Found, String> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            return Err(format!(
                "it is a folder; name a file in it, such as sqlite://{}",
                path.join("dcr.db").display()
            ));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error.to_string()),
    }
    let started = Instant::now();
    loop {
        let before = state(path);
        // With a WAL beside it the file alone is not the whole truth. Without one, `immutable` keeps SQLite from making
        // one.
        let [_, wal] = before;
        let has_wal = wal.is_some_and(|(bytes, _)| bytes > 0);
        let finding = inspect(path, !has_wal, how).await;
        if finding.is_ok() || has_wal || started.elapsed() > BUSY_TIMEOUT {
            return finding;
        }
        // `immutable` waits for nobody either: what looks damaged may be half-way between two sound states.
        tokio::time::sleep(BUSY_RETRY).await;
        if state(path) == before {
            return finding;
        }
    }
}

/// Length and time of the last change of the file and of its WAL, where there is one.
fn state(path: &Path) -> [Option<(u64, SystemTime)>; 2] {
    let mut wal = path.file_name().unwrap_or_default().to_owned();
    wal.push("-wal");
    [path.to_owned(), path.with_file_name(wal)].map(|path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    })
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

async fn inspect(path: &Path, immutable: bool, how: Look) -> Result<Found, String> {
    let mut connection = connect_options(path)
        .read_only(true)
        .immutable(immutable)
        .busy_timeout(BUSY_TIMEOUT)
        .connect()
        .await
        .map_err(|error| describe(&error))?;
    let mut finding = inspect_tables(&mut connection).await;
    if how == Look::AtAll && matches!(finding, Ok(Found::Older | Found::Current)) {
        finding = inspect_pages(&mut connection).await.and(finding);
    }
    // A file that is no database cannot be closed cleanly either, and the finding says more.
    let closed = connection.close().await.map_err(|error| describe(&error));
    finding.and_then(|finding| closed.map(|()| finding))
}

/// What is damaged in the middle would show when somebody asks for it, and what is written until then would be lost with
/// the backup that takes the file's place.
async fn inspect_pages(connection: &mut SqliteConnection) -> Result<(), String> {
    let report: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await.map_err(|error| describe(&error))?;
    if report == "ok" { Ok(()) } else { Err(DAMAGED.to_owned()) }
}

async fn inspect_tables(connection: &mut SqliteConnection) -> Result<Found, String> {
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| describe(&error))?;
    if let Some(found) = judge_tables(&tables, CHOOSE)? {
        return Ok(found);
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| describe(&error))?;
    judge_applied(&MIGRATIONS, &applied, CHOOSE)
}

/// What to do about a file that is not ours.
const CHOOSE: &str = "choose another path";

/// Brings the tables up to date. The transaction around it keeps two processes that start at the same time apart.
pub(super) async fn migrate(writer: &SqlitePool) -> Result<(), String> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(|error| describe(&error))?;
    MIGRATIONS.run(&mut *transaction).await.map_err(|error| not_migrated(&error, "the file is"))?;
    transaction.commit().await.map_err(|error| describe(&error))
}
