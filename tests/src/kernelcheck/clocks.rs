//! The host's clocks: set by somebody, or stopped with the host. Only here, on a machine of its own, may a test do that.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::{signal::Signal, time::TimeSpec},
    time::{ClockId, clock_settime},
};
use serde_json::Value;

use super::check::{Bench, Verdict};
use crate::{
    agent::Agent,
    clock::{boot_ns, clock_ns, unix_ns},
    ledger::number,
    vmm::spawn::TestVm,
};

const DAY_NS: i64 = 86_400_000_000_000;
/// Two readings of clock pairs in a machine that is emulated.
const APART_NS: i64 = 1_000_000_000;
/// What the host sleeps.
const NAP: &str = "+4";

/// Moves the wall clock.
fn step(by_ns: i64) -> Result<()> {
    let now = i64::try_from(clock_ns(ClockId::CLOCK_REALTIME)?)?;
    let then = TimeSpec::from_duration(Duration::from_nanos(u64::try_from(now + by_ns)?));
    clock_settime(ClockId::CLOCK_REALTIME, then).context("the wall clock cannot be set")
}

fn lines(agent: &Agent, kind: &str) -> Result<Vec<Value>> {
    Ok(agent.ledger()?.into_iter().filter(|line| line["kind"] == kind).collect())
}

/// The length of a life in the ledger, and between what it must lie.
struct Length {
    vm: TestVm,
    began: (u64, u64),
}

impl Length {
    fn begin(id: &str) -> Result<Self> {
        let before = boot_ns()?;
        let vm = TestVm::start(&["--id", id, "--duty", "30"])?;
        Ok(Self { vm, began: (before, boot_ns()?) })
    }

    fn end(mut self, agent: &Agent, id: &str) -> Result<u64> {
        let before = boot_ns()?;
        self.vm.signal(Signal::SIGKILL)?;
        self.vm.wait()?;
        let ended = (before, boot_ns()?);
        let life = agent.ended(id)?;
        let stop = life.stop.as_ref().context("no stop")?;
        let length = number(&stop["mono_ns"])? - number(&life.start["mono_ns"])?;
        let (least, most) = (ended.0 - self.began.1, ended.1 - self.began.0);
        ensure!(least <= length && length <= most, "{id}: {least} <= {length} <= {most}");
        agent.verify()?;
        Ok(length)
    }
}

/// A day on, two back, one on.
pub fn set(bench: &Bench) -> Result<Verdict> {
    let (agent, id) = (&bench.agent, "dated");
    let before = lines(agent, "clock.step")?.len();
    let length = Length::begin(id)?;
    for by in [DAY_NS, -2 * DAY_NS, DAY_NS] {
        step(by)?;
        agent.wait_samples(2)?;
        let lines = lines(agent, "clock.step")?;
        let line = lines.last().context("no clock.step")?;
        let told = unix_ns(&line["emitted_at"])?.cast_signed() - unix_ns(&line["stepped_from"])?.cast_signed();
        ensure!((told - by).abs() < APART_NS, "set by {by} ns, told {told}: {line}");
    }
    let length = length.end(agent, id)?;
    ensure!(lines(agent, "clock.step")?.len() == before + 3, "not one line a step");
    Ok(Verdict::Holds(format!("a VM of {length} ns over three steps")))
}

/// How long the host was suspended, by its own clocks.
fn asleep_ns() -> Result<u64> {
    // The one that runs behind first.
    let monotonic = clock_ns(ClockId::CLOCK_MONOTONIC)?;
    Ok(boot_ns()? - monotonic)
}

/// Suspended to memory, and woken by its own clock.
pub fn suspended(bench: &Bench) -> Result<Verdict> {
    let (agent, id) = (&bench.agent, "asleep");
    let states = fs::read_to_string("/sys/power/state").context("/sys/power/state cannot be read")?;
    ensure!(states.split_whitespace().any(|state| state == "mem"), "this machine cannot be suspended: {states:?}");
    let before = lines(agent, "host.suspend")?.len();
    let length = Length::begin(id)?;
    let asleep = asleep_ns()?;
    fs::write("/sys/class/rtc/rtc0/wakealarm", NAP).context("no alarm can be set")?;
    fs::write("/sys/power/state", "mem").context("the machine cannot be suspended")?;
    let slept = asleep_ns()? - asleep;
    ensure!(slept > 1_000_000_000, "it was not suspended: {slept} ns");
    agent.wait_samples(2)?;
    let lines = lines(agent, "host.suspend")?;
    ensure!(lines.len() == before + 1, "not one line: {lines:?}");
    let told = number(&lines[before]["suspended_ns"])?;
    ensure!(told.abs_diff(slept) < APART_NS.unsigned_abs(), "suspended for {slept} ns, told {told}");
    let length = length.end(agent, id)?;
    Ok(Verdict::Holds(format!("suspended for {told} ns, told {} ns apart; a VM of {length} ns", told.abs_diff(slept))))
}
