//! Keeping what is remembered of the changes of clients short: edges ask for them all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::db::Database;
use super::upkeep::regularly;

/// How often.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Changes that are remembered however old they are.
pub const MOST: u32 = 10_000;

/// Forgets from time to time the changes of clients beyond [`MOST`] that were there the time before, until `stopping`.
pub async fn forget_regularly(database: Arc<dyn Database>, interval: Duration, stopping: watch::Receiver<bool>) {
    let seen = AtomicU64::new(0);
    let once = || async {
        match database.forget_client_changes(MOST, seen.load(Ordering::Relaxed)).await {
            Ok(newest) => seen.store(newest, Ordering::Relaxed),
            Err(error) => tracing::error!(%error, "old changes of clients were not forgotten; it is tried again"),
        }
    };
    regularly(interval, stopping, once).await;
}
