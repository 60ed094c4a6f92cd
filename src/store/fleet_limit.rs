//! How many clients a whole fleet of edges may register for a tenant: the tenant's bucket once more, in the database.
//!
//! It holds one token more than an edge's, so that jitter on the way never refuses what a single edge admitted.
//!
//! Its time is that of the machine's monotonic clock, which all stores on one database share, so that a step of the
//! wall clock neither opens nor closes the gate. What was measured on the clock of an earlier boot tells nothing about
//! this one: the bucket keeps the tokens that it had, and waits for the others from now on.

use super::clock::Steady;
use crate::rate_limit::{self, Bucket};
use crate::tenant::RateLimit;

/// A tenant's bucket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FleetBucket {
    /// The tokens.
    pub tokens: Bucket,
    /// When they changed last.
    pub changed_at: Steady,
}

/// The limit of the whole fleet.
fn fleet(limit: RateLimit) -> RateLimit {
    RateLimit { burst: limit.burst.saturating_add(1), ..limit }
}

impl FleetBucket {
    /// The bucket under another limit of an edge from `now` on. An edge's bucket comes under it with the next request,
    /// which may be one of which the store never hears.
    #[must_use]
    pub fn under(self, now: Steady, limit: RateLimit) -> Self {
        let Self { tokens, changed_at } = self.as_of(now);
        Self { tokens: tokens.under(changed_at.nanos, fleet(limit)), changed_at }
    }

    /// Takes a token at `now` under an edge's limit.
    ///
    /// # Errors
    /// There is none; the nanoseconds from `now` until the next one arrives.
    pub fn take(&mut self, now: Steady, limit: RateLimit) -> Result<(), u64> {
        let Self { tokens, changed_at } = self.as_of(now);
        let verdict = rate_limit::judge(tokens, changed_at.nanos, fleet(limit));
        // On the clock of another boot a refusal, too, begins the wait, or that would never end.
        if verdict.state.is_some() || changed_at.boot != self.changed_at.boot {
            *self = Self { tokens: verdict.state.unwrap_or(tokens), changed_at };
        }
        let ahead = changed_at.nanos.saturating_sub(now.nanos);
        if verdict.admitted { Ok(()) } else { Err(ahead.saturating_add(verdict.next_token_in)) }
    }

