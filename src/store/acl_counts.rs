//! What access rules did: gathered from the edges' reports, and written into the tenants' logs from time to time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::clock::unix_millis;
use super::db::{AclTotal, Database, Error};
use super::http::metrics::Metrics;
use crate::edge_api::AclCount;

/// How often what was gathered is written.
pub const INTERVAL: Duration = Duration::from_secs(600);

/// Most rules for which counts are gathered at a time.
const MAX_RULES: usize = 200_000;

/// Rules that are written in one transaction, so that registrations do not wait long.
const WRITTEN_RULES: usize = 1_000;

/// What was gathered and is not written yet.
pub struct AclCounts {
    gathered: Mutex<Gathered>,
    metrics: Arc<Metrics>,
}

struct Gathered {
    /// When the first count may have come, in UNIX milliseconds.
    since: u64,
    counts: HashMap<(u32, String), Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    evaluated: u64,
    matched: u64,
}

impl Gathered {
    fn empty() -> Self {
        Self { since: unix_millis(), counts: HashMap::new() }
    }

    /// Adds to a rule's counts; `false` if there are too many rules for that.
    fn add(&mut self, slot: u32, acl_id: String, count: Count) -> bool {
        let has_room = self.counts.len() < MAX_RULES;
        let sum = match self.counts.entry((slot, acl_id)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if has_room => entry.insert(Count::default()),
            Entry::Vacant(_) => return false,
        };
        sum.evaluated = sum.evaluated.saturating_add(count.evaluated);
        sum.matched = sum.matched.saturating_add(count.matched);
        true
    }
}

impl AclCounts {
    /// Nothing yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { gathered: Mutex::new(Gathered::empty()), metrics }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an edge's report.
    pub fn add(&self, counts: Vec<AclCount>) {
        let mut gathered = self.gathered();
        for AclCount { slot, acl_id, evaluated, matched } in counts {
            self.metrics.acl_requests(evaluated, matched);
            // No other text is a rule's, and the keys must not grow with what is sent.
            let added = super::db::is_acl_id(&acl_id)
                && gathered.add(slot, acl_id, Count { evaluated: evaluated.into(), matched: matched.into() });
            if !added {
                self.metrics.acl_count_dropped();
            }
        }
    }

    /// Writes what was gathered, each rule's as one event of its tenant's log. What could not be written is kept for
    /// the next time.
    pub async fn write(&self, database: &dyn Database) {
        let Gathered { since, counts } = std::mem::replace(&mut *self.gathered(), Gathered::empty());
        let end = unix_millis();
        let total = |((slot, acl_id), Count { evaluated, matched })| AclTotal { slot, acl_id, evaluated, matched };
        let totals: Vec<AclTotal> = counts.into_iter().map(total).collect();
        let mut written = 0_usize;
        for next in totals.chunks(WRITTEN_RULES) {
            if let Err(error) = database.log_acl_totals(next, since, end).await {
                return self.keep(totals.get(written..).unwrap_or_default(), since, &error);
            }
            written = written.saturating_add(next.len());
        }
    }

    fn keep(&self, totals: &[AclTotal], since: u64, error: &Error) {
        tracing::error!(rules = totals.len(), %error, "what access rules did was not written; it will be tried again");
        let mut gathered = self.gathered();
        gathered.since = since;
        for AclTotal { slot, acl_id, evaluated, matched } in totals.iter().cloned() {
            if !gathered.add(slot, acl_id, Count { evaluated, matched }) {
                self.metrics.acl_count_dropped();
            }
        }
    }

    /// Writes what was gathered each time `interval` is over, until `stopping`.
    pub async fn write_regularly(
        self: Arc<Self>,
        database: Arc<dyn Database>,
        interval: Duration,
        mut stopping: watch::Receiver<bool>,
    ) {
        while tokio::time::timeout(interval, stopping.wait_for(|stopping| *stopping)).await.is_err() {
            self.write(&*database).await;
        }
    }
}
