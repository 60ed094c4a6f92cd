//! Which registrations the edges refused, and why: gathered from their reports, and written into the tenants' logs once
//! a minute is over, so that a flood of requests is a handful of events.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::clock::unix_millis;
use super::db::{Database, Error, RefusalTotal};
use super::gathered::{Gathered, Total};
use super::http::metrics::Metrics;
use crate::edge_api::RefusalCount;
use crate::filter::reason::Reason;

/// How often it is looked for minutes that are over.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Milliseconds for which a minute that is over, or one that is heard of later, waits for other reports of it. An edge
/// reports at the end of a minute, and after an outage of the store within twenty looks for settings.
const SLACK: u64 = 30_000;

/// Milliseconds of a minute.
const MINUTE: u64 = 60_000;

/// What was refused and is not written yet.
pub type Refusals = Gathered<RefusalTotal>;

#[async_trait]
impl Total for RefusalTotal {
    type Key = (u32, u64, bool);

    /// Two for each tenant and minute: room for 10,000 tenants that are all under attack for five minutes.
    const MOST: usize = 100_000;

    const WHAT: &'static str = "what edges refused";

    fn key(&self) -> Self::Key {
        (self.slot, self.since, self.by_limiter)
    }

    /// It begins with its minute.
    fn begin(&mut self, _: u64) {}

    fn add(&mut self, other: &Self) {
        for (reason, count) in &other.reasons {
            let sum = self.reasons.entry(reason).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    fn is_complete(&self, now: u64) -> bool {
        now >= self.until.max(self.heard_at).saturating_add(SLACK)
    }

    fn show(&self, metrics: &Metrics) {
        metrics.refused(self.count());
    }

    fn show_lost(metrics: &Metrics) {
        metrics.refusal_count_dropped();
    }

    async fn write(database: &dyn Database, totals: &[Self], now: u64) -> Result<(), Error> {
        database.log_refusals(totals, now).await
    }
}

impl Refusals {
    /// Adds an edge's report.
    pub fn add(&self, counts: Vec<RefusalCount<String>>) {
        let heard_at = unix_millis();
        self.gather(counts.into_iter().map(|RefusalCount { slot, minute, reason, count }| {
            // Other words are not known here, and neither keys nor events must grow with what is sent.
            let reason = Reason::of_refusal(&reason)?;
            // A clock that is fast must not put a minute off.
            let since = minute.saturating_mul(MINUTE).min(heard_at.saturating_sub(heard_at % MINUTE));
            Some(RefusalTotal {
                slot,
                by_limiter: reason.is_limit(),
                since,
                until: since.saturating_add(MINUTE),
                heard_at,
                reasons: BTreeMap::from([(reason.as_str(), u64::from(count))]),
            })
        }));
    }
}
