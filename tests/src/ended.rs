//! The truth about a VM that a test ends, and a life in a ledger held against it.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::{
    clock::{boot_ns, unix_ns, unix_of},
    ledger::{Life, number},
    process::{settled_cpu_ns, stat, wait_zombie},
    vmm::spawn::TestVm,
};

/// A clock tick of `/proc`, and what lies between two readings of clocks.
const TICK_NS: u64 = 10_000_000;

/// A VM's end, as the kernel tells it from outside: the process's own CPU clock, and between which instants it ended.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    cpu_ns: u64,
    ended: (u64, u64),
    start_ticks: u64,
}

/// Ends a VM by SIGTERM and reaps it.
pub fn end(vm: &mut TestVm) -> Result<Truth> {
    let start_ticks = stat(vm.pid(), 22)?;
    let before = boot_ns()?;
    vm.signal(Signal::SIGTERM)?;
    let after = wait_zombie(vm.pid())?;
    let cpu_ns = settled_cpu_ns(vm.pid())?;
    vm.wait()?;
    Ok(Truth { cpu_ns, ended: (before, after), start_ticks })
}

/// Holds a life against the truth: all its CPU time, up to `more_ns` that the process's clock has forgotten, its end to the instant, its start to the tick, all of it watched.
pub fn hold(id: &str, life: &Life, truth: &Truth, more_ns: u64) -> Result<()> {
    let (cpu, stop) = (life.cpu_ns()?, life.stop.as_ref().context("no stop")?);
    eprintln!("{id}: CPU {cpu} ns, {} more than the process's clock", cpu.wrapping_sub(truth.cpu_ns).cast_signed());
    ensure!(truth.cpu_ns <= cpu && cpu <= truth.cpu_ns + more_ns, "{id}: CPU {cpu}, truth {}", truth.cpu_ns);
    ensure!(stop["time_quality"] == "exact" && life.start["time_quality"] == "exact", "{id}: {stop}");
    ensure!(stop["reason"] == "stop-user" && stop["cause"] == "signal", "{id}: {stop}");
    let (ended, started) = (number(&stop["mono_ns"])?, number(&life.start["mono_ns"])?);
    ensure!(truth.ended.0 <= ended && ended <= truth.ended.1, "{id}: ended at {ended}, between {:?}", truth.ended);
    ensure!(started / TICK_NS == truth.start_ticks, "{id}: started at {started}, tick {}", truth.start_ticks);
    let at = unix_ns(&stop["emitted_at"])?;
    ensure!(at.abs_diff(unix_of(ended)?) < TICK_NS, "{id}: {at} is not when it ended");
    Ok(())
}
