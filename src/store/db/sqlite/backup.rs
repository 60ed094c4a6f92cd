//! A copy of the file, made while it is in use.
//!
//! By `VACUUM INTO`: one read transaction, which holds up nobody who writes; the WAL grows meanwhile, as it cannot be
//! carried over into the file beyond that transaction's state. SQLite's backup interface would begin again whenever
//! another process writes, and so never end beside a busy store.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sqlx::{ConnectOptions, Connection};

use super::open::{connect_options, sync_parent};
use super::{Sqlite, describe};
use crate::store::db::{Backup, Error};

/// What SQLite puts behind the name of a database for the files beside it.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

#[async_trait]
impl Backup for Sqlite {
    async fn back_up(&self, to: &Path) -> Result<(), Error> {
        let refuse = |reason: String| Error::Copy { place: to.display().to_string(), reason };
        if is_of_database(&self.path, to) {
            return Err(refuse("it is the database itself or one of its files; choose another path".to_owned()));
        }
        if to.symlink_metadata().is_ok() {
            return Err(refuse(EXISTS.to_owned()));
        }
        let partial = Partial::create(to).map_err(refuse)?;
        let Some(path) = partial.path.to_str() else {
            return Err(refuse("its path is not UTF-8; choose another path".to_owned()));
        };
        let copied = sqlx::query("VACUUM INTO ?").bind(path).execute(&self.readers).await;
        copied.map_err(|error| refuse(describe(&error)))?;
        begin_history(&partial.path).await.map_err(|error| refuse(describe(&error)))?;
        partial.keep_as(to).map_err(refuse)
    }
}

const EXISTS: &str = "there is such a file already; choose another path, or move that file away";

/// Whether `to` is the database's file or one that SQLite may keep beside it.
fn is_of_database(database: &Path, to: &Path) -> bool {
    let folder = |path: &Path| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        parent.canonicalize().ok()
    };
    let database = database.canonicalize().unwrap_or_else(|_| database.to_owned());
    let Some(name) = database.file_name() else { return false };
    let names = [""].iter().chain(&BESIDE).map(|suffix| with_suffix(name.to_owned(), suffix));
    folder(&database) == folder(to) && names.into_iter().any(|name| to.file_name() == Some(&name))
        || to.canonicalize().is_ok_and(|to| to == database)
}

fn with_suffix(mut name: OsString, suffix: &str) -> OsString {
    name.push(suffix);
    name
}

/// Gives the copy another identity. Whoever goes back to it goes on with another history than the edges know, so they
/// are to read everything anew.
async fn begin_history(copy: &Path) -> Result<(), sqlx::Error> {
    let mut connection = connect_options(copy).connect().await?;
    sqlx::query("UPDATE store SET instance = lower(hex(randomblob(16)))").execute(&mut connection).await?;
    connection.close().await
}

/// A copy that is not complete: gone when this is dropped.
struct Partial {
    path: PathBuf,
}

impl Partial {
    /// Makes an empty file beside `to`, for its owner only.
    fn create(to: &Path) -> Result<Self, String> {
        let name = to.file_name().ok_or("it does not end with the name of a file; name one")?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        let path = to.with_file_name(with_suffix(hidden, &format!(".partial-{}", std::process::id())));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => Ok(Self { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err("its folder does not exist; create the folder first".to_owned())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(format!("an earlier copy left {} behind; delete that file", path.display()))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes the complete copy durable under its name. A link replaces no file, as a change of the name would.
    fn keep_as(self, to: &Path) -> Result<(), String> {
        let keep = || {
            File::open(&self.path)?.sync_all()?;
            fs::hard_link(&self.path, to)?;
            // The copy has two names now; the other goes with `self`.
            sync_parent(to).inspect_err(|_| _ = fs::remove_file(to))
        };
        keep().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => EXISTS.to_owned(),
            _ => error.to_string(),
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Most of these are not there.
        let name = self.path.file_name().unwrap_or_default();
        for suffix in [""].iter().chain(&BESIDE) {
            let _ = fs::remove_file(self.path.with_file_name(with_suffix(name.to_owned(), suffix)));
        }
    }
}
