//! Law: the parts sum to the whole, and a part is what its threads are: a VMM's I/O threads and the kernel's I/O workers
//! are told apart from the rest of it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::Agent,
    bracket::moved,
    cgroup::Group,
    skip::{host, skipped},
    vmm::{schedstat, spawn::TestVm, uring},
};

const CPU: &str = "kvmeter_vm_cpu_seconds_total";
const PATIENCE: Duration = Duration::from_secs(60);
const ROLES: [&str; 4] = ["vcpu", "vmm", "io", "vhost"];
/// A name the kernel cuts to `qemu-system-x86`, which is how QEMU's threads are known as a QEMU's.
const QEMU: &str = "qemu-system-x86_64";
const IO: &str = "IO iothread0";
/// What a thread may run before it has given itself its name, which stays with the role it had until then.
const UNNAMED_NS: u64 = 1_000_000;
/// What the kernel may charge a thread after the process's CPU clock has forgotten it; measured: 11 µs on average.
const LAST_SLICE_NS: u64 = 100_000;
/// What may run between two readings of a counter on all CPUs: the tick at which the scheduler brings it up to date.
const TICK_NS: u64 = 10_000_000;

/// CPU time of a VM by role, each series rounded to the nanosecond it stands for.
fn by_role(agent: &Agent, id: &str) -> Result<BTreeMap<String, u64>> {
    let scrape = agent.metrics()?;
    let roles: Vec<_> = scrape.all(CPU, &[("vm_id", id)]).map(|series| series.labels["role"].clone()).collect();
    let of = |role: String| {
        assert!(ROLES.contains(&role.as_str()), "an unknown role: {role}");
        let value = scrape.one(CPU, &[("vm_id", id), ("role", &role)]).context("a role is there twice")?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, never negative")]
        Ok((role, (value * 1e9).round() as u64))
    };
    roles.into_iter().map(of).collect()
}

/// CPU time of a process's living threads: of those whose name begins so, and of the others but its vCPUs.
fn truth(vm: &TestVm, prefix: &str) -> Result<(u64, u64)> {
    let (mut named, mut others) = (0, 0);
    for (tid, stat) in schedstat::per_thread(vm.pid())? {
        let name = std::fs::read_to_string(format!("/proc/{}/task/{tid}/comm", vm.pid()));
        // One that ended in between is in no reading.
        match name {
            Ok(name) if name.starts_with(prefix) => named += stat.run_ns,
            Ok(_) if !vm.vcpu_tids().contains(&tid) => others += stat.run_ns,
            _ => {}
        }
    }
    Ok((named, others))
}

#[test]
fn a_thread_named_as_its_vmms_io_is_told_as_io() -> Result<()> {
    let Some(_host) = host("a_thread_named_as_its_vmms_io_is_told_as_io") else { return Ok(()) };
    let agent = Agent::start()?;
    let args = ["--name", "io", "--duty", "20", "--worker-duty", "30", "--named-worker", IO, "--named-worker", "VNC"];
    let vm = TestVm::start_as(QEMU, &args)?;
    agent.wait_vms(&["io"])?;
    for _ in 0..5 {
        let before = truth(&vm, IO)?;
        agent.wait_samples(1)?;
        let roles = by_role(&agent, "io")?;
        let after = truth(&vm, IO)?;
        let (io, vmm) = (*roles.get("io").context("no role io")?, *roles.get("vmm").context("no role vmm")?);
        assert!(before.0 <= io + UNNAMED_NS && io <= after.0, "io {} <= {io} <= {}", before.0, after.0);
        assert!(before.1 <= vmm && vmm <= after.1 + UNNAMED_NS, "vmm {} <= {vmm} <= {}", before.1, after.1);
    }
    Ok(())
}

#[test]
fn a_thread_that_had_its_name_before_the_agent_came_is_told_as_io_from_then_on() -> Result<()> {
    const TEST: &str = "a_thread_that_had_its_name_before_the_agent_came_is_told_as_io_from_then_on";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let vm = TestVm::start_as(QEMU, &["--name", "old", "--worker-duty", "30", "--named-worker", IO])?;
    let agent = Agent::start()?;
    agent.wait_vms(&["old"])?;
    agent.wait_samples(1)?;
    let io = |agent: &Agent| Ok::<_, anyhow::Error>(by_role(agent, "old")?.get("io").copied().unwrap_or(0));
    let before = truth(&vm, IO)?.0;
    agent.wait_samples(1)?;
    let (first, between) = (io(&agent)?, truth(&vm, IO)?.0);
    std::thread::sleep(Duration::from_secs(2));
    let until = truth(&vm, IO)?.0;
    agent.wait_samples(1)?;
    let (grown, after) = (io(&agent)? - first, truth(&vm, IO)?.0);
    assert!(
        until - between <= grown && grown <= after - before,
        "{} <= {grown} <= {}",
        until - between,
        after - before
    );
    Ok(())
}

