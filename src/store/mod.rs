//! The native companion: durable clients, tenant settings, the Management API.
//!
//! It decides nothing that the pure rooms decide: it reads requests, asks them, and keeps what they accept.
//!
//! | room | what is in it |
//! |---|---|
//! | [`db`] | what is kept: one trait, one implementation for each database |
//! | [`admission`] | whether a registration is accepted under the settings of this moment |
//! | [`client`] | a client as its tenant's owner sees and changes it |
//! | [`change_upkeep`] | forgetting old changes of clients |
//! | [`client_upkeep`] | deleting the clients that nobody uses |
//! | [`client_uses`] | which clients authorization servers ask for |
//! | [`fleet_limit`] | how many clients all edges together may register for a tenant |
//! | [`clock`] | what time it is |
//! | [`blocking`] | work that keeps a processor busy, away from the threads that answer requests |
//! | [`writer`] | many registrations, one transaction, one sync |
//! | [`gathered`] | counts from the edges' reports, until they are written into the tenants' logs |
//! | [`acl_counts`] | what access rules did: such counts |
//! | [`refusals`] | which registrations were refused, and why: such counts |
//! | [`log_upkeep`] | keeping the tenants' logs as short as their owners want them |
//! | [`upkeep`] | doing something from time to time, until the store stops |
//! | [`edge_signals`] | for which signals the edges have a source |
//! | [`token`] | bearer tokens: minted and checked |
//! | [`http`] | the interfaces of the edge and of authorization servers, the Management API, health and metrics |
//! | [`serve`] | listening and stopping |
//! | [`admin`] | what the command line does to tenants |
//! | [`transfer`] | tenants as JSON lines, out of one database and into another |
//! | [`stub_authorization_server`] | a stand-in behind a gateway that has no authorization server yet |

pub mod acl_counts;
pub mod admin;
pub mod admission;
pub mod blocking;
pub mod change_upkeep;
pub mod client;
pub mod client_upkeep;
pub mod client_uses;
pub mod clock;
pub mod db;
pub mod doctor;
pub mod edge_signals;
pub mod fleet_limit;
pub mod gathered;
pub mod http;
pub mod log_upkeep;
pub mod refusals;
pub mod schema;
pub mod serve;
pub mod stub_authorization_server;
pub mod tls;
pub mod token;
pub mod transfer;
pub mod upkeep;
pub mod writer;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens the database that `url` names; one of an older version is refused.
pub async fn open(url: &str, if_missing: db::IfMissing) -> Result<Arc<dyn db::Database>, db::Error> {
    open_as(url, if_missing, db::IfOlder::Refuse).await
}

/// Opens the database that `url` names, and brings it up to date: no older store may use it.
pub async fn open_and_migrate(url: &str, if_missing: db::IfMissing) -> Result<Arc<dyn db::Database>, db::Error> {
    open_as(url, if_missing, db::IfOlder::Migrate).await
}

/// Opens the database that `url` names only to copy it: one of an older version stays as it is.
pub async fn open_to_copy(url: &str) -> Result<Arc<dyn db::Database>, db::Error> {
    open_as(url, db::IfMissing::Refuse, db::IfOlder::Keep).await
}

async fn open_as(
    url: &str,
    if_missing: db::IfMissing,
    if_older: db::IfOlder,
) -> Result<Arc<dyn db::Database>, db::Error> {
    let refuse = |reason: &str| {
        // A URL may hold a password, so an error shows its scheme alone.
        let scheme = url.split(':').next().unwrap_or_default();
        Err(db::Error::Open { place: format!("{scheme}:…"), reason: reason.to_owned() })
    };
    if let Some(path) = sqlite_path(url) {
        if path.is_empty() || path == ":memory:" || path.contains('?') {
            return refuse("expected the path of a file and no parameters, such as sqlite://dcr.db");
        }
        Ok(Arc::new(db::Sqlite::open(path.as_ref(), if_missing, if_older).await?))
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Ok(Arc::new(db::Postgres::open(url, if_missing, if_older).await?))
    } else {
        refuse("unknown kind of database; use sqlite://PATH or postgres://USER@HOST/DATABASE")
    }
}

fn sqlite_path(url: &str) -> Option<&str> {
    url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))
}

/// A folder with room for as much as the database that `url` names holds: its own, if it is a file.
pub fn folder(url: &str) -> PathBuf {
    let Some(path) = sqlite_path(url) else { return std::env::temp_dir() };
    let parent = Path::new(path).parent();
    parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// The file of the database that `url` names, if others than its owner may read it.
pub fn exposed_file(url: &str) -> Option<&Path> {
    let path = Path::new(sqlite_path(url)?);
    (path.metadata().ok()?.permissions().mode() & 0o044 != 0).then_some(path)
}

/// The keys that sign and check this database's tokens; made when they are first asked for.
pub async fn keys(database: &dyn db::Database) -> Result<token::Keys, token::Error> {
    let mut keys = database.signing_keys().await?;
    if keys.is_empty() {
        keys = database.ensure_signing_key(new_key(unix_now())?).await?;
    }
    let seeds: Vec<[u8; 32]> = keys.iter().map(|key| key.seed).collect();
    token::Keys::from_seeds(&seeds)
}

/// A new key, made at the time `now`, in UNIX seconds.
pub fn new_key(now: u64) -> Result<db::StoredKey, token::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| token::Error::NoRandomness)?;
    Ok(db::StoredKey { seed, created_at: Some(now) })
}

/// The time in UNIX seconds.
pub fn unix_now() -> u64 {
    clock::unix_millis() / 1_000
}
