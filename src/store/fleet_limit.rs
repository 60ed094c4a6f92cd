//! How many clients a whole fleet of edges may register for a tenant: the tenant's bucket once more, in the database.
//!
//! It holds one token more than an edge's, so that jitter on the way never refuses what a single edge admitted.

use crate::rate_limit::{self, Bucket};
use crate::tenant::RateLimit;

/// How far the time of one store may lie behind that of another, in nanoseconds: longer than a store waits for
/// another one's transaction after it read the clock.
const MOST_LAG: u64 = 10_000_000_000;

/// A tenant's bucket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FleetBucket {
    /// The tokens.
    pub tokens: Bucket,
    /// When they changed last, in nanoseconds of the steady clock.
    pub changed_at: u64,
}

/// The limit of the whole fleet.
fn fleet(limit: RateLimit) -> RateLimit {
    RateLimit { burst: limit.burst.saturating_add(1), ..limit }
}

impl FleetBucket {
    /// The bucket under another limit of an edge from `now` on. An edge's bucket comes under it with the next request,
    /// which may be one of which the store never hears.
    #[must_use]
    pub fn under(self, now: u64, limit: RateLimit) -> Self {
        let changed_at = self.time(now);
        Self { tokens: self.tokens.under(changed_at, fleet(limit)), changed_at }
    }

    /// Takes a token at `now`, in nanoseconds of the steady clock, under an edge's limit.
    ///
    /// # Errors
    /// There is none; the nanoseconds until the next one arrives.
    pub fn take(&mut self, now: u64, limit: RateLimit) -> Result<(), u64> {
        let now = self.time(now);
        let verdict = rate_limit::judge(self.tokens, now, fleet(limit));
        if let Some(tokens) = verdict.state {
            *self = Self { tokens, changed_at: now };
        }
        if verdict.admitted { Ok(()) } else { Err(verdict.next_token_in) }
    }

    /// Time never runs backwards in a bucket, or a store that waited for its turn would give tokens back. Where the
    /// bucket is far ahead the wall clock was set back between two starts, and `now` is right.
    fn time(self, now: u64) -> u64 {
        if self.changed_at.saturating_sub(now) > MOST_LAG { now } else { now.max(self.changed_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    const SECOND: u64 = 1_000_000_000;

    fn limit(burst: u32, per_second: u32) -> RateLimit {
        RateLimit { burst: NonZeroU32::new(burst).unwrap(), per_second: NonZeroU32::new(per_second).unwrap() }
    }

    fn taken(bucket: &mut FleetBucket, now: u64, limit: RateLimit) -> usize {
        std::iter::repeat_with(|| bucket.take(now, limit)).take_while(Result::is_ok).count()
    }

    #[test]
    fn the_fleet_has_one_token_more_than_an_edge() {
        let mut bucket = FleetBucket::default();
        assert_eq!(taken(&mut bucket, 1_000 * SECOND, limit(5, 5)), 6);
        assert_eq!(bucket.take(1_000 * SECOND, limit(5, 5)), Err(SECOND / 5));
        assert_eq!(taken(&mut bucket, 1_001 * SECOND, limit(5, 5)), 5);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_between_two_starts_locks_nobody_out() {
        let mut bucket = FleetBucket::default();
        let now = 1_000_000 * SECOND;
        taken(&mut bucket, now, limit(5, 5));
        let earlier = now - 86_400 * SECOND;
        assert!(bucket.take(earlier, limit(5, 5)).is_err());
        assert_eq!(taken(&mut bucket, earlier + 2 * SECOND, limit(5, 5)), 6);
    }

    proptest! {
        #[test]
        fn stores_whose_time_lags_admit_no_more_than_one_with_the_right_time(
            burst in 1u32..20, per_second in 1u32..2_000,
            steps in proptest::collection::vec((0u64..100_000_000, 0u64..5 * SECOND), 1..200),
        ) {
            let (mut bucket, start) = (FleetBucket::default(), 1_000 * SECOND);
            let (mut now, mut admitted) = (start, 0);
            for (gap, lag) in steps {
                now += gap;
                admitted += u128::from(bucket.take(now - lag, limit(burst, per_second)).is_ok());
            }
            let refill = u128::from(now - start + 5 * SECOND) * u128::from(per_second) / u128::from(SECOND);
            prop_assert!(admitted <= u128::from(burst) + 1 + refill);
        }
    }
}
