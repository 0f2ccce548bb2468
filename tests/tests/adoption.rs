//! Law: a VM that ran before the agent is adopted whole: its identity, its true start, all its CPU time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::Agent,
    clock::{CLOCK_PAIR_NS, tick_ns, unix_ns, unix_of},
    ledger::{number, of_process},
    process::{last_slices_ns, process_cpu_ns, settled_cpu_ns, stat, wait_zombie},
    skip::host,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;

const CPU: &str = "kvmeter_vm_cpu_seconds_total";
const RUNNING: &str = "kvmeter_vm_running";
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn vms_that_ran_before_the_agent_have_their_true_start_and_all_their_cpu_time() -> Result<()> {
    let Some(_host) = host("vms_that_ran_before_the_agent_have_their_true_start_and_all_their_cpu_time") else {
        return Ok(());
    };
    let shapes: [(&str, &[&str]); 6] = [
        ("old-idle", &[]),
        ("old-spin", &["--duty", "100"]),
        ("old-half", &["--duty", "25", "--vcpus", "2", "--workers", "3", "--worker-duty", "5"]),
        ("old-main", &["--duty", "20", "--main-vcpu"]),
        ("old-leader", &["--duty", "20", "--leader-exits"]),
        ("old-churn", &["--duty", "20", "--churn", "100"]),
    ];
    let mut vms = Vec::new();
    for (id, args) in shapes {
        vms.push((id, TestVm::start(&[&["--id", id], args].concat())?));
    }
    std::thread::sleep(Duration::from_millis(500));
    let agent = Agent::start()?;
    agent.wait_until("all of them", PATIENCE, |a| {
        let (lines, scrape) = (a.ledger()?, a.metrics()?);
        let shown = |vm: &TestVm| -> Option<bool> {
            let life = of_process(&lines, vm.pid()).ok()?;
            Some(scrape.one(RUNNING, &[("vm_id", life.start["vm_id"].as_str()?)]) == Some(1.0))
        };
        Ok(vms.iter().all(|(_, vm)| shown(vm) == Some(true)))
    })?;
    let before: Vec<_> = vms.iter().map(|(_, vm)| process_cpu_ns(vm.pid())).collect::<Result<_>>()?;
    agent.wait_samples(1)?;
    let scrape = agent.metrics()?;
    let lines = agent.ledger()?;
    for ((id, vm), before) in vms.iter().zip(before) {
        let life = of_process(&lines, vm.pid())?;
        let start_ns = number(&life.start["mono_ns"])?;
        assert_eq!(start_ns / tick_ns()?, stat(vm.pid(), 22)?, "{id}: its true start");
        assert!(unix_ns(&life.start["emitted_at"])?.abs_diff(unix_of(start_ns)?) < CLOCK_PAIR_NS, "{id}");
        assert_eq!(life.start.get("reason"), None, "{id}: nobody saw why it started");
        let vm_id = life.start["vm_id"].as_str().context("no vm_id")?;
        assert_eq!(scrape.one(RUNNING, &[("vm_id", vm_id)]), Some(1.0), "{id}");
        let (cpu, after) = (scrape.nanos(CPU, vm_id), process_cpu_ns(vm.pid())?);
        assert!(before <= cpu && cpu <= after + last_slices_ns(), "{id}: {before} <= {cpu} <= {after}");
    }
    assert_eq!(scrape.sum("kvmeter_vm_starts_total", &[]), 0.0, "adopted VMs are no starts");
    for (id, mut vm) in vms {
        vm.signal(Signal::SIGTERM)?;
        wait_zombie(vm.pid())?;
        let truth = settled_cpu_ns(vm.pid())?;
        vm.wait()?;
        agent.wait_until("its stop", PATIENCE, |a| Ok(of_process(&a.ledger()?, vm.pid())?.stop.is_some()))?;
        let life = of_process(&agent.ledger()?, vm.pid())?;
        let cpu = life.cpu_ns()?;
        eprintln!("{id}: CPU {cpu} ns, {} more than the process's clock", cpu.wrapping_sub(truth).cast_signed());
        assert!(truth <= cpu && cpu <= truth + last_slices_ns(), "{id}: CPU {cpu}, truth {truth}");
        let stop = life.stop.context("no stop")?;
        assert_eq!((&stop["time_quality"], &stop["cause"]), (&"exact".into(), &"signal".into()), "{id}");
        assert!(number(&stop["coverage"]["unobserved_ns"])? > 0, "{id}: nobody watched its beginning");
    }
    agent.verify()
}

#[test]
fn a_vm_whose_leader_has_ended_is_adopted_with_its_identity() -> Result<()> {
    let Some(_host) = host("a_vm_whose_leader_has_ended_is_adopted_with_its_identity") else { return Ok(()) };
    let vm = TestVm::start(&["--id", "headless", "--name", "its name", "--duty", "20", "--leader-exits"])?;
    std::thread::sleep(Duration::from_millis(100));
    let agent = Agent::start()?;
    agent.wait_until("its start", PATIENCE, |a| Ok(of_process(&a.ledger()?, vm.pid()).is_ok()))?;
    let life = of_process(&agent.ledger()?, vm.pid())?;
    assert_eq!((&life.start["vm_id"], &life.start["name"]), (&"headless".into(), &"its name".into()));
    Ok(())
}
