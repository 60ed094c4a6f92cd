//! What access rules did: gathered from the edges' reports, and written into the tenants' logs from time to time.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use super::clock::unix_millis;
use super::db::{AclTotal, Database, Error, is_acl_id};
use super::gathered::{Gathered, Total};
use super::http::metrics::Metrics;
use crate::edge_api::AclCount;

/// How often what was gathered is written.
pub const INTERVAL: Duration = Duration::from_secs(600);

/// What access rules did and is not written yet.
pub type AclCounts = Gathered<AclTotal>;

#[async_trait]
impl Total for AclTotal {
    type Key = (u32, String);

    const MOST: usize = 200_000;

    const WHAT: &'static str = "what access rules did";

    fn key(&self) -> Self::Key {
        (self.slot, self.acl_id.clone())
    }

    fn begin(&mut self, since: u64) {
        self.since = since;
    }

    fn add(&mut self, other: &Self) {
        self.evaluated = self.evaluated.saturating_add(other.evaluated);
        self.matched = self.matched.saturating_add(other.matched);
    }

    fn is_empty(&self) -> bool {
        self.evaluated == 0
    }

    fn is_complete(&self, _: u64) -> bool {
        true
    }

    fn show(&self, metrics: &Metrics) {
        metrics.acl_requests(self.evaluated, self.matched);
    }

    fn show_lost(metrics: &Metrics) {
        metrics.acl_count_dropped();
    }

    async fn write(database: &dyn Database, totals: &[Self], now: u64) -> Result<(), Error> {
        database.log_acl_totals(totals, now).await
    }
}

impl AclCounts {
    /// Adds an edge's report.
    pub fn add(&self, counts: Vec<AclCount>) {
        self.gather(counts.into_iter().map(|AclCount { slot, acl_id, evaluated, matched }| {
            // No other text is a rule's, and the keys must not grow with what is sent.
            is_acl_id(&acl_id).then(|| AclTotal {
                slot,
                acl_id,
                since: 0,
                evaluated: evaluated.into(),
                matched: matched.into(),
            })
        }));
    }

    /// What the tenant's rules did that is not in its log yet, as far as this store heard of it: for each rule how many
    /// requests it was evaluated for, and how many it matched.
    pub fn of_tenant(&self, slot: u32) -> HashMap<String, (u64, u64)> {
        let totals = self.select(|total| total.slot == slot);
        totals.into_iter().map(|total| (total.acl_id, (total.evaluated, total.matched))).collect()
    }

    /// Writes what one rule did. Called before the rule is changed or deleted, because an event describes its rule as
    /// it is when the event is written.
    pub async fn write_rule(&self, database: &dyn Database, slot: u32, acl_id: &str) {
        let end = unix_millis();
        let key = (slot, acl_id.to_owned());
        let counted = self.change(&key, |total| {
            let next = AclTotal { since: end, evaluated: 0, matched: 0, ..total.clone() };
            (!total.is_empty()).then(|| std::mem::replace(total, next))
        });
        let Some(total) = counted.flatten() else { return };
        if let Err(error) = database.log_acl_totals(std::slice::from_ref(&total), end).await {
            self.keep(&[total], &error);
        }
    }
}