/// Brings the CPU time of each thread that begins so up to date, and sums it up with that of those that have ended.
fn with_the_dead(vm: &TestVm, prefix: &str, seen: &mut BTreeMap<i32, u64>) -> Result<u64> {
    for (tid, stat) in schedstat::per_thread(vm.pid())? {
        let name = std::fs::read_to_string(format!("/proc/{}/task/{tid}/comm", vm.pid()));
        if name.is_ok_and(|name| name.starts_with(prefix)) {
            seen.insert(tid, stat.run_ns);
        }
    }
    Ok(seen.values().sum())
}

#[test]
fn io_uring_workers_are_told_as_io() -> Result<()> {
    const TEST: &str = "io_uring_workers_are_told_as_io";
    if let Some(why) = uring::refusal() {
        skipped(TEST, &why);
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = TestVm::start(&["--id", "ring", "--duty", "20", "--io-uring"])?;
    agent.wait_vms(&["ring"])?;
    let mut seen = BTreeMap::new();
    agent.wait_until("a worker to run", PATIENCE, |_| Ok(with_the_dead(&vm, "iou-wrk-", &mut seen)? > 0))?;
    for _ in 0..7 {
        let before = with_the_dead(&vm, "iou-wrk-", &mut seen)?;
        agent.wait_samples(1)?;
        let roles = by_role(&agent, "ring")?;
        let after = with_the_dead(&vm, "iou-wrk-", &mut seen)?;
        let io = *roles.get("io").context("no role io")?;
        // The kernel names a worker when it first runs, and ends one that has had nothing to do for five seconds.
        assert!(before <= io + UNNAMED_NS && io <= after + UNNAMED_NS, "{before} <= {io} <= {after}");
    }
    Ok(())
}

#[test]
fn roles_sum_to_what_the_scheduler_accounted_under_churn() -> Result<()> {
    const TEST: &str = "roles_sum_to_what_the_scheduler_accounted_under_churn";
    const RATE: u64 = 300;
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let mut args = vec!["--name", "mixed", "--duty", "30", "--vcpus", "2", "--workers", "3", "--worker-duty", "10"];
    args.extend(["--named-worker", IO, "--churn", "300"]);
    match uring::refusal() {
        None => args.push("--io-uring"),
        Some(why) => skipped(TEST, &format!("without io_uring workers: {why}")),
    }
    // Before the VM, so that it is removed after it.
    let group = Group::cpuacct("roles");
    let vm = TestVm::start_as(QEMU, &args)?;
    let (pid, began) = (vm.pid(), Instant::now());
    match &group {
        Some(group) => group.add(pid)?,
        None => skipped(TEST, "no cpuacct control group: the upper bound is that of the CPU clock alone"),
    }
    agent.wait_vms(&["mixed"])?;
    let first = moved(&agent, "mixed", pid, group.as_ref())?;
    let mut last = BTreeMap::new();
    let over = Instant::now() + Duration::from_secs(6);
    while Instant::now() < over {
        let now = by_role(&agent, "mixed")?;
        for (role, ns) in &last {
            assert!(now.get(role) >= Some(ns), "{role} fell from {ns} to {:?}", now.get(role));
        }
        last = now;
        std::thread::sleep(Duration::from_millis(20));
    }
    for role in ["vcpu", "vmm", "io"] {
        assert!(last.get(role) > Some(&0), "no {role}: {last:?}");
    }
    let second = moved(&agent, "mixed", pid, group.as_ref())?;
    let threads = RATE * (began.elapsed().as_secs() + 1);
    for at in [&first, &second] {
        let ((before, after), most) = (at.clock_ns, at.clock_ns.1 + threads * LAST_SLICE_NS);
        assert!(before <= at.told_ns && at.told_ns <= most, "{before} <= {} <= {after}", at.told_ns);
    }
    if group.is_some() {
        let grown = second.told_ns - first.told_ns;
        let least = second.group_ns.0.saturating_sub(first.group_ns.1);
        let most = second.group_ns.1 - first.group_ns.0;
        eprintln!("the roles grew by {grown} ns, the control group by {least} to {most}");
        assert!(least <= grown + TICK_NS && grown <= most + TICK_NS, "{least} <= {grown} <= {most}");
    }
    Ok(())
}
