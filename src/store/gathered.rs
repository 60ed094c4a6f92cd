//! What edges count, added up over all reports, and written into the tenants' logs from time to time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::clock::unix_millis;
use super::db::{Database, Error};
use super::http::metrics::Metrics;
use super::upkeep::pause;

/// Totals that are written in one transaction, so that registrations do not wait long.
const WRITTEN_TOTALS: usize = 1_000;

/// How long others get between two such transactions: the longest that SQLite sleeps while it waits for a lock.
const PAUSE: Duration = Duration::from_millis(100);

/// One sum: what becomes one event.
#[async_trait]
pub trait Total: Clone + Send + Sync + 'static {
    /// What is summed up in one total.
    type Key: Eq + Hash + Send + Sync;

    /// Most totals that are gathered at a time.
    const MOST: usize;

    /// What the totals are, for the log: the beginning of a sentence.
    const WHAT: &'static str;

    /// What it sums up.
    fn key(&self) -> Self::Key;

    /// Begins at `since`, in UNIX milliseconds, from which on all counts are in it.
    fn begin(&mut self, since: u64);

    /// Adds the counts of another total of the same key.
    fn add(&mut self, other: &Self);

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool;

    /// Whether at `now`, in UNIX milliseconds, it can be written.
    fn is_complete(&self, now: u64) -> bool;

    /// Shows that it was counted.
    fn show(&self, metrics: &Metrics);

    /// Shows that a count is lost.
    fn show_lost(metrics: &Metrics);

    /// Writes totals at `now`, in UNIX milliseconds, in one transaction.
    async fn write(database: &dyn Database, totals: &[Self], now: u64) -> Result<(), Error>;
}

/// What was gathered and is not written yet.
pub struct Gathered<T: Total> {
    state: Mutex<State<T>>,
    metrics: Arc<Metrics>,
}

struct State<T: Total> {
    /// When the first count may have come, in UNIX milliseconds.
    since: u64,
    totals: HashMap<T::Key, T>,
}

impl<T: Total> Gathered<T> {
    /// Nothing yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::new(State { since: unix_millis(), totals: HashMap::new() }), metrics }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was counted; `None` stands for a count that nothing can be done with.
    pub(super) fn gather(&self, counted: impl Iterator<Item = Option<T>>) {
        let mut state = self.state();
        for counted in counted {
            let Some(mut counted) = counted else {
                T::show_lost(&self.metrics);
                continue;
            };
            let (since, has_room) = (state.since, state.totals.len() < T::MOST);
            match state.totals.entry(counted.key()) {
                Entry::Occupied(mut entry) => entry.get_mut().add(&counted),
                Entry::Vacant(entry) if has_room => {
                    counted.begin(since);
                    entry.insert(counted.clone());
                }
                Entry::Vacant(_) => {
                    T::show_lost(&self.metrics);
                    continue;
                }
            }
            counted.show(&self.metrics);
        }
    }

    /// Changes the total of a key, if there is one.
    pub(super) fn change<R>(&self, key: &T::Key, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.state().totals.get_mut(key).map(change)
    }

    /// The totals that are wanted, as they are at the moment.
    pub(super) fn select(&self, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        self.state().totals.values().filter(|total| is_wanted(total)).cloned().collect()
    }

    /// Writes what is complete at `now`, in UNIX milliseconds. What could not be written is kept for the next time.
    pub async fn write_complete(&self, database: &dyn Database, now: u64) {
        let complete = self.take(|total| total.is_complete(now));
        if let Err((rest, error)) = write_totals(database, &complete, None).await {
            self.keep(rest, &error);
        }
    }

    /// Writes all that was gathered, for the last time: what cannot be written is lost.
    pub async fn finish(&self, database: &dyn Database) {
        let all = self.take(|_| true);
        if let Err((rest, error)) = write_totals(database, &all, None).await {
            tracing::error!(events = rest.len(), %error, "{} was not written before the stop: it is lost", T::WHAT);
            rest.iter().for_each(|_| T::show_lost(&self.metrics));
        }
    }

    /// Writes what is complete each time `interval` is over, until `stopping`.
    pub async fn write_regularly(
        self: Arc<Self>,
        database: Arc<dyn Database>,
        interval: Duration,
        mut stopping: watch::Receiver<bool>,
    ) {
        while pause(interval, &mut stopping).await {
            let now = unix_millis();
            let complete = self.take(|total| total.is_complete(now));
            if let Err((rest, error)) = write_totals(&*database, &complete, Some(&mut stopping)).await {
                self.keep(rest, &error);
            }
        }
    }

    fn take(&self, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut state = self.state();
        let taken = state.totals.extract_if(|_, total| total.is_empty() || is_wanted(total));
        let taken = taken.map(|(_, total)| total).filter(|total| !total.is_empty()).collect();
        state.totals.shrink_to_fit();
        state.since = unix_millis();
        taken
    }

    /// Takes back what could not be written.
    pub(super) fn keep(&self, totals: &[T], error: &Error) {
        tracing::error!(events = totals.len(), %error, "{} was not written; it will be tried again", T::WHAT);
        let mut state = self.state();
        for total in totals {
            let has_room = state.totals.len() < T::MOST;
            match state.totals.entry(total.key()) {
                // This one began before the one that is there.
                Entry::Occupied(mut entry) => {
                    let newer = entry.insert(total.clone());
                    entry.get_mut().add(&newer);
                }
                Entry::Vacant(entry) if has_room => _ = entry.insert(total.clone()),
                Entry::Vacant(_) => T::show_lost(&self.metrics),
            }
        }
    }
}

/// Writes totals, with pauses for others until `stopping`, or without any. An error comes with those that are not
/// written.
async fn write_totals<'a, T: Total>(
    database: &dyn Database,
    totals: &'a [T],
    mut stopping: Option<&mut watch::Receiver<bool>>,
) -> Result<(), (&'a [T], Error)> {
    let mut written = 0_usize;
    for next in totals.chunks(WRITTEN_TOTALS) {
        if let Some(stopping) = stopping.as_mut().filter(|_| written > 0) {
            pause(PAUSE, stopping).await;
        }
        // Others write into the logs during the pauses, and a log is in the order of its dates.
        if let Err(error) = T::write(database, next, unix_millis()).await {
            return Err((totals.get(written..).unwrap_or_default(), error));
        }
        written = written.saturating_add(next.len());
    }
    Ok(())
}
