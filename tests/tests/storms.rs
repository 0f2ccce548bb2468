//! Laws: state lives in maps and the dead are still charged: whatever storm of processes, of VMs or of lost wake-ups passes,
//! each VM that ran has one start and one stop, all of them have the CPU time that the kernel counts, and there is no other.
//!
//! The long forms are those that `cargo xtask storms` runs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::lives,
    skip::{host, skipped},
    storm::{Accounted, Processes, Report, created},
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(300);
/// Nobody is shown for longer than it lives: ten thousand would be.
const CONFIG: &str = "[metrics]\nlinger = \"0s\"\n[discovery]\nscan_interval = \"1s\"\n";
/// rusage counts whole microseconds.
const ROUNDING_NS: u64 = 2_000;
const NO_GROUP: &str = "no cpuacct control group: CPU time is held against that of each process alone";

/// What an agent tells of a burst.
#[derive(Debug)]
struct Told {
    starts: u64,
    unrun: u64,
    cpu_ns: u64,
}

fn count(agent: &Agent, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole count")]
    let whole = |value: f64| value as u64;
    agent.metrics()?.one(name, labels).map(whole).with_context(|| format!("no {name}"))
}

/// What is told of a burst once all of it is: each VM that ran once, started and stopped, with the CPU time it had.
fn told(agent: &Agent, report: &Report) -> Result<Told> {
    const LINES: &str = "kvmeter_ledger_records_total";
    let due = report.vms.len() as u64;
    agent.wait_until("each VM to be told or to be counted as one that never ran", PATIENCE, |a| {
        let stops = count(a, LINES, &[("kind", "vm.compute.stop")])?;
        Ok(stops + count(a, "kvmeter_unrun_vms_total", &[])? >= due)
    })?;
    let lives = lives(&agent.ledger()?)?;
    let mut told = Told { starts: 0, unrun: count(agent, "kvmeter_unrun_vms_total", &[])?, cpu_ns: 0 };
    let by_id: std::collections::BTreeMap<_, _> =
        lives.values().map(|life| (life.start["vm_id"].as_str().unwrap_or_default(), life)).collect();
    assert_eq!(by_id.len(), lives.len(), "a vm_id lived twice");
    for vm in &report.vms {
        let id = vm["id"].as_str().context("no id")?;
        let Some(life) = by_id.get(id) else { continue };
        let stop = life.stop.as_ref().with_context(|| format!("no stop of {id}"))?;
        let (cpu, used) = (life.cpu_ns()?, vm["cpu_us"].as_u64().context("no cpu_us")? * 1_000);
        ensure!(used <= cpu + ROUNDING_NS, "{id}: CPU {cpu}, rusage {used}");
        ensure!(stop["time_quality"] == "exact" && life.start["time_quality"] == "exact", "{id}: {stop}");
        told.starts += 1;
        told.cpu_ns += cpu;
    }
    assert_eq!(told.starts, lives.len() as u64, "lines of VMs that nobody started");
    for kind in ["vm.compute.start", "vm.compute.stop"] {
        assert_eq!(count(agent, LINES, &[("kind", kind)])?, told.starts, "{kind}");
    }
    Ok(told)
}

fn nothing_was_lost(agent: &Agent) -> Result<()> {
    let scrape = agent.metrics()?;
    let lost: Vec<_> = scrape.all("kvmeter_events_lost_total", &[]).filter(|series| series.value > 0.0).collect();
    ensure!(lost.is_empty(), "{lost:?}");
    agent.verify()
}

fn vms_among_processes(test: &str, forks: u64, execs: u64, vms: u32) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        skipped(test, "its smallest program is one for x86-64");
        return Ok(());
    }
    let Some(_host) = host(test) else { return Ok(()) };
    let before = created()?;
    let agent = Agent::with(Setup::of(CONFIG))?;
    let began = Instant::now();
    let processes = Processes::start(forks, execs)?;
    // The vCPU itself ends each VM, so every one of them has run.
    let burst = Accounted::start("among", vms, 8, &["--id", "s", "--lifetime", "3ms", "--end", "halt"])?;
    let report = burst.finish()?;
    let vms_took = began.elapsed();
    processes.wait()?;
    let took = began.elapsed();
    let told = told(&agent, &report)?;
    nothing_was_lost(&agent)?;
    let made = created()? - before - 1;
    println!(
        "{forks} fork/exit and {execs} exec/exit in {took:.1?}, {made} VMs made among them in {vms_took:.1?}: {told:?}"
    );
    println!("the kernel counts {:?} ns of CPU time in the VMs' group", report.cpu_ns);
    assert_eq!((made, told.starts, told.unrun), (vms.into(), vms.into(), 0));
    match report.cpu_ns {
        Some(cpu_ns) => assert_eq!(told.cpu_ns, cpu_ns, "the stop lines' CPU time, and the kernel's"),
        None => skipped(test, NO_GROUP),
    }
    Ok(())
}

