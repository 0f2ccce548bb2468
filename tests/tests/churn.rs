//! Law: the parts sum to the whole, however many threads come and go, and however many there are.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    bracket::moved,
    cgroup::Group,
    ledger::number,
    process::{settled_cpu_ns, wait_zombie},
    skip::{host, skipped},
    vmm::{schedstat, spawn::TestVm},
};
use nix::sys::signal::Signal;

const CPU: &str = "kvmeter_vm_cpu_seconds_total";
const RUNNING: &str = "kvmeter_vm_running";
const PATIENCE: Duration = Duration::from_secs(60);
/// What the kernel may charge a thread after the process's CPU clock has forgotten it; measured: 11 µs on average.
const LAST_SLICE_NS: u64 = 100_000;
/// What may run between two readings of a counter on all CPUs: the tick at which the scheduler brings it up to date.
const TICK_NS: u64 = 10_000_000;

#[test]
fn cpu_time_of_threads_that_come_and_go_is_neither_lost_nor_counted_twice() -> Result<()> {
    const NAME: &str = "cpu_time_of_threads_that_come_and_go_is_neither_lost_nor_counted_twice";
    const RATE: u64 = 500;
    let Some(_host) = host(NAME) else { return Ok(()) };
    let agent = Agent::start()?;
    let mut vm = TestVm::start(&["--id", "churn", "--duty", "100", "--vcpus", "2", "--churn", "500"])?;
    let (pid, began) = (vm.pid(), Instant::now());
    let group = Group::cpuacct("churn");
    match &group {
        Some(group) => group.add(pid)?,
        None => skipped(NAME, "no cpuacct control group: the upper bound is that of the CPU clock alone"),
    }
    agent.wait_until("the VM", PATIENCE, |a| Ok(a.metrics()?.one(RUNNING, &[("vm_id", "churn")]) == Some(1.0)))?;
    let first = moved(&agent, "churn", pid, group.as_ref())?;
    let mut last = first.told_ns;
    let over = Instant::now() + Duration::from_secs(10);
    while Instant::now() < over {
        let scrape = agent.metrics()?;
        let cpu = scrape.nanos(CPU, "churn");
        assert!(cpu >= last, "a counter fell from {last} to {cpu}");
        let own = scrape.one(CPU, &[("vm_id", "churn"), ("role", "vmm")]).context("no role")?;
        assert!(own > 0.0);
        last = cpu;
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = moved(&agent, "churn", pid, group.as_ref())?;
    let threads = RATE * (began.elapsed().as_secs() + 1);
    for at in [&first, &second] {
        let (before, after) = at.clock_ns;
        let most = after + threads * LAST_SLICE_NS;
        assert!(before <= at.told_ns && at.told_ns <= most, "{before} <= {} <= {most}", at.told_ns);
    }
    let grown = second.told_ns - first.told_ns;
    let clock = second.clock_ns.1 - first.clock_ns.1;
    eprintln!("grown by {grown} ns, {} more than the CPU clock", grown.wrapping_sub(clock).cast_signed());
    if group.is_some() {
        let least = second.group_ns.0.saturating_sub(first.group_ns.1);
        let most = second.group_ns.1 - first.group_ns.0;
        eprintln!("the control group grew by {least} to {most} ns");
        assert!(least <= grown + TICK_NS && grown <= most + TICK_NS, "{least} <= {grown} <= {most}");
    }
    let scrape = agent.metrics()?;
    assert_eq!(scrape.sum("kvmeter_sample_errors_total", &[("source", "regression")]), 0.0);

    vm.signal(Signal::SIGTERM)?;
    wait_zombie(pid)?;
    let truth = settled_cpu_ns(pid)?;
    vm.wait()?;
    let life = agent.ended("churn")?;
    let cpu = number(&life.stop.context("no stop")?["usage"]["cpu_ns"])?;
    eprintln!("at the end {} ns more than the CPU clock", cpu.wrapping_sub(truth).cast_signed());
    assert!(truth <= cpu && cpu <= truth + threads * LAST_SLICE_NS, "CPU {cpu}, truth {truth}");
    agent.verify()
}

#[test]
fn more_threads_than_the_kernel_walks_are_accounted_after_the_next_reconcile() -> Result<()> {
    let Some(_host) = host("more_threads_than_the_kernel_walks_are_accounted_after_the_next_reconcile") else {
        return Ok(());
    };
    let config = "[discovery]\nscan_interval = \"1s\"\n".to_owned();
    let agent = Agent::with(Setup { config, ..Setup::default() })?;
    let args = ["--id", "crowd", "--duty", "10", "--workers", "100", "--worker-duty", "1", "--vcpus", "2"];
    let mut vm = TestVm::start(&args)?;
    let pid = vm.pid();
    agent.wait_until("the VM", PATIENCE, |a| Ok(a.metrics()?.one(RUNNING, &[("vm_id", "crowd")]) == Some(1.0)))?;
    let early = agent.metrics()?.nanos(CPU, "crowd");
    eprintln!("before a reconcile {early} ns of {}", schedstat::sum(pid)?.run_ns);
    // A reconcile, and a sample after it.
    agent.wait_until("all threads to be accounted", PATIENCE, |a| {
        let before = schedstat::sum(pid)?.run_ns;
        a.wait_samples(1)?;
        Ok(a.metrics()?.nanos(CPU, "crowd") >= before)
    })?;
    for _ in 0..3 {
        let before = schedstat::sum(pid)?;
        agent.wait_samples(1)?;
        let scrape = agent.metrics()?;
        let (cpu, after) = (scrape.nanos(CPU, "crowd"), schedstat::sum(pid)?);
        assert!(before.run_ns <= cpu && cpu <= after.run_ns, "{} <= {cpu} <= {}", before.run_ns, after.run_ns);
    }
    vm.signal(Signal::SIGTERM)?;
    wait_zombie(pid)?;
    let truth = settled_cpu_ns(pid)?;
    vm.wait()?;
    let life = agent.ended("crowd")?;
    let cpu = number(&life.stop.context("no stop")?["usage"]["cpu_ns"])?;
    eprintln!("at the end {} ns more than the CPU clock", cpu.wrapping_sub(truth).cast_signed());
    assert!(truth <= cpu && cpu <= truth + 103 * LAST_SLICE_NS, "CPU {cpu}, truth {truth}");
    agent.verify()
}
