//! What access rules did: gathered from the edges' reports, and written into the tenants' logs from time to time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::clock::unix_millis;
use super::db::{AclTotal, Database, Error, is_acl_id};
use super::http::metrics::Metrics;
use crate::edge_api::AclCount;

/// How often what was gathered is written.
pub const INTERVAL: Duration = Duration::from_secs(600);

/// Most rules for which counts are gathered at a time.
const MAX_RULES: usize = 200_000;

/// Rules that are written in one transaction, so that registrations do not wait long.
const WRITTEN_RULES: usize = 1_000;

/// How long others get between two such transactions: the longest that SQLite sleeps while it waits for a lock.
const PAUSE: Duration = Duration::from_millis(100);

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

#[derive(Clone, Copy)]
struct Count {
    /// From when on, in UNIX milliseconds.
    since: u64,
    evaluated: u64,
    matched: u64,
}

impl Count {
    fn none(since: u64) -> Self {
        Self { since, evaluated: 0, matched: 0 }
    }

    fn of(self, slot: u32, acl_id: String) -> AclTotal {
        let Self { since, evaluated, matched } = self;
        AclTotal { slot, acl_id, since, evaluated, matched }
    }
}

impl Gathered {
    fn empty() -> Self {
        Self { since: unix_millis(), counts: HashMap::new() }
    }

    /// A rule's counts; `None` if there are too many rules for that.
    fn of_rule(&mut self, slot: u32, acl_id: String) -> Option<&mut Count> {
        let has_room = self.counts.len() < MAX_RULES;
        match self.counts.entry((slot, acl_id)) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => has_room.then(|| entry.insert(Count::none(self.since))),
        }
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
            // No other text is a rule's, and the keys must not grow with what is sent.
            let sum = if is_acl_id(&acl_id) { gathered.of_rule(slot, acl_id) } else { None };
            let Some(sum) = sum else {
                self.metrics.acl_count_dropped();
                continue;
            };
            sum.evaluated = sum.evaluated.saturating_add(evaluated.into());
            sum.matched = sum.matched.saturating_add(matched.into());
            self.metrics.acl_requests(evaluated, matched);
        }
    }

    /// Writes what was gathered, each rule's as one event of its tenant's log. What could not be written is kept for
    /// the next time.
    pub async fn write(&self, database: &dyn Database) {
        self.write_until(database, None).await;
    }

    /// Writes what was gathered, with pauses for others until `stopping`, or without any.
    async fn write_until(&self, database: &dyn Database, mut stopping: Option<&mut watch::Receiver<bool>>) {
        let Gathered { counts, .. } = std::mem::replace(&mut *self.gathered(), Gathered::empty());
        let end = unix_millis();
        let seen = counts.into_iter().filter(|(_, count)| count.evaluated > 0);
        let totals: Vec<AclTotal> = seen.map(|((slot, acl_id), count)| count.of(slot, acl_id)).collect();
        let mut written = 0_usize;
        for next in totals.chunks(WRITTEN_RULES) {
            if let Some(stopping) = stopping.as_mut().filter(|_| written > 0) {
                _ = timeout(PAUSE, stopping.wait_for(|stopping| *stopping)).await;
            }
            if let Err(error) = database.log_acl_totals(next, end).await {
                return self.keep(totals.get(written..).unwrap_or_default(), &error);
            }
            written = written.saturating_add(next.len());
        }
    }

    /// Writes what one rule did. Called before the rule is changed or deleted, because an event describes its rule as
    /// it is when the event is written.
    pub async fn write_rule(&self, database: &dyn Database, slot: u32, acl_id: &str) {
        let end = unix_millis();
        let counted = match self.gathered().counts.get_mut(&(slot, acl_id.to_owned())) {
            Some(count) if count.evaluated > 0 => std::mem::replace(count, Count::none(end)),
            _ => return,
        };
        let total = counted.of(slot, acl_id.to_owned());
        if let Err(error) = database.log_acl_totals(std::slice::from_ref(&total), end).await {
            self.keep(&[total], &error);
        }
    }

    fn keep(&self, totals: &[AclTotal], error: &Error) {
        tracing::error!(rules = totals.len(), %error, "what access rules did was not written; it will be tried again");
        let mut gathered = self.gathered();
        for AclTotal { slot, acl_id, since, evaluated, matched } in totals.iter().cloned() {
            let Some(sum) = gathered.of_rule(slot, acl_id) else {
                self.metrics.acl_count_dropped();
                continue;
            };
            sum.since = sum.since.min(since);
            sum.evaluated = sum.evaluated.saturating_add(evaluated);
            sum.matched = sum.matched.saturating_add(matched);
        }
    }

    /// Writes what was gathered each time `interval` is over, until `stopping`.
    pub async fn write_regularly(
        self: Arc<Self>,
        database: Arc<dyn Database>,
        interval: Duration,
        mut stopping: watch::Receiver<bool>,
    ) {
        while timeout(interval, stopping.wait_for(|stopping| *stopping)).await.is_err() {
            self.write_until(&*database, Some(&mut stopping)).await;
        }
    }
}
