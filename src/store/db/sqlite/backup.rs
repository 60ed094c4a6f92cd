//! A copy of the file, made while it is in use.
//!
//! By `VACUUM INTO`: one read transaction, which holds up nobody who writes; the WAL grows meanwhile, as it cannot be
//! carried over into the file beyond that transaction's state. SQLite's backup interface would begin again whenever
//! another process writes, and so never end beside a busy store.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::{CWD, RenameFlags, renameat_with};
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
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        if exists(to) {
            return Err(refuse(EXISTS.to_owned()));
        }
        if let Some(other) = beside(to).find(|path| exists(path)) {
            return Err(refuse(format!(
                "there is a file {} of another database, which SQLite would carry over into the copy; choose another \
                 path, or move that file away",
                other.display()
            )));
        }
        let partial = Partial::create(to).map_err(refuse)?;
        let Some(path) = partial.path.to_str() else {
            return Err(refuse("its path is not UTF-8; choose another path".to_owned()));
        };
        let naming = partial.naming().map_err(refuse)?;
        let copied = sqlx::query("VACUUM INTO ?").bind(path).execute(&self.readers).await;
        copied.map_err(|error| refuse(describe(&error)))?;
        begin_history(&partial.path).await.map_err(|error| refuse(describe(&error)))?;
        partial.keep_as(to, naming).map_err(refuse)
    }
}

const EXISTS: &str = "there is such a file already; choose another path, or move that file away";

/// The files that SQLite may keep beside a database.
fn beside(database: &Path) -> impl Iterator<Item = PathBuf> {
    let name = database.file_name().unwrap_or_default();
    BESIDE.into_iter().map(move |suffix| database.with_file_name(with_suffix(name.to_owned(), suffix)))
}

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

/// A way to give a file another name that replaces no file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Naming {
    Rename,
    /// For file systems that cannot rename in this way. The other name is left over.
    Link,
}

impl Naming {
    const ALL: [Self; 2] = [Self::Rename, Self::Link];

    fn name(self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Self::Rename => Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?),
            Self::Link => fs::hard_link(from, to),
        }
    }
}

/// A copy that is not complete: gone when this is dropped.
struct Partial {
    path: PathBuf,
    /// Locked as long as somebody writes the copy.
    file: File,
}

/// How often a name is tried that another process takes away.
const ATTEMPTS: u32 = 10;

impl Partial {
    /// Makes an empty file beside `to`, for its owner only, and removes those that killed copies left there.
    fn create(to: &Path) -> Result<Self, String> {
        let name = to.file_name().ok_or("it does not end with the name of a file; name one")?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".partial-");
        let said = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => "its folder does not exist; create the folder first".to_owned(),
            _ => error.to_string(),
        };
        remove_abandoned(to, &prefix).map_err(said)?;
        for _ in 0..ATTEMPTS {
            // Not the number of the process: processes in containers share it.
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(|_| "the system has no randomness".to_owned())?;
            let path = to.with_file_name(with_suffix(prefix.clone(), &hex::encode(random)));
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(said)?;
            // Another one that looks for what was left may hold it for a moment, or have removed it. Where nothing can be
            // locked, nothing is removed either.
            let is_another_ones = matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock));
            let partial = Self { path, file };
            if !is_another_ones && partial.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
                return Ok(partial);
            }
        }
        Err("another copy is made there at the same time; try again".to_owned())
    }

    /// The way to give the copy its name: found out before the copy is made, which takes long.
    fn naming(&self) -> Result<Naming, String> {
        let name = self.path.file_name().unwrap_or_default().to_owned();
        let other = self.path.with_file_name(with_suffix(name, "-named"));
        let mut said = String::new();
        for naming in Naming::ALL {
            match naming.name(&self.path, &other) {
                Ok(()) => {
                    let back =
                        if naming == Naming::Link { fs::remove_file(&other) } else { fs::rename(&other, &self.path) };
                    return back.map(|()| naming).map_err(|error| error.to_string());
                }
                Err(error) => said = error.to_string(),
            }
        }
        Err(format!("its file system can give a file no name without replacing others ({said}); choose another"))
    }

    /// Makes the complete copy durable under its name.
    fn keep_as(self, to: &Path, naming: Naming) -> Result<(), String> {
        let keep = || {
            self.file.sync_all()?;
            naming.name(&self.path, to)?;
            // A second name goes with `self`.
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
        remove(&self.path);
    }
}

/// Removes a copy that is not complete, with what SQLite put beside it. Most of these are not there.
fn remove(partial: &Path) {
    for path in beside(partial).chain([partial.to_owned()]) {
        let _ = fs::remove_file(path);
    }
}

/// Removes what killed copies left beside `to`: what nobody has locked any more.
fn remove_abandoned(to: &Path, prefix: &OsStr) -> io::Result<()> {
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in folder.read_dir()? {
        let name = entry?.file_name();
        let Some(rest) = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes()) else { continue };
        if rest.iter().all(u8::is_ascii_hexdigit) {
            let path = to.with_file_name(&name);
            // Locked until it is removed.
            if let Ok(file) = File::open(&path)
                && file.try_lock().is_ok()
            {
                remove(&path);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_to_name_a_copy_replaces_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let [theirs, copy] = ["theirs", "copy"].map(|name| folder.path().join(name));
        for naming in Naming::ALL {
            let partial = Partial::create(&copy).unwrap();
            fs::write(&partial.path, "ours").unwrap();
            fs::write(&theirs, "theirs").unwrap();
            let refused = naming.name(&partial.path, &theirs).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            partial.keep_as(&copy, naming).unwrap();
            assert_eq!([&theirs, &copy].map(|path| fs::read_to_string(path).unwrap()), ["theirs", "ours"]);
            assert_eq!(folder.path().read_dir().unwrap().count(), 2);
            fs::remove_file(&copy).unwrap();
        }
        let partial = Partial::create(&copy).unwrap();
        assert!(partial.naming().is_ok() && partial.path.exists());
        drop(partial);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_copy_left_is_removed_unless_somebody_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy");
        let running = Partial::create(&copy).unwrap();
        for left in [".copy.partial-1", ".copy.partial-1-journal", ".copy.partial-2f"] {
            fs::write(folder.path().join(left), "x").unwrap();
        }
        for theirs in [".copy.partial-mine", ".other.partial-1", "copy.partial-1"] {
            fs::write(folder.path().join(theirs), "x").unwrap();
        }
        let next = Partial::create(&copy).unwrap();
        assert!(running.path.exists() && next.path.exists());
        assert_eq!(folder.path().read_dir().unwrap().count(), 5);
    }
}
