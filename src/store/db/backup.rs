//! Copies of the database.

use std::path::Path;

use async_trait::async_trait;

use super::Error;

/// Copies of a database that is in use.
#[async_trait]
pub trait Backup {
    /// Writes a copy of one moment into the new file `to`, for its owner only, durable when this returns. Registrations
    /// go on meanwhile. An error, also that there is such a file or one that would be taken for a part of it, leaves
    /// nothing behind; neither does a call that is given up. What a killed process left, the next call removes.
    async fn back_up(&self, to: &Path) -> Result<(), Error>;
}
