//! For which signals of access rules the edges have a source, as they say when they poll.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::acl::{Signal, SignalSet};

/// How long an edge counts after it polled.
const RECENT: Duration = Duration::from_secs(60);

/// What edges said of late. Each set is kept once, and there are few: a set is one of the optional signals.
#[derive(Debug, Default)]
pub struct EdgeSignals {
    seen: Mutex<Vec<(SignalSet, Instant)>>,
}

impl EdgeSignals {
    /// An edge polled at `now`, and said that it has a source for these signals, separated by commas, beyond the
    /// built-in ones. One that says nothing has none; a signal that is not known is passed over.
    pub fn polled(&self, signals: Option<&str>, now: Instant) {
        let names = signals.unwrap_or_default().split(',');
        let named = names.filter_map(|name| Signal::ALL.into_iter().find(|signal| signal.as_str() == name));
        let set = named.collect::<SignalSet>().union(SignalSet::BUILT_IN);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.iter_mut().find(|(known, _)| *known == set) {
            Some((_, last)) => *last = now,
            None => seen.push((set, now)),
        }
    }

    /// The signals for which an edge that polled lately before `now` has no source.
    pub fn without_source(&self, now: Instant) -> SignalSet {
        self.missing(now).into_iter().fold(SignalSet::default(), SignalSet::union)
    }

    /// The signals for which no edge has a source, of those that polled lately before `now`.
    pub fn without_any_source(&self, now: Instant) -> SignalSet {
        self.missing(now).into_iter().reduce(SignalSet::intersection).unwrap_or_default()
    }

    /// The signals that edges lack which polled lately before `now`.
    fn missing(&self, now: Instant) -> Vec<SignalSet> {
        let all: SignalSet = Signal::ALL.into_iter().collect();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = seen.iter().filter(|(_, last)| now.saturating_duration_since(*last) <= RECENT);
        recent.map(|(set, _)| all.without(*set)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_no_source_while_one_edge_that_polls_has_none() {
        let (signals, start) = (EdgeSignals::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let missing = |seconds| signals.without_source(after(seconds)).iter().map(Signal::as_str).collect::<Vec<_>>();
        assert!(missing(0).is_empty(), "nobody polled");
        signals.polled(Some("connecting_address,asn,country,subdivision,ja3,ja4,tomorrows"), start);
        assert!(missing(0).is_empty());
        signals.polled(Some("asn,ja3,ja4,connecting_address"), after(10));
        assert_eq!(missing(10), ["country", "subdivision"]);
        signals.polled(None, after(20));
        assert_eq!(missing(20), ["connecting_address", "asn", "country", "subdivision", "ja3", "ja4"]);
        signals.polled(Some("asn,ja3,ja4,connecting_address"), after(70));
        assert_eq!(missing(81), ["country", "subdivision"]);
        assert!(missing(131).is_empty());
    }

    #[test]
    fn a_signal_has_no_source_anywhere_if_every_edge_that_polls_has_none() {
        let (signals, now) = (EdgeSignals::default(), Instant::now());
        let missing = || signals.without_any_source(now).iter().map(Signal::as_str).collect::<Vec<_>>();
        assert!(missing().is_empty(), "nobody polled");
        signals.polled(Some("connecting_address,asn,country,ja4"), now);
        assert_eq!(missing(), ["subdivision", "ja3"]);
        signals.polled(Some("ja3"), now);
        assert_eq!(missing(), ["subdivision"]);
    }

    #[test]
    fn each_set_is_kept_once() {
        let signals = EdgeSignals::default();
        for _ in 0..3 {
            signals.polled(Some("asn"), Instant::now());
            signals.polled(Some("asn,asn,,x"), Instant::now());
        }
        assert_eq!(signals.seen.lock().unwrap().len(), 1);
    }
}
