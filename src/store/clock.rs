//! What time it is: for people, and for the fleet's limit.

use std::time::{Duration, Instant, SystemTime};

/// A moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// UNIX seconds of the wall clock.
    pub unix_seconds: u64,
    /// Nanoseconds that no step of the wall clock moves while the process lives, and that go on where another
    /// process left off.
    pub steady_nanos: u64,
}

/// Tells the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The wall clock when the process started, since the UNIX epoch. Taken once: that is what a step cannot move.
    started_at: Duration,
    started: Instant,
}

impl Clock {
    /// A clock that takes the wall clock of this moment for its beginning.
    pub fn start() -> Self {
        Self { started_at: since_epoch(SystemTime::now()), started: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.at(SystemTime::now(), self.started.elapsed())
    }

    /// The time when the wall clock shows `wall`, `elapsed` after the start.
    fn at(&self, wall: SystemTime, elapsed: Duration) -> Now {
        let steady = self.started_at.saturating_add(elapsed).as_nanos();
        Now { unix_seconds: since_epoch(wall).as_secs(), steady_nanos: u64::try_from(steady).unwrap_or(u64::MAX) }
    }
}

/// The time in UNIX milliseconds.
pub fn unix_millis() -> u64 {
    u64::try_from(since_epoch(SystemTime::now()).as_millis()).unwrap_or(u64::MAX)
}

/// UNIX milliseconds as RFC 3339 shows them in UTC.
pub fn rfc3339(unix_millis: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(unix_millis.min(LAST_MILLI)));
    humantime::format_rfc3339_millis(time.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

/// The last millisecond of the year 9999, beyond which RFC 3339 has no dates.
const LAST_MILLI: u64 = 253_402_300_799_999;

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_moves_the_date_and_not_the_steady_time() {
        let day = Duration::from_secs(86_400);
        let clock = Clock { started_at: day * 10, started: Instant::now() };
        let steady = |days: u32| {
            let now = clock.at(SystemTime::UNIX_EPOCH + day * days, Duration::from_millis(1_500));
            assert_eq!(now.unix_seconds, u64::from(days) * 86_400);
            now.steady_nanos
        };
        assert_eq!(steady(10), 864_001_500_000_000);
        assert_eq!([steady(0), steady(9), steady(1_000)], [steady(10); 3]);
    }

    #[test]
    fn the_steady_time_goes_on_where_another_process_left_off() {
        let before = Clock::start().now().steady_nanos;
        std::thread::sleep(Duration::from_millis(2));
        assert!(Clock::start().now().steady_nanos > before);
    }

    #[test]
    fn a_date_is_shown_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
