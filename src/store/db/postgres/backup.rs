//! Copies, which are PostgreSQL's own affair.

use std::path::Path;

use async_trait::async_trait;

use super::Postgres;
use crate::store::db::{Backup, Error};

/// What to do instead. Whoever goes back to an older state goes on with another history than the edges know.
pub(super) const PG_DUMP: &str = "PostgreSQL makes its own copies: use pg_dump or the server's backups. After going back \
     to one, run `UPDATE store SET instance = replace(gen_random_uuid()::text, '-', '')`, so that the edges read \
     everything anew";

#[async_trait]
impl Backup for Postgres {
    async fn back_up(&self, to: &Path) -> Result<(), Error> {
        Err(Error::Copy { place: to.display().to_string(), reason: PG_DUMP.to_owned() })
    }
}
