//! Which tables a database has: those of this version, of an older one, or of another program.

use sqlx::migrate::{MigrateError, Migrator};

use super::failure::describe;

/// What there is where a database is to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// Nothing, or no tables.
    Nothing,
    /// The tables of an older version.
    Older,
    /// The tables of this version.
    Current,
}

/// The table of the migrations that were applied.
pub(super) const APPLIED: &str = "_sqlx_migrations";

/// What the names of the tables say; `None`: the migrations that were applied say more.
pub(super) fn judge_tables(tables: &[String], choose: &str) -> Result<Option<Found>, String> {
    if tables.is_empty() {
        Ok(Some(Found::Nothing))
    } else if tables.iter().any(|table| table == APPLIED) {
        Ok(None)
    } else {
        Err(format!("the tables of another program are there; {choose}"))
    }
}

/// What the migrations that were applied say, each with its checksum.
pub(super) fn judge_applied(ours: &Migrator, applied: &[(i64, Vec<u8>)], choose: &str) -> Result<Found, String> {
    for (version, checksum) in applied {
        match ours.iter().find(|migration| migration.version == *version) {
            None => {
                return Err(format!(
                    "it was written by a newer version of dcr-store (its tables are of version {version}); \
                     use that version or a later one"
                ));
            }
            Some(migration) if *migration.checksum != **checksum => {
                return Err(format!(
                    "its tables of version {version} are not those of a release of dcr-store: a build between two \
                     releases or another program made them; {choose}"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(if applied.len() == ours.iter().count() { Found::Current } else { Found::Older })
}

/// Why the tables were not brought up to date; `what` is as it was before.
pub(super) fn not_migrated(error: &MigrateError, what: &str) -> String {
    let reason = match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => describe(error),
        _ => "they are not as expected".to_owned(),
    };
    format!(
        "its tables cannot be brought up to date ({reason}); {what} as before: start the older version again, \
         or report this"
    )
}