#[test]
fn vms_among_processes_that_come_and_go_are_told_and_charged_as_the_kernel_counts_them() -> Result<()> {
    const TEST: &str = "vms_among_processes_that_come_and_go_are_told_and_charged_as_the_kernel_counts_them";
    vms_among_processes(TEST, 10_000, 1_000, 60)
}

#[test]
#[ignore = "takes minutes; cargo xtask storms runs it"]
fn long_form_of_vms_among_processes() -> Result<()> {
    vms_among_processes("long_form_of_vms_among_processes", 1_000_000, 100_000, 15_000)
}

fn vms_of_a_millisecond(test: &str, vms: u32) -> Result<()> {
    let Some(_host) = host(test) else { return Ok(()) };
    let before = created()?;
    let agent = Agent::with(Setup::of(CONFIG))?;
    let began = Instant::now();
    let args = ["--id", "ms", "--duty", "50", "--lifetime", "1ms", "--end", "exit0"];
    let report = Accounted::start("short", vms, 8, &args)?.finish()?;
    let took = began.elapsed();
    let told = told(&agent, &report)?;
    nothing_was_lost(&agent)?;
    let made = created()? - before - 1;
    println!("{made} VMs of a millisecond in {took:.1?}: {told:?}; {:?} ns by the kernel", report.cpu_ns);
    assert_eq!(
        (made, told.starts + told.unrun),
        (vms.into(), vms.into()),
        "VMs that KVM made, and those that are told"
    );
    match report.cpu_ns {
        // Those that never ran have no line, and had a little.
        Some(cpu_ns) if told.unrun > 0 => assert!(told.cpu_ns < cpu_ns, "{} of {cpu_ns}", told.cpu_ns),
        Some(cpu_ns) => assert_eq!(told.cpu_ns, cpu_ns),
        None => skipped(test, NO_GROUP),
    }
    Ok(())
}

#[test]
fn vms_of_a_millisecond_are_told_or_counted_as_kvm_made_them() -> Result<()> {
    vms_of_a_millisecond("vms_of_a_millisecond_are_told_or_counted_as_kvm_made_them", 300)
}

#[test]
#[ignore = "takes minutes; cargo xtask storms runs it"]
fn long_form_of_vms_of_a_millisecond() -> Result<()> {
    vms_of_a_millisecond("long_form_of_vms_of_a_millisecond", 10_000)
}

/// The agent stands still while its ring of wake-ups, a page, overflows.
fn wake_ups_that_find_no_room(test: &str, vms: u32, at_least: Duration) -> Result<()> {
    let Some(_host) = host(test) else { return Ok(()) };
    let agent = Agent::with(Setup::of(&format!("{CONFIG}[bpf]\nwake_bytes = 4096\n")))?;
    agent.signal(Signal::SIGSTOP)?;
    let began = Instant::now();
    let args = ["--id", "w", "--lifetime", "3ms", "--end", "halt"];
    let report = Accounted::start("unwoken", vms, 8, &args)?.finish()?;
    std::thread::sleep(at_least.saturating_sub(began.elapsed()));
    let stood = began.elapsed();
    agent.signal(Signal::SIGCONT)?;
    let back = Instant::now();
    let told = told(&agent, &report)?;
    println!(
        "after {stood:.1?} without an agent that takes wake-ups all is told {:.1?} later: {told:?}",
        back.elapsed()
    );
    assert_eq!((told.starts, told.unrun), (vms.into(), 0));
    let wakes = |agent: &Agent| -> Result<(u64, u64, u64)> {
        let status = agent.json("/v1/status")?;
        let of = |value: &serde_json::Value| value.as_u64().context("no count of wake-ups");
        let wakes = &status["wake_ups"];
        Ok((of(&wakes["produced"])?, of(&wakes["received"])?, of(&status["losses"]["wake"])?))
    };
    agent.wait_until("produced = received + lost", PATIENCE, |a| {
        let (produced, received, lost) = wakes(a)?;
        Ok(produced == received + lost)
    })?;
    let (produced, received, lost) = wakes(&agent)?;
    println!("{produced} wake-ups produced, {received} received, {lost} found no room");
    // One when it is seen, one when it exits.
    assert!(produced >= 2 * u64::from(vms) && lost > 0, "{produced} {received} {lost}: nothing was tested");
    match report.cpu_ns {
        Some(cpu_ns) => assert_eq!(told.cpu_ns, cpu_ns, "the stop lines' CPU time, and the kernel's"),
        None => skipped(test, NO_GROUP),
    }
    agent.verify()
}

#[test]
fn wake_ups_that_find_no_room_are_counted_and_cost_no_fact() -> Result<()> {
    wake_ups_that_find_no_room("wake_ups_that_find_no_room_are_counted_and_cost_no_fact", 150, Duration::ZERO)
}

#[test]
#[ignore = "takes minutes; cargo xtask storms runs it"]
fn long_form_of_wake_ups_that_find_no_room() -> Result<()> {
    wake_ups_that_find_no_room("long_form_of_wake_ups_that_find_no_room", 1_000, Duration::from_secs(10))
}
