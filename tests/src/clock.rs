//! The host's clocks, as a test compares them with what the ledger tells.

use std::time::SystemTime;

use anyhow::{Context as _, Result};
use nix::{
    time::ClockId,
    unistd::{SysconfVar, sysconf},
};
use serde_json::Value;

/// Two readings of clock pairs, by the agent and by the test; nanoseconds.
pub const CLOCK_PAIR_NS: u64 = 2_000_000;

/// How often two clocks are read together.
const TRIES: u32 = 100;

/// CLOCK_BOOTTIME, nanoseconds.
pub fn boot_ns() -> Result<u64> {
    clock_ns(ClockId::CLOCK_BOOTTIME)
}

/// Any clock, nanoseconds.
pub(crate) fn clock_ns(clock: ClockId) -> Result<u64> {
    let time = clock.now()?;
    Ok(u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?)
}

/// The clock tick of `/proc`, nanoseconds.
pub fn tick_ns() -> Result<u64> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(1_000_000_000 / u64::try_from(per_second)?)
}

/// A time of a ledger line, nanoseconds since the epoch.
pub fn unix_ns(time: &Value) -> Result<u64> {
    let since = humantime::parse_rfc3339(time.as_str().context("no time")?)?.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_nanos())?)
}

/// The wall clock at an instant of the boot clock. Whoever reads two clocks may lose the CPU in between: of many tries the one
/// that took the least time counts.
pub fn unix_of(boot: u64) -> Result<u64> {
    let mut best: Option<(u64, u64)> = None;
    for _ in 0..TRIES {
        let before = boot_ns()?;
        let wall = clock_ns(ClockId::CLOCK_REALTIME)?;
        let width = boot_ns()? - before;
        if best.is_none_or(|(narrowest, _)| width < narrowest) {
            best = Some((width, wall - (before + width / 2)));
        }
    }
    Ok(best.context("no reading")?.1 + boot)
}
