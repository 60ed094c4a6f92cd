//! Buckets in the data that all workers share: one for each tenant, and a table for the sources of a tenant.
//!
//! A tenant's bucket is its own: its key is numbered by the store, and it is there before the tenant is. Sources cannot
//! be counted, so theirs share a table of fixed size, one for each tenant that wants it: a source takes the place that a
//! keyed hash gives it. Two that meet in one place have one bucket together, which may refuse too early, never admit too
//! much; and what strangers do to one tenant's table is nothing to another's.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::environment::Environment;
use crate::rate_limit::{self, Bucket, Verdict};
use crate::tenant::RateLimit;

/// Keys of one tenant's table of sources.
pub const SOURCE_KEYS: u8 = 64;

/// Buckets below each of them.
const BUCKETS_PER_KEY: u8 = 16;

/// Bytes of a bucket.
const BUCKET_BYTES: usize = 16;

/// Most tries of one request.
const MAX_TRIES: u32 = 256;

/// Keys the hash that gives sources their places, so that nobody can compute whom he will meet.
pub type Seed = [u8; 16];

/// The value of a key with fresh buckets of sources.
pub fn fresh_source_buckets() -> Vec<u8> {
    Bucket::default().encode().repeat(usize::from(BUCKETS_PER_KEY))
}

/// A bucket in shared data.
#[derive(Clone, Copy, Debug)]
struct Place<'k> {
    key: &'k str,
    /// Which of the buckets below the key.
    number: usize,
    tries: u32,
}

/// What the limiter says to one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// A verdict, and whether contention rather than the bucket denied.
    Judged {
        /// Of the bucket.
        verdict: Verdict,
        /// Whether other workers won every try.
        contended: bool,
    },
    /// The bucket is missing or unreadable.
    Unavailable,
}

/// Takes a token from the tenant's bucket at `key`.
///
/// A failed write means that another worker spent a token of the same bucket, so `burst + 8` tries settle it;
/// beyond 256 the request is denied, which is the safe side.
pub fn take<E: Environment>(environment: &E, key: &str, limit: RateLimit) -> Outcome {
    let tries = limit.burst.get().saturating_add(8).min(MAX_TRIES);
    take_at(environment, Place { key, number: 0, tries }, limit)
}

/// Takes a token from the bucket of a source: an IPv4 address, or the first 64 bits of an IPv6 address. Those whose
/// address is unknown are one source. `key` names one of the keys of the tenant's table.
pub fn take_for_source<E: Environment>(
    environment: &E,
    seed: &Seed,
    source: Option<IpAddr>,
    key: impl Fn(u8) -> String,
    limit: RateLimit,
) -> Outcome {
    let mut hash = Sha256::new_with_prefix(seed);
    match source.map(crate::cidr::canonical) {
        Some(IpAddr::V4(address)) => {
            hash.update([4]);
            hash.update(address.octets());
        }
        Some(IpAddr::V6(address)) => {
            let network = address.to_bits() >> 64;
            hash.update([6]);
            hash.update(network.to_be_bytes());
        }
        None => hash.update([0]),
    }
    let [first, second, ..]: [u8; 32] = hash.finalize().into();
    // Writes to the other buckets of the key make tries fail too, so there are as many as there may be.
    let place =
        Place { key: &key(first % SOURCE_KEYS), number: usize::from(second % BUCKETS_PER_KEY), tries: MAX_TRIES };
    take_at(environment, place, limit)
}

