//! What a worker counts in its own memory until it is told to the store: what access rules did, and what was refused.
//!
//! The number of entries is bounded by that of the rules, and by those of the tenants and the reasons.

use std::cell::{Cell, RefCell};

use super::reason::Reason;
use crate::edge_api::{self, AclCount, RefusalCount};

/// Most entries of each of the two kinds that wait while the store is away.
pub const MAX_WAITING: usize = 100_000;

/// One entry of a report, as it waits to be sent.
pub type Count = edge_api::Count<Reason>;

/// What the rules of one tenant did since the last report.
#[derive(Debug)]
pub struct Tally {
    entries: Box<[Entry]>,
    touched: Cell<bool>,
}

#[derive(Debug)]
struct Entry {
    id: Box<str>,
    evaluated: Cell<u32>,
    matched: Cell<u32>,
}

impl Tally {
    /// For rules with these ids.
    pub fn new(ids: impl Iterator<Item = String>) -> Self {
        let entry = |id: String| Entry { id: id.into(), evaluated: Cell::new(0), matched: Cell::new(0) };
        Self { entries: ids.map(entry).collect(), touched: Cell::new(false) }
    }

    /// The rule at this place looked at a request.
    pub fn count(&self, place: usize, matched: bool) {
        if let Some(entry) = self.entries.get(place) {
            self.touched.set(true);
            entry.evaluated.set(entry.evaluated.get().saturating_add(1));
            entry.matched.set(entry.matched.get().saturating_add(matched.into()));
        }
    }

    /// Moves what was counted to `counts`. False if that has no room for all of it; the rest stays.
    pub fn take(&self, slot: u32, counts: &mut Vec<Count>) -> bool {
        if !self.touched.get() {
            return true;
        }
        for entry in &self.entries {
            if entry.evaluated.get() == 0 {
                continue;
            }
            if counts.len() >= MAX_WAITING {
                return false;
            }
            let (evaluated, matched) = (entry.evaluated.take(), entry.matched.take());
            counts.push(Count::Acl(AclCount { slot, acl_id: (*entry.id).to_owned(), evaluated, matched }));
        }
        self.touched.set(false);
        true
    }
}

/// What one worker refused at tenants' registration endpoints.
#[derive(Debug, Default)]
pub struct Refusals {
    /// In which minute of UNIX time it counts; 0 until somebody has looked at the clock.
    minute: Cell<u64>,
    /// By slot, one for each reason; they get their minute when it is over. Slots are dense and bounded.
    counts: RefCell<Vec<Vec<RefusalCount<Reason>>>>,
    /// What was counted in minutes that are over.
    ended: RefCell<Vec<Count>>,
    /// Whether some of that found no room.
    dropped: Cell<bool>,
}

impl Refusals {
    /// A request of the tenant in this slot was refused.
    pub fn count(&self, slot: u32, reason: Reason) {
        let mut counts = self.counts.borrow_mut();
        let place = usize::try_from(slot).unwrap_or_default();
        if counts.len() <= place {
            counts.resize_with(place.saturating_add(1), Vec::new);
        }
        let Some(counts) = counts.get_mut(place) else { return };
        match counts.iter_mut().find(|known| known.reason == reason) {
            Some(known) => known.count = known.count.saturating_add(1),
            None => counts.push(RefusalCount { slot, minute: 0, reason, count: 1 }),
        }
    }

    /// Says which minute it is, so that nobody looks at the clock for each refusal. True if one ended in which
    /// something was refused.
    pub fn begin(&self, minute: u64) -> bool {
        match self.minute.get() {
            known if known == minute => return false,
            0 => {}
            _ => self.end(),
        }
        self.minute.set(minute);
        !self.ended.borrow().is_empty()
    }

    /// Moves what was counted in this minute to what waits.
    fn end(&self) {
        let mut ended = self.ended.borrow_mut();
        for counts in self.counts.borrow_mut().iter_mut() {
            while let Some(mut count) = counts.pop() {
                count.minute = self.minute.get();
                if ended.len() < MAX_WAITING {
                    ended.push(Count::Refusals(count));
                } else {
                    self.dropped.set(true);
                }
            }
        }
    }

    /// Whether something was dropped since the last time because too much waited.
    pub fn take_dropped(&self) -> bool {
        self.dropped.take()
    }

    /// Takes out what was refused since the last time.
    pub fn take(&self) -> Vec<Count> {
        self.end();
        self.ended.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_rules_did_stays_with_them_where_no_more_may_wait() {
        let tally = Tally::new(["acl_0", "acl_1"].into_iter().map(str::to_owned));
        for place in [0, 1, 1] {
            tally.count(place, true);
        }
        let other = AclCount { slot: 9, acl_id: String::new(), evaluated: 1, matched: 1 };
        let mut counts = vec![Count::Acl(other); MAX_WAITING - 1];
        assert!(!tally.take(3, &mut counts));
        assert_eq!(counts.len(), MAX_WAITING);
        counts.clear();
        assert!(tally.take(3, &mut counts));
        let told = serde_json::to_value(&counts).unwrap();
        assert_eq!(told, json!([{"slot": 3, "acl_id": "acl_1", "evaluated": 2, "matched": 2}]));
        assert!(tally.take(3, &mut counts) && counts.len() == 1);
    }
}
