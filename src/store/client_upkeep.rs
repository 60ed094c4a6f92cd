//! Deleting the clients that nobody uses, where their tenants' owners want that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::clock::unix_millis;
use super::db::{Database, Error};

/// How often.
pub const INTERVAL: Duration = Duration::from_secs(600);

/// Deletes at once and from time to time the unused clients that are older than their tenants want them, until
/// `stopping`.
pub async fn delete_unused_regularly(
    database: Arc<dyn Database>,
    interval: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            deleted = delete_unused(&*database, unix_millis()) => match deleted {
                Ok(0) => {}
                Ok(clients) => tracing::info!(clients, "unused clients were deleted as their tenants want it"),
                Err(error) => tracing::error!(%error, "unused clients were not deleted; it is tried again"),
            },
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        if timeout(interval, stopping.wait_for(|stopping| *stopping)).await.is_ok() {
            return;
        }
    }
}

/// Deletes the unused clients that are older at `now`, in UNIX milliseconds, than their tenants want them, and says how
/// many those were.
pub async fn delete_unused(database: &dyn Database, now: u64) -> Result<u64, Error> {
    let mut clients = 0_u64;
    for stored in database.tenants().await? {
        if stored.tenant.settings.dcr_edge.unused_client_ttl.is_some() {
            clients = clients.saturating_add(database.delete_unused_clients(stored.slot, now).await?);
        }
    }
    Ok(clients)
}
