//! The token bucket: GCRA, one `u64` of state.
//!
//! The state is the *theoretical arrival time* (TAT), in nanoseconds of a monotonic clock: when the bucket will be
//! full again. With `burst` tokens and one token back every `interval`, a request at `now` is admitted if it
//! leaves the bucket at most `burst × interval` short of full; so any window of length `L` admits at most
//! `burst + L / interval` requests. No timer refills anything, and a change of the limit needs no migration.

use crate::tenant::RateLimit;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What the bucket says to one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// The state to store if the request is admitted; `None` if it is not, and then nothing is to be stored.
    pub admitted: Option<u64>,
    /// Whole tokens that are left afterwards.
    pub remaining: u32,
    /// Nanoseconds from `now` until the next token arrives; 0 if the bucket is full.
    pub next_token_in: u64,
}

/// Judges a request at `now` (nanoseconds, same clock as `tat`) by a bucket in state `tat`. A fresh bucket is `0`.
pub fn judge(tat: u64, now: u64, limit: RateLimit) -> Verdict {
    // Rounded up: never a token more than the limit says.
    let interval = NANOS_PER_SECOND.div_ceil(u64::from(limit.per_second.get())).max(1);
    let capacity = interval.saturating_mul(u64::from(limit.burst.get()));
    // What is missing to a full bucket. A state from under a more generous limit counts as an empty bucket.
    let missing = tat.saturating_sub(now).min(capacity);
    let after = missing.saturating_add(interval);
    let admitted = after <= capacity;
    let missing = if admitted { after } else { missing };
    let available = capacity.saturating_sub(missing);
    let whole = available.checked_div(interval).unwrap_or(0);
    let fraction = available.checked_rem(interval).unwrap_or(0);
    Verdict {
        admitted: admitted.then(|| now.saturating_add(missing)),
        remaining: u32::try_from(whole).unwrap_or(u32::MAX),
        next_token_in: if missing == 0 { 0 } else { interval.saturating_sub(fraction) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    fn limit(burst: u32, per_second: u32) -> RateLimit {
        RateLimit { burst: NonZeroU32::new(burst).unwrap(), per_second: NonZeroU32::new(per_second).unwrap() }
    }

    #[test]
    fn a_fresh_bucket_gives_its_burst_and_then_waits_for_a_token() {
        let (mut tat, now) = (0, 1_000 * NANOS_PER_SECOND);
        for remaining in (0..5).rev() {
            let verdict = judge(tat, now, limit(5, 5));
            assert_eq!(verdict.remaining, remaining);
            tat = verdict.admitted.unwrap();
        }
        let denied = judge(tat, now, limit(5, 5));
        assert_eq!(denied, Verdict { admitted: None, remaining: 0, next_token_in: 200_000_000 });
        assert!(judge(tat, now + 199_999_999, limit(5, 5)).admitted.is_none());
        assert!(judge(tat, now + 200_000_000, limit(5, 5)).admitted.is_some());
    }

    #[test]
    fn a_lower_limit_takes_effect_at_once_and_never_locks_out_for_long() {
        let now = NANOS_PER_SECOND;
        let denied = judge(now + 3_600 * NANOS_PER_SECOND, now, limit(1, 1));
        assert_eq!(denied, Verdict { admitted: None, remaining: 0, next_token_in: NANOS_PER_SECOND });
    }

    proptest! {
        #[test]
        fn no_window_admits_more_than_burst_and_refill(
            burst in 1u32..20, per_second in 1u32..2_000,
            gaps in proptest::collection::vec(0u64..300_000_000, 1..200),
        ) {
            let (mut tat, mut now, mut admitted) = (0, 7 * NANOS_PER_SECOND, Vec::new());
            for gap in gaps {
                now += gap;
                if let Some(next) = judge(tat, now, limit(burst, per_second)).admitted {
                    tat = next;
                    admitted.push(now);
                }
            }
            for (i, start) in admitted.iter().enumerate() {
                for (j, end) in admitted.iter().enumerate().skip(i) {
                    let window = u128::from(end - start);
                    let most = u128::from(burst) + window * u128::from(per_second) / u128::from(NANOS_PER_SECOND);
                    prop_assert!((j - i + 1) as u128 <= most, "{} in {window} ns", j - i + 1);
                }
            }
        }

        #[test]
        fn any_state_is_judged_without_overflow(tat: u64, now: u64, burst in 1u32..=RateLimit::MAX, per_second in 1u32..=RateLimit::MAX) {
            let verdict = judge(tat, now, limit(burst, per_second));
            prop_assert!(verdict.remaining <= burst);
            prop_assert!(verdict.next_token_in <= NANOS_PER_SECOND);
        }
    }
}
