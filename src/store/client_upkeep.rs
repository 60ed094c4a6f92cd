//! Deleting the clients that nobody uses, where their tenants' owners want that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::clock::unix_millis;
use super::db::{Database, Error, StoredTenant};
use super::upkeep::{pause, regularly};

/// How often.
pub const INTERVAL: Duration = Duration::from_secs(600);

/// Deletes from time to time the unused clients that are older, or more, than their tenants want them, until `stopping`.
/// Not at once: what authorization servers asked for while the store was down, they ask for again first.
pub async fn delete_unused_regularly(
    database: Arc<dyn Database>,
    interval: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let once = || async {
        match delete_unused(&*database, unix_millis()).await {
            Ok(0) => {}
            Ok(clients) => tracing::info!(clients, "unused clients were deleted as their tenants want it"),
            Err(error) => tracing::error!(%error, "unused clients were not deleted; it is tried again"),
        }
    };
    if pause(interval, &mut stopping).await {
        regularly(interval, stopping, once).await;
    }
}

/// Deletes the unused clients that are older at `now`, in UNIX milliseconds, or more, than their tenants want them, and
/// says how many those were. What fails for one tenant is logged, and the others' turn comes.
pub async fn delete_unused(database: &dyn Database, now: u64) -> Result<u64, Error> {
    let mut clients = 0_u64;
    for StoredTenant { slot, tenant, .. } in database.readable_tenants().await? {
        let settings = &tenant.settings.dcr_edge;
        // Of one without domains an import is under way, and nobody could ask for its clients yet.
        if tenant.domains.is_empty() || (settings.unused_client_ttl.is_none() && settings.client_quota.is_none()) {
            continue;
        }
        match database.delete_unused_clients(slot, now).await {
            Ok(deleted) => clients = clients.saturating_add(deleted),
            Err(error) => tracing::error!(tenant = %tenant.name, %error, "its unused clients were not deleted"),
        }
    }
    Ok(clients)
}
