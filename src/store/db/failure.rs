//! What went wrong in a database, in words for users: never its own text, which may quote a statement or name a table.

use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

use super::Error;

/// SQLite's primary result code, if the error is one of SQLite.
pub(super) fn sqlite_code(error: &sqlx::Error) -> Option<u32> {
    let error = error.as_database_error()?;
    error.try_downcast_ref::<SqliteError>()?;
    error.code()?.parse().ok().map(|code: u32| code & 0xff)
}

/// PostgreSQL's SQLSTATE, if the error is one of PostgreSQL.
pub(super) fn sql_state(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// Whether the same may do a moment later: the connection broke, all were taken, or others were in the way.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => true,
        _ => sql_state(error).is_some_and(|state| {
            // https://www.postgresql.org/docs/current/errcodes-appendix.html
            let classes = ["08", "40", "53", "57"];
            classes.iter().any(|class| state.starts_with(class)) || [READ_ONLY, LOCK_TIMEOUT, TAKEN].contains(&state)
        }),
    }
}

/// A standby was asked to write.
const READ_ONLY: &str = "25006";
/// Others held a lock for too long.
const LOCK_TIMEOUT: &str = "55P03";
/// Another one, who was not waited for, wrote what there may be once: an id of another tenant's client.
const TAKEN: &str = "23505";
/// A statement took too long, or an administrator ended it.
pub(super) const CANCELED: &str = "57014";
/// There is no such database.
pub(super) const NO_DATABASE: &str = "3D000";

/// An error of a database in words for users.
pub(super) fn describe(error: &sqlx::Error) -> String {
    let text = match error {
        sqlx::Error::Database(_) => match (sqlite_code(error), sql_state(error)) {
            (Some(code), _) => return of_sqlite(code),
            (_, Some(state)) => return of_postgres(state),
            _ => "it reported an error",
        },
        sqlx::Error::Io(error) => return error.to_string(),
        sqlx::Error::Tls(_) => "no secure connection came about; look at sslmode and the certificates",
        sqlx::Error::PoolTimedOut => "no connection became free in time; try again",
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => "the store is shutting down",
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => "a stored value is damaged; restore a backup",
        _ => "it does not answer as expected",
    };
    text.to_owned()
}

/// What users are told of a damaged file.
pub(super) const DAMAGED: &str = "the file is damaged; restore it from a backup";

fn of_sqlite(code: u32) -> String {
    let text = match code {
        5 | 6 => "another process keeps it locked; stop that process or try again",
        8 => "it is read-only; make the file and its folder writable",
        10 => "the file system reported an error; look at the disk",
        11 => DAMAGED,
        13 => "the disk is full; make room",
        14 => "the file cannot be opened; look at its path and permissions",
        26 => "the file is not a SQLite database; choose another path",
        code => return format!("SQLite reported the error {code}"),
    };
    text.to_owned()
}

fn of_postgres(state: &str) -> String {
    let text = match state {
        NO_DATABASE => "there is no database of this name; make it with createdb",
        READ_ONLY => "it is a standby, which takes no writes; name the primary",
        CANCELED => "it took too long; try again",
        "28P01" | "28000" => "the user or the password is not accepted; look at the URL and at pg_hba.conf",
        "42501" => "the user may not do this; make it the owner of the database",
        "53100" => "the server's disk is full; make room",
        "53300" => "the server has no connection left; raise max_connections, or put PgBouncer between",
        LOCK_TIMEOUT | TAKEN | "40001" | "40P01" => "others were in the way; try again",
        "57P01" | "57P02" | "57P03" => "the server is stopping or starting; try again",
        state => return format!("PostgreSQL reported the error {state}"),
    };
    text.to_owned()
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let words = describe(&error);
        if is_passing(&error) { Self::Unavailable(words) } else { Self::Failed(words) }
    }
}

/// What is stored cannot be read.
pub(super) fn unreadable(what: &str) -> Error {
    Error::Failed(format!("{what} cannot be read; the database is damaged or was changed by hand"))
}
