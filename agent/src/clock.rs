//! The two clocks of kvmeter: CLOCK_BOOTTIME, which every length is measured with, and the wall clock, which only
//! names instants for people.
//!
//! A pair is read bracketed (boot, wall, boot) so that the two belong together to within a microsecond or so; the
//! offset between them is what turns a kernel instant into a date. Nothing here remembers anything.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// How many brackets are tried; the tightest one counts.
const TRIES: u32 = 3;

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant2 {
    /// CLOCK_BOOTTIME, nanoseconds since boot, suspend included.
    pub boot_ns: u64,
    /// CLOCK_REALTIME, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
}

impl Instant2 {
    /// The wall-clock time, in Unix nanoseconds, of another instant of this boot, by the offset of this pair.
    ///
    /// Saturates at the epoch and at 2⁶⁴ − 1 ns.
    #[must_use]
    pub fn unix_of(&self, boot_ns: u64) -> u64 {
        if boot_ns <= self.boot_ns {
            self.unix_ns.saturating_sub(self.boot_ns - boot_ns)
        } else {
            self.unix_ns.saturating_add(boot_ns - self.boot_ns)
        }
    }

    /// The boot-clock instant, in nanoseconds, of a wall-clock time, by the offset of this pair; 0 if before boot.
    #[must_use]
    pub fn boot_of(&self, unix_ns: u64) -> u64 {
        if unix_ns <= self.unix_ns {
            self.boot_ns.saturating_sub(self.unix_ns - unix_ns)
        } else {
            self.boot_ns.saturating_add(unix_ns - self.unix_ns)
        }
    }

    /// Wall clock minus boot clock in nanoseconds: constant until somebody sets the wall clock.
    #[must_use]
    pub fn offset_ns(&self) -> i128 {
        i128::from(self.unix_ns) - i128::from(self.boot_ns)
    }
}

/// Both clocks, now.
///
/// # Errors
/// Only if the kernel refuses one of the two clocks, which Linux since 2.6.39 does not.
pub fn now() -> io::Result<Instant2> {
    let mut best: Option<(u64, Instant2)> = None;
    for _ in 0..TRIES {
        let before = read(ClockId::CLOCK_BOOTTIME)?;
        let unix_ns = read(ClockId::CLOCK_REALTIME)?;
        let after = read(ClockId::CLOCK_BOOTTIME)?;
        let width = after.saturating_sub(before);
        if best.is_none_or(|(narrowest, _)| width < narrowest) {
            best = Some((width, Instant2 { boot_ns: before + width / 2, unix_ns }));
        }
    }
    best.map(|(_, instant)| instant).ok_or_else(|| io::Error::other("no clock reading"))
}

/// CLOCK_BOOTTIME alone, in nanoseconds.
///
/// # Errors
/// As [`now`].
pub fn boot_ns() -> io::Result<u64> {
    read(ClockId::CLOCK_BOOTTIME)
}

/// CLOCK_MONOTONIC in nanoseconds, which kernel programs read with `bpf_ktime_get_ns`.
///
/// # Errors
/// As [`now`].
pub fn monotonic_ns() -> io::Result<u64> {
    read(ClockId::CLOCK_MONOTONIC)
}

/// How long the host has been suspended since it booted, as far as one look tells: nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asleep {
    /// At least so long.
    pub least_ns: u64,
    /// At most so long.
    pub most_ns: u64,
}

impl Asleep {
    /// For how long the host was certainly suspended since an earlier look; `None` if it may not have been.
    #[must_use]
    pub fn since(self, before: Self) -> Option<u64> {
        self.least_ns.checked_sub(before.most_ns).filter(|ns| *ns > 0)
    }

    /// What two looks tell between which the host was not suspended.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (least_ns, most_ns) = (self.least_ns.max(other.least_ns), self.most_ns.min(other.most_ns));
        // A nap shorter than a look takes may lie between.
        if least_ns <= most_ns { Self { least_ns, most_ns } } else { self }
    }
}

/// How long the host has been suspended: CLOCK_BOOTTIME less CLOCK_MONOTONIC, bracketed.
///
/// # Errors
/// As [`now`].
pub fn asleep() -> io::Result<Asleep> {
    let before = read(ClockId::CLOCK_MONOTONIC)?;
    let boot = read(ClockId::CLOCK_BOOTTIME)?;
    let after = read(ClockId::CLOCK_MONOTONIC)?;
    Ok(Asleep { least_ns: boot.saturating_sub(after), most_ns: boot.saturating_sub(before) })
}

/// Unix nanoseconds as RFC 3339 with nine decimals and `Z`, the form of every time in the ledger.
#[must_use]
pub fn rfc3339(unix_ns: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(unix_ns)).to_string()
}

/// Unix nanoseconds of an RFC 3339 time in UTC; `None` if it is none or lies outside 1970 to 2554.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn read(clock: ClockId) -> io::Result<u64> {
    let time = clock_gettime(clock)?;
    let out_of_range = |_| io::Error::other("the clock shows a time before its epoch");
    let seconds = u64::try_from(time.tv_sec()).map_err(out_of_range)?;
    let nanos = u64::try_from(time.tv_nsec()).map_err(out_of_range)?;
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_clocks_advance_together() {
        let first = now().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let second = now().unwrap();
        assert!(second.boot_ns >= first.boot_ns + 5_000_000);
        assert!((second.offset_ns() - first.offset_ns()).abs() < 50_000_000);
        assert!(boot_ns().unwrap() >= second.boot_ns);
    }

    #[test]
    fn a_time_has_nine_decimals_and_z() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_700_000_000_000_000_001), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(rfc3339(u64::MAX).len(), 30);
    }

    proptest! {
        #[test]
        fn a_written_time_reads_back(unix_ns in any::<u64>()) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(unix_ns)), Some(unix_ns));
        }

        #[test]
        fn lengths_on_the_wall_equal_lengths_since_boot(boot in 0u64..1 << 50, from_boot in 0u64..1 << 50) {
            let pair = Instant2 { boot_ns: boot, unix_ns: 1 << 60 };
            prop_assert_eq!(pair.boot_of(pair.unix_of(from_boot)), from_boot);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse_rfc3339(&text);
        }
    }
}
