//! Keeping the tenants' logs as short as their owners want them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::clock::unix_millis;
use super::db::{Database, Error, LogLimits, StoredTenant};
use super::upkeep::regularly;
use crate::tenant::LogRetention;

/// How often.
pub const INTERVAL: Duration = Duration::from_secs(600);

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

impl From<LogRetention> for LogLimits {
    fn from(LogRetention { days, events }: LogRetention) -> Self {
        Self { max_age: u64::from(days.get()).saturating_mul(DAY), max_events: events.get() }
    }
}

/// Deletes at once and from time to time what logs have beyond their tenants' settings, until `stopping`.
pub async fn prune_regularly(database: Arc<dyn Database>, interval: Duration, stopping: watch::Receiver<bool>) {
    let once = || async {
        match prune(&*database).await {
            Ok(0) => {}
            Ok(events) => tracing::info!(events, "logs were shortened as their tenants want them"),
            Err(error) => tracing::error!(%error, "logs were not shortened; it is tried again"),
        }
    };
    regularly(interval, stopping, once).await;
}

/// Deletes what logs have beyond their tenants' settings, and says how much that was. What fails for one tenant is
/// logged, and the others' turn comes.
pub async fn prune(database: &dyn Database) -> Result<u64, Error> {
    let mut events = 0_u64;
    for StoredTenant { slot, tenant, .. } in database.readable_tenants().await? {
        let limits = tenant.settings.dcr_edge.log_retention.into();
        match database.prune_log(slot, limits, unix_millis()).await {
            Ok(pruned) => events = events.saturating_add(pruned),
            Err(error) => tracing::error!(tenant = %tenant.name, %error, "its log was not shortened"),
        }
    }
    Ok(events)
}
