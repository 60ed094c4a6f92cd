//! The token bucket: GCRA.
//!
//! The state is the *theoretical arrival time* (TAT), in nanoseconds of a monotonic clock: when the bucket will be
//! full again. With `burst` tokens and one token back every `interval`, a request at `now` is admitted if it
//! leaves the bucket at most `burst × interval` short of full; so any window of length `L` admits at most
//! `burst + L / interval` requests. No timer refills anything. The interval stands beside the time, because a time
//! alone would be worth more or fewer tokens after a change of the limit.

use crate::tenant::RateLimit;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The state of a bucket. The default is a bucket that has all its tokens.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bucket {
    /// When it will be full, in nanoseconds.
    tat: u64,
    /// Time in which a token comes back, in nanoseconds, under the limit that it was judged by last.
    interval: u64,
}

impl Bucket {
    /// Its bytes in shared data.
    pub fn encode(self) -> [u8; 16] {
        (u128::from(self.interval) << 64 | u128::from(self.tat)).to_le_bytes()
    }

    /// From its bytes; `None` if they are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (tat, interval) = bytes.split_first_chunk::<8>()?;
        Some(Self { tat: u64::from_le_bytes(*tat), interval: u64::from_le_bytes(interval.try_into().ok()?) })
    }

    /// When it will be full, in nanoseconds.
    pub fn full_at(self) -> u64 {
        self.tat
    }

    /// The bucket under another limit from `now` on: as many tokens are missing, and no more than there can be.
    #[must_use]
    pub fn under(self, now: u64, limit: RateLimit) -> Self {
        let (interval, capacity) = interval_and_capacity(limit);
        Self { tat: now.saturating_add(self.missing(now, interval).min(capacity)), interval }
    }

    /// The bucket on another clock, which shows `to` where its own showed `from`: as many tokens are missing.
    #[must_use]
    pub fn on_another_clock(self, from: u64, to: u64) -> Self {
        Self { tat: to.saturating_add(self.tat.saturating_sub(from)), ..self }
    }

    /// What is missing to a full bucket of this `interval`: as many tokens as were missing.
    fn missing(self, now: u64, interval: u64) -> u64 {
        let missing = self.tat.saturating_sub(now);
        if self.interval == interval || self.interval == 0 {
            return missing;
        }
        let scaled = u128::from(missing).saturating_mul(u128::from(interval)).div_ceil(u128::from(self.interval));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

/// What the bucket says to one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Whether the request passes.
    pub admitted: bool,
    /// The state to store; `None` if it is as it was. An admission counts only once it is stored. A denial has one only
    /// after a change of the limit: the bucket is empty then, and never emptier than that.
    pub state: Option<Bucket>,
    /// Whole tokens that are left afterwards.
    pub remaining: u32,
    /// Nanoseconds from `now` until the next token arrives; 0 if the bucket is full.
    pub next_token_in: u64,
}

/// The time in which a token comes back, and that in which all do, in nanoseconds.
fn interval_and_capacity(limit: RateLimit) -> (u64, u64) {
    // Rounded up: never a token more than the limit says.
    let interval = NANOS_PER_SECOND.div_ceil(u64::from(limit.per_second.get())).max(1);
    (interval, interval.saturating_mul(u64::from(limit.burst.get())))
}

