//! A VM's life in the ledger: one that begins and ends in sight of the agent, and one the agent finds running.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::check::{Bench, Verdict};
use crate::{
    agent::Agent,
    clock::tick_ns,
    ledger::{Life, number, of_process},
    process::{last_slices_ns, process_cpu_ns, settled_cpu_ns, stat, wait_zombie},
    vmm::spawn::{self, TestVm},
};

/// How a VM is told to end, and what the ledger must call that.
const ENDS: [(&str, &[&str], &str, &str); 3] = [
    ("coded", &["--end", "exit=3"], "exit", "stop-crash"),
    ("killed", &["--end", "sigkill"], "signal", "stop-crash"),
    ("faulted", &["--end", "triple-fault"], "guest-crash", "stop-crash"),
];

/// Start, stop, reason, CPU time.
pub fn short(bench: &Bench) -> Result<Verdict> {
    let agent = &bench.agent;
    let mut told = Vec::new();
    for (id, end, cause, reason) in ENDS {
        let mut command = Command::new(spawn::binary()?);
        command.args(["--id", id, "--duty", "50", "--lifetime", "300ms"]).args(end).stdin(Stdio::null());
        let mut vm = command.spawn()?;
        let pid = vm.id().cast_signed();
        let tick = stat(pid, 22)?;
        wait_zombie(pid)?;
        let truth = settled_cpu_ns(pid)?;
        vm.wait()?;
        let life = agent.ended(id)?;
        ensure!(number(&life.start["mono_ns"])? / tick_ns()? == tick, "{id}: not the process's start");
        let stop = life.stop.as_ref().context("no stop")?;
        ensure!(stop["cause"] == cause && stop["reason"] == reason, "{id}: {stop}");
        let more = charged(&life, truth)?;
        told.push(format!("{id}: {cause}, CPU {truth} ns + {more}"));
    }
    agent.verify()?;
    Ok(Verdict::Holds(told.join("; ")))
}

/// Signals of this process, by its id and name; the guest's last words, which on x86 need Hyper-V's registers or none.
pub fn ended_by(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = bench.programs.absence("signal_generate") {
        return Ok(Verdict::Absent(why));
    }
    let agent = &bench.agent;
    let (me, name) = (std::process::id().to_string(), std::fs::read_to_string("/proc/self/comm")?);
    for (id, signal, reason) in [("sent-9", Signal::SIGKILL, "stop-crash"), ("sent-15", Signal::SIGTERM, "stop-user")] {
        let mut vm = TestVm::start(&["--id", id, "--duty", "20"])?;
        vm.signal(signal)?;
        vm.wait()?;
        let stop = agent.stop_line(id)?;
        let evidence = &stop["evidence"];
        ensure!(stop["cause"] == "signal" && stop["reason"] == reason, "{id}: {stop}");
        ensure!(evidence["killer_pid"] == me && evidence["killer_comm"] == name.trim_end(), "{id}: not {me}: {stop}");
    }
    for (id, end, cause, exit) in [
        ("astray", "internal-error", "guest-crash", "KVM_EXIT_INTERNAL_ERROR"),
        ("asks", "system-event", "guest-shutdown", "KVM_EXIT_SYSTEM_EVENT"),
    ] {
        let args = ["--id", id, "--duty", "50", "--lifetime", "300ms", "--end", end];
        let code = Command::new(spawn::binary()?).args(args).stdin(Stdio::null()).status()?.code();
        ensure!(code == Some(0), "{id}: the VMM ended with {code:?}");
        let stop = agent.stop_line(id)?;
        ensure!(stop["cause"] == cause && stop["evidence"]["kvm_exit"] == exit, "{id}: {stop}");
    }
    agent.verify()?;
    Ok(Verdict::Holds(format!("SIGKILL and SIGTERM by process {me}, an internal error, a system event")))
}

/// An agent that comes later.
pub fn adopted(_bench: &Bench) -> Result<Verdict> {
    let mut vm =
        TestVm::start(&["--id", "old", "--duty", "20", "--vcpus", "2", "--workers", "1", "--worker-duty", "5"])?;
    std::thread::sleep(Duration::from_millis(500));
    let before = process_cpu_ns(vm.pid())?;
    let agent = Agent::start()?;
    agent.wait_samples(1)?;
    let seen = agent.metrics()?.nanos("kvmeter_vm_cpu_seconds_total", "old");
    ensure!(seen >= before, "{seen} ns told, {before} ns were run before the agent came");
    let tick = stat(vm.pid(), 22)?;
    vm.signal(nix::sys::signal::Signal::SIGTERM)?;
    wait_zombie(vm.pid())?;
    let truth = settled_cpu_ns(vm.pid())?;
    vm.wait()?;
    agent.stop_line("old")?;
    let life = of_process(&agent.ledger()?, vm.pid())?;
    ensure!(number(&life.start["mono_ns"])? / tick_ns()? == tick, "not the process's start");
    let more = charged(&life, truth)?;
    agent.verify()?;
    Ok(Verdict::Holds(format!("{before} ns run before the agent, CPU {truth} ns + {more}")))
}

/// How much more the ledger charges than the process's clock, within its bound.
fn charged(life: &Life, truth: u64) -> Result<u64> {
    let cpu = life.cpu_ns()?;
    ensure!(truth <= cpu && cpu <= truth + last_slices_ns(), "CPU {cpu} ns charged, the process's clock {truth} ns");
    Ok(cpu - truth)
}