    /// The bucket at the moment at which it judges what comes at `now`. Time never runs backwards in it: a store may
    /// read the clock, and then wait for another one's transaction.
    fn as_of(self, now: Steady) -> Self {
        if self.changed_at.boot == now.boot {
            let nanos = now.nanos.max(self.changed_at.nanos);
            return Self { changed_at: Steady { nanos, ..now }, ..self };
        }
        Self { tokens: self.tokens.on_another_clock(self.changed_at.nanos, now.nanos), changed_at: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::clock::BootId;
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    const SECOND: u64 = 1_000_000_000;

    fn limit(burst: u32, per_second: u32) -> RateLimit {
        RateLimit { burst: NonZeroU32::new(burst).unwrap(), per_second: NonZeroU32::new(per_second).unwrap() }
    }

    /// A moment after the boot with this number.
    fn at(boot: u8, nanos: u64) -> Steady {
        Steady { boot: BootId([boot; 16]), nanos }
    }

    fn taken(bucket: &mut FleetBucket, now: Steady, limit: RateLimit) -> usize {
        std::iter::repeat_with(|| bucket.take(now, limit)).take_while(Result::is_ok).count()
    }

    #[test]
    fn the_fleet_has_one_token_more_than_an_edge() {
        let mut bucket = FleetBucket::default();
        assert_eq!(taken(&mut bucket, at(1, 1_000 * SECOND), limit(5, 5)), 6);
        assert_eq!(bucket.take(at(1, 1_000 * SECOND), limit(5, 5)), Err(SECOND / 5));
        assert_eq!(taken(&mut bucket, at(1, 1_001 * SECOND), limit(5, 5)), 5);
    }

    #[test]
    fn a_bucket_of_another_boot_keeps_what_it_holds_and_waits_for_the_rest_from_now_on() {
        for boot_time in [0, SECOND, 1_000_000 * SECOND] {
            let mut bucket = FleetBucket::default();
            for _ in 0..4 {
                bucket.take(at(1, 1_000 * SECOND), limit(5, 5)).unwrap();
            }
            assert_eq!(taken(&mut bucket, at(2, boot_time), limit(5, 5)), 2, "{boot_time}");
            let mut empty = bucket;
            assert_eq!(taken(&mut bucket, at(2, boot_time + SECOND), limit(5, 5)), 5, "{boot_time}");
            // The same if the first that comes is refused.
            assert_eq!(empty.take(at(3, boot_time), limit(5, 5)), Err(SECOND / 5));
            assert_eq!(empty.take(at(3, boot_time + SECOND / 5), limit(5, 5)), Ok(()));
        }
    }

    #[test]
    fn a_changed_limit_gives_a_bucket_of_another_boot_no_token() {
        let mut bucket = FleetBucket::default();
        taken(&mut bucket, at(1, 1_000 * SECOND), limit(5, 5));
        for boot_time in [0, 1_000_000 * SECOND] {
            let mut changed = bucket.under(at(2, boot_time), limit(7, 1));
            assert_eq!(taken(&mut changed, at(2, boot_time), limit(7, 1)), 2);
            assert_eq!(taken(&mut changed, at(2, boot_time + 3 * SECOND), limit(7, 1)), 3);
        }
    }

    #[test]
    fn a_refusal_counts_from_the_stores_own_time_where_the_bucket_is_ahead() {
        let mut bucket = FleetBucket::default();
        taken(&mut bucket, at(1, 1_000 * SECOND), limit(5, 5));
        assert_eq!(bucket.take(at(1, 997 * SECOND), limit(5, 5)), Err(3 * SECOND + SECOND / 5));
        assert_eq!(bucket.take(at(1, 1_000 * SECOND + SECOND / 5), limit(5, 5)), Ok(()));
    }

    /// How many tokens come back in so many nanoseconds.
    fn refill(nanos: u64, per_second: u32) -> u128 {
        u128::from(nanos) * u128::from(per_second) / u128::from(SECOND)
    }

    proptest! {
        #[test]
        fn stores_that_read_one_clock_in_any_order_admit_no_more_than_one_store(
            burst in 1u32..20, per_second in 1u32..2_000,
            steps in proptest::collection::vec((0u64..100_000_000, 0u64..900 * SECOND, any::<bool>()), 1..200),
        ) {
            let (mut bucket, start) = (FleetBucket::default(), 1_000 * SECOND);
            let (mut now, mut latest, mut admitted) = (start, None::<(u64, u64)>, 0);
            for (gap, lag, lags) in steps {
                now += gap;
                let read = now - if lags { lag } else { 0 };
                admitted += u128::from(bucket.take(at(1, read), limit(burst, per_second)).is_ok());
                let (first, last) = latest.unwrap_or((read, read));
                latest = Some((first, last.max(read)));
                let (first, last) = latest.unwrap();
                prop_assert!(admitted <= u128::from(burst) + 1 + refill(last - first, per_second));
            }
        }

        #[test]
        fn boots_admit_no_more_than_the_time_that_was_measured_in_each_and_lock_nobody_out(
            burst in 1u32..20, per_second in 1u32..2_000,
            boots in proptest::collection::vec(
                (0u64..10_000 * SECOND, proptest::collection::vec(0u64..100_000_000, 1..20)), 1..20),
        ) {
            let limit = limit(burst, per_second);
            let (mut bucket, mut measured, mut admitted) = (FleetBucket::default(), 0, 0);
            for (boot, (start, gaps)) in (0u8..).zip(boots) {
                let mut now = start;
                for (number, gap) in gaps.into_iter().enumerate() {
                    // Nothing is known of the time before a boot's first request.
                    if number > 0 {
                        now += gap;
                        measured += gap;
                    }
                    match bucket.take(at(boot, now), limit) {
                        Ok(()) => admitted += 1,
                        Err(wait) => {
                            prop_assert!((1..=SECOND).contains(&wait));
                            let later = |now| FleetBucket::take(&mut { bucket }, at(boot, now), limit);
                            prop_assert!(later(now + wait - 1).is_err());
                            prop_assert!(later(now + wait).is_ok());
                        }
                    }
                }
            }
            prop_assert!(admitted <= u128::from(burst) + 1 + refill(measured, per_second));
        }
    }
}