fn take_at<E: Environment>(environment: &E, place: Place, limit: RateLimit) -> Outcome {
    let Place { key, number, tries } = place;
    let mut last = None;
    for _ in 0..tries {
        let Some(mut shared) = environment.shared(key) else { return Outcome::Unavailable };
        let (buckets, []) = shared.value.as_chunks_mut::<BUCKET_BYTES>() else { return Outcome::Unavailable };
        let Some(bytes) = buckets.get_mut(number) else { return Outcome::Unavailable };
        let Some(state) = Bucket::decode(bytes) else { return Outcome::Unavailable };
        let verdict = rate_limit::judge(state, environment.monotonic_nanos(), limit);
        let changed = verdict.state.map(|state| *bytes = state.encode());
        let stored = changed.map(|()| environment.set_shared(key, &shared.value, Some(shared.cas)));
        // A denial stands whether it was stored or not; an admission counts only if it was.
        if !verdict.admitted || matches!(stored, Some(Ok(()))) {
            return Outcome::Judged { verdict, contended: false };
        }
        last = Some(verdict);
    }
    last.map_or(Outcome::Unavailable, |verdict| Outcome::Judged {
        verdict: Verdict { admitted: false, remaining: 0, ..verdict },
        contended: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fake::Fake;
    use std::num::NonZeroU32;
    use std::sync::atomic::Ordering;

    const LIMIT: RateLimit = RateLimit { burst: NonZeroU32::new(5).unwrap(), per_second: NonZeroU32::new(5).unwrap() };

    fn admitted(outcome: Outcome) -> bool {
        matches!(outcome, Outcome::Judged { verdict: Verdict { admitted: true, .. }, .. })
    }

    #[test]
    fn a_missing_or_broken_bucket_admits_nobody() {
        let fake = Fake::default();
        assert_eq!(take(&fake, "b", LIMIT), Outcome::Unavailable);
        fake.set_shared("b", b"short", None).unwrap();
        assert_eq!(take(&fake, "b", LIMIT), Outcome::Unavailable);
    }

    #[test]
    fn threads_that_race_for_one_bucket_get_its_burst_and_no_more() {
        let fake = Fake::default();
        fake.set_shared("b", &Bucket::default().encode(), None).unwrap();
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..200).filter(|_| admitted(take(&fake, "b", LIMIT))).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 5);
    }

    #[test]
    fn endless_contention_denies() {
        let fake = Fake::default();
        fake.set_shared("b", &Bucket::default().encode(), None).unwrap();
        fake.lose_every_cas(true);
        let Outcome::Judged { verdict, contended } = take(&fake, "b", LIMIT) else { panic!() };
        assert!(contended && !verdict.admitted);
    }

    const SEED: Seed = [7; 16];

    fn with_table() -> Fake {
        let fake = Fake::default();
        for number in 0..SOURCE_KEYS {
            fake.set_shared(&source_key(number), &fresh_source_buckets(), None).unwrap();
        }
        fake
    }

    fn source_key(number: u8) -> String {
        format!("s/{number}")
    }

    fn from(fake: &Fake, source: Option<&str>) -> bool {
        let source = source.map(|text| text.parse().unwrap());
        admitted(take_for_source(fake, &SEED, source, source_key, LIMIT))
    }

    #[test]
    fn each_source_has_a_bucket_of_its_own() {
        let fake = with_table();
        assert_eq!((0..9).filter(|_| from(&fake, Some("198.51.100.7"))).count(), 5);
        for other in [Some("198.51.100.8"), Some("2001:db8::1"), None] {
            assert_eq!((0..9).filter(|_| from(&fake, other)).count(), 5, "{other:?}");
        }
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_source_and_a_mapped_address_is_ipv4() {
        let fake = with_table();
        let addresses = ["2001:db8::1", "2001:db8::ffff:1:2:3", "2001:db8:0:0:8000::"];
        assert_eq!((0..9).filter(|turn| from(&fake, Some(addresses[turn % 3]))).count(), 5);
        assert!(from(&fake, Some("2001:db8:0:1::1")));
        assert_eq!((0..9).filter(|_| from(&fake, Some("198.51.100.7"))).count(), 5);
        assert!(!from(&fake, Some("::ffff:198.51.100.7")));
    }

    #[test]
    fn however_many_sources_there_are_the_table_keeps_its_size_and_never_admits_more_than_its_buckets() {
        let fake = with_table();
        let admitted = (0..20_000_u32).filter(|n| from(&fake, Some(&std::net::Ipv4Addr::from(*n).to_string()))).count();
        assert_eq!(admitted, usize::from(SOURCE_KEYS) * usize::from(BUCKETS_PER_KEY) * 5);
        assert_eq!(fake.keys(), usize::from(SOURCE_KEYS));
    }

    #[test]
    fn a_source_without_a_table_is_admitted_nowhere() {
        let fake = Fake::default();
        let outcome = take_for_source(&fake, &SEED, None, source_key, LIMIT);
        assert_eq!(outcome, Outcome::Unavailable);
    }

    /// The model: shared data with the proxy's own semantics, threads that race, and a clock that they push on.
    #[test]
    fn in_a_million_decisions_of_eight_threads_no_window_admits_more_than_burst_and_refill() {
        const THREADS: u64 = 8;
        const DECISIONS: u64 = 1_000_000;
        let fake = Fake::default();
        fake.set_shared("b", &Bucket::default().encode(), None).unwrap();
        let limit = RateLimit { burst: NonZeroU32::new(7).unwrap(), per_second: NonZeroU32::new(1_000).unwrap() };
        let interval = 1_000_000;
        let mut spent: Vec<u64> = std::thread::scope(|scope| {
            let thread = |_| {
                scope.spawn(|| {
                    let mut spent = Vec::new();
                    for turn in 0..DECISIONS / THREADS {
                        // Uneven steps, so that decisions fall between tokens and on them.
                        let before = fake.now.fetch_add(1 + turn % 97 * 311, Ordering::Relaxed);
                        match take(&fake, "b", limit) {
                            Outcome::Judged { contended: true, .. } => panic!("more tries than tokens were lost"),
                            Outcome::Judged { verdict: Verdict { admitted: true, state, .. }, .. } => {
                                let (full_at, after) = (state.unwrap().full_at(), fake.now.load(Ordering::Relaxed));
                                assert!(full_at >= before + interval && full_at <= after + 7 * interval);
                                spent.push(full_at);
                            }
                            Outcome::Judged { .. } => {}
                            Outcome::Unavailable => panic!("the bucket is there"),
                        }
                    }
                    spent
                })
            };
            let threads: Vec<_> = (0..THREADS).map(thread).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        // Each admission moved the time at which the bucket is full by an interval of its own, to between one interval
        // and a burst of them after the decision. So the admissions of any window are that many intervals apart and lie
        // within its length and a burst: no window has more.
        spent.sort_unstable();
        assert!(spent.windows(2).all(|pair| pair[1] - pair[0] >= interval), "two requests took one token");
        let end = fake.now.load(Ordering::Relaxed);
        let most = 7 + end / interval;
        assert!((spent.len() as u64) <= most && (spent.len() as u64) > most / 2, "{} of {most}", spent.len());
    }
}
