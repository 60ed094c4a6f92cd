//! What time it is: for people, and for the fleet's limit.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// A moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// UNIX seconds of the wall clock, for dates.
    pub unix_seconds: u64,
    /// The same moment on the clock that nobody sets, for all that is counted in time.
    pub steady: Steady,
}

/// A moment on the machine's monotonic clock, which all its processes share.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Steady {
    /// The boot that began the clock. Those of two boots have nothing in common.
    pub boot: BootId,
    /// Nanoseconds on it.
    pub nanos: u64,
}

/// Tells one boot of a machine from all others. The default is that of none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// That of this boot. Where the system tells none it is one for this process alone: its moments are then compared
    /// with its own only.
    fn of_this_boot() -> io::Result<Self> {
        static ID: OnceLock<BootId> = OnceLock::new();
        match ID.get() {
            Some(id) => Ok(*id),
            None => {
                let found = Self::find()?;
                Ok(*ID.get_or_init(|| found))
            }
        }
    }

    fn find() -> io::Result<Self> {
        let told = if cfg!(target_os = "linux") { std::fs::read_to_string(LINUX_BOOT_ID).ok() } else { None };
        if let Some(id) = told.and_then(|uuid| Self::from_uuid(&uuid)) {
            return Ok(id);
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|_| io::Error::other("the system told neither its boot's id nor a random number"))?;
        Ok(Self(id))
    }

    fn from_uuid(uuid: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(uuid.trim().replace('-', ""), &mut id).ok()?;
        Some(Self(id))
    }
}

/// Where Linux tells its boot's id.
const LINUX_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The clock that starts with the machine and that nobody sets. On Linux it is the one that goes on in a suspended
/// machine, as time does for those who wait.
#[cfg(target_os = "linux")]
const MACHINE_CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const MACHINE_CLOCK: ClockId = ClockId::Monotonic;

/// Tells the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot: BootId,
}

impl Clock {
    /// The clock of this machine.
    ///
    /// # Errors
    /// The system tells neither its boot's id nor a random number in its place.
    pub fn of_this_machine() -> io::Result<Self> {
        Ok(Self { boot: BootId::of_this_boot()? })
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.at(SystemTime::now(), Duration::try_from(clock_gettime(MACHINE_CLOCK)).unwrap_or_default())
    }

    /// The time when the wall clock shows `wall`, and the machine's clock `steady`.
    fn at(&self, wall: SystemTime, steady: Duration) -> Now {
        let nanos = u64::try_from(steady.as_nanos()).unwrap_or(u64::MAX);
        Now { unix_seconds: since_epoch(wall).as_secs(), steady: Steady { boot: self.boot, nanos } }
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
pub(super) const LAST_MILLI: u64 = 253_402_300_799_999;

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_moves_the_date_and_not_the_steady_time() {
        let day = Duration::from_secs(86_400);
        let clock = Clock { boot: BootId([7; 16]) };
        for days in [0, 9, 1_000] {
            let now = clock.at(SystemTime::UNIX_EPOCH + day * days, Duration::from_millis(1_500));
            assert_eq!(now.unix_seconds, u64::from(days) * 86_400);
            assert_eq!(now.steady, Steady { boot: BootId([7; 16]), nanos: 1_500_000_000 });
        }
    }

    #[test]
    fn every_process_of_a_machine_has_the_same_steady_time() {
        let first = Clock::of_this_machine().unwrap().now().steady;
        std::thread::sleep(Duration::from_millis(2));
        let second = Clock::of_this_machine().unwrap().now().steady;
        assert_eq!(first.boot, second.boot);
        assert!((2_000_000..60_000_000_000).contains(&(second.nanos - first.nanos)));
        if cfg!(target_os = "linux") {
            // What another process would read: the time since the boot, to a hundredth of a second.
            let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
            let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
            assert!((0.0..60.0).contains(&(uptime + 0.01 - second.nanos as f64 / 1e9)), "{uptime} {second:?}");
        }
    }

    #[test]
    fn a_boot_has_the_id_that_the_system_tells() {
        let id = BootId::from_uuid("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(hex::encode(id.0), "00112233445566778899aabbccddeeff");
        assert_eq!([BootId::from_uuid(""), BootId::from_uuid("0011"), BootId::from_uuid(&"g".repeat(32))], [None; 3]);
        assert_ne!(BootId::of_this_boot().unwrap(), BootId::default());
    }

    #[test]
    fn a_date_is_shown_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