/// Judges a request at `now`, in nanoseconds.
pub fn judge(bucket: Bucket, now: u64, limit: RateLimit) -> Verdict {
    let (interval, capacity) = interval_and_capacity(limit);
    let missing = bucket.missing(now, interval);
    let is_of_another_limit = missing > capacity || bucket.interval != interval;
    let missing = missing.min(capacity);
    let after = missing.saturating_add(interval);
    let admitted = after <= capacity;
    let missing = if admitted { after } else { missing };
    let available = capacity.saturating_sub(missing);
    let whole = available.checked_div(interval).unwrap_or(0);
    let fraction = available.checked_rem(interval).unwrap_or(0);
    Verdict {
        admitted,
        state: (admitted || is_of_another_limit).then(|| Bucket { tat: now.saturating_add(missing), interval }),
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
        let (mut bucket, now) = (Bucket::default(), 1_000 * NANOS_PER_SECOND);
        for remaining in (0..5).rev() {
            let verdict = judge(bucket, now, limit(5, 5));
            assert_eq!(verdict.remaining, remaining);
            assert!(verdict.admitted);
            bucket = verdict.state.unwrap();
        }
        let denied = judge(bucket, now, limit(5, 5));
        assert_eq!(denied, Verdict { admitted: false, state: None, remaining: 0, next_token_in: 200_000_000 });
        assert!(!judge(bucket, now + 199_999_999, limit(5, 5)).admitted);
        assert!(judge(bucket, now + 200_000_000, limit(5, 5)).admitted);
    }

    #[test]
    fn a_lower_limit_takes_effect_at_once_and_locks_nobody_out_longer_than_it_says() {
        let now = NANOS_PER_SECOND;
        let spent = spend(limit(3_600, 1), now, 3_600);
        let denied = judge(spent, now, limit(5, 5));
        assert_eq!((denied.admitted, denied.remaining, denied.next_token_in), (false, 0, 200_000_000));
        assert!(judge(denied.state.unwrap(), now + denied.next_token_in, limit(5, 5)).admitted);
    }

    #[test]
    fn a_change_of_the_refill_gives_no_token_back_and_takes_none() {
        let now = NANOS_PER_SECOND;
        let spent = spend(limit(50, 5), now, 48);
        for per_second in [1, 5, 1_000] {
            assert_eq!(judge(spent, now, limit(50, per_second)).remaining, 1, "{per_second}");
        }
    }

    #[test]
    fn a_bucket_survives_shared_data_and_nothing_else_is_one() {
        let bucket = spend(limit(5, 3), 7, 2);
        assert_eq!(Bucket::decode(&bucket.encode()), Some(bucket));
        assert_eq!((Bucket::decode(b""), Bucket::decode(&[0; 15]), Bucket::decode(&[0; 17])), (None, None, None));
    }

    #[test]
    fn a_bucket_comes_under_another_limit_without_a_request() {
        let now = NANOS_PER_SECOND;
        let spent = spend(limit(600, 1), now, 300);
        // Emptied by the change, and on its way back from then on.
        let lower = spent.under(now, limit(2, 2));
        assert!(!judge(lower, now, limit(2, 2)).admitted);
        assert!(judge(lower, now + NANOS_PER_SECOND / 2, limit(2, 2)).admitted);
        assert_eq!(judge(spent.under(now, limit(600, 50)), now, limit(600, 50)).remaining, 299);
        assert_eq!(spent.under(now, limit(600, 1)), spent);
        assert_eq!(judge(Bucket::default().under(now, limit(5, 5)), now, limit(5, 5)).remaining, 4);
    }

    #[test]
    fn a_bucket_on_another_clock_lacks_as_many_tokens() {
        let now = 1_000 * NANOS_PER_SECOND;
        for to in [0, now, 9_000 * NANOS_PER_SECOND] {
            let moved = spend(limit(5, 1), now, 3).on_another_clock(now, to);
            assert_eq!(judge(moved, to, limit(5, 1)).remaining, 1);
            assert_eq!(judge(moved, to + 2 * NANOS_PER_SECOND, limit(5, 1)).remaining, 3);
        }
    }

    /// A bucket of which so many tokens were spent.
    fn spend(limit: RateLimit, now: u64, tokens: u32) -> Bucket {
        (0..tokens).fold(Bucket::default(), |bucket, _| judge(bucket, now, limit).state.unwrap())
    }

    proptest! {
        #[test]
        fn no_window_admits_more_than_burst_and_refill(
            burst in 1u32..20, per_second in 1u32..2_000,
            gaps in proptest::collection::vec(0u64..300_000_000, 1..200),
        ) {
            let (mut bucket, mut now, mut admitted) = (Bucket::default(), 7 * NANOS_PER_SECOND, Vec::new());
            for gap in gaps {
                now += gap;
                let verdict = judge(bucket, now, limit(burst, per_second));
                bucket = verdict.state.unwrap_or(bucket);
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
        fn any_state_is_judged_without_overflow(tat: u64, interval: u64, now: u64, burst in 1u32..=RateLimit::MAX, per_second in 1u32..=RateLimit::MAX) {
            let verdict = judge(Bucket { tat, interval }, now, limit(burst, per_second));
            prop_assert!(verdict.remaining <= burst);
            prop_assert!(verdict.next_token_in <= NANOS_PER_SECOND);
        }
    }
}
