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
    /// Whether the request passes.
    pub admitted: bool,
    /// The state to store; `None` if it is as it was. An admission counts only once it is stored. A denial has one only
    /// if the state comes from under a more generous limit: the bucket is empty then, and not emptier than that.
    pub state: Option<u64>,
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
    let overdrawn = tat.saturating_sub(now) > capacity;
    let missing = tat.saturating_sub(now).min(capacity);
    let after = missing.saturating_add(interval);
    let admitted = after <= capacity;
    let missing = if admitted { after } else { missing };
    let available = capacity.saturating_sub(missing);
    let whole = available.checked_div(interval).unwrap_or(0);
    let fraction = available.checked_rem(interval).unwrap_or(0);
    Verdict {
        admitted,
        state: (admitted || overdrawn).then(|| now.saturating_add(missing)),
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
            assert!(verdict.admitted);
            tat = verdict.state.unwrap();
        }
        let denied = judge(tat, now, limit(5, 5));
        assert_eq!(denied, Verdict { admitted: false, state: None, remaining: 0, next_token_in: 200_000_000 });
        assert!(!judge(tat, now + 199_999_999, limit(5, 5)).admitted);
        assert!(judge(tat, now + 200_000_000, limit(5, 5)).admitted);
    }

    #[test]
    fn a_lower_limit_takes_effect_at_once_and_locks_nobody_out_longer_than_it_says() {
        let now = NANOS_PER_SECOND;
        let spent = judge(now + 3_599 * NANOS_PER_SECOND, now, limit(3_600, 1)).state.unwrap();
        let denied = judge(spent, now, limit(5, 5));
        assert_eq!((denied.admitted, denied.remaining, denied.next_token_in), (false, 0, 200_000_000));
        assert!(judge(denied.state.unwrap(), now + denied.next_token_in, limit(5, 5)).admitted);
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
                let verdict = judge(tat, now, limit(burst, per_second));
                tat = verdict.state.unwrap_or(tat);
                if verdict.admitted {
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
