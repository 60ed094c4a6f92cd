//! The tenant's bucket in the data that all workers share.

use super::environment::Environment;
use crate::rate_limit::{self, Bucket, Verdict};
use crate::tenant::RateLimit;

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

/// Takes a token from the bucket at `key`.
///
/// A failed write means that another worker spent a token of the same bucket, so `burst + 8` tries settle it;
/// beyond 256 the request is denied, which is the safe side.
pub fn take<E: Environment>(environment: &E, key: &str, limit: RateLimit) -> Outcome {
    let tries = limit.burst.get().saturating_add(8).min(256);
    let mut last = None;
    for _ in 0..tries {
        let Some(bucket) = environment.shared(key) else { return Outcome::Unavailable };
        let Some(state) = Bucket::decode(&bucket.value) else { return Outcome::Unavailable };
        let verdict = rate_limit::judge(state, environment.monotonic_nanos(), limit);
        let stored = verdict.state.map(|state| environment.set_shared(key, &state.encode(), Some(bucket.cas)));
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
}
