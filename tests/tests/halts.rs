//! Law: the kernel's own numbers are shown, not derived: time halted and polled is what `kvm_vcpu_wakeup` told.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::Agent,
    skip::{host, skipped},
    trace::Trace,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;

const HALTED: &str = "kvmeter_vm_halted_seconds_total";
const POLLED: &str = "kvmeter_vm_halt_poll_seconds_total";
const RUNNING: &str = "kvmeter_vm_running";
const PATIENCE: Duration = Duration::from_secs(60);

/// What the trace tells of these threads: nanoseconds halted, and how many of them were spent polling with success.
fn told(trace: &Trace, tids: &[i32]) -> Result<(u64, u64)> {
    let (mut halted, mut polled) = (0, 0);
    for record in trace.records()?.iter().filter(|record| tids.contains(&record.tid)) {
        let mut words = record.text.split(' ');
        let (kind, ns) = (words.next(), words.nth(1).context("no time")?.parse::<u64>()?);
        halted += ns;
        polled += if kind == Some("poll") { ns } else { 0 };
    }
    Ok((halted, polled))
}

fn start_trace(test: &str) -> Option<Trace> {
    match Trace::start("halts", &["kvm_vcpu_wakeup"]) {
        Ok(trace) => Some(trace),
        Err(error) => {
            skipped(test, &format!("no trace of kvm_vcpu_wakeup: {error:#}"));
            None
        }
    }
}

#[test]
fn time_halted_and_polled_is_what_kvm_itself_told() -> Result<()> {
    const TEST: &str = "time_halted_and_polled_is_what_kvm_itself_told";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(trace) = start_trace(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    // Long halts end in a wait; short ones make KVM poll for longer and longer, until it polls with success.
    let mut vms = [
        ("dozes", TestVm::start(&["--id", "dozes", "--halts", "100", "--duty", "5", "--vcpus", "2"])?),
        ("naps", TestVm::start(&["--id", "naps", "--halts", "4000"])?),
    ];
    agent.wait_vms(&["dozes", "naps"])?;
    for _ in 0..4 {
        let before = vms.iter().map(|(_, vm)| told(&trace, vm.vcpu_tids())).collect::<Result<Vec<_>>>()?;
        agent.wait_samples(1)?;
        let scrape = agent.metrics()?;
        for ((id, vm), (halted, polled)) in vms.iter().zip(before) {
            let after = told(&trace, vm.vcpu_tids())?;
            let shown = (scrape.nanos(HALTED, id), scrape.nanos(POLLED, id));
            assert!(halted <= shown.0 && shown.0 <= after.0, "{id}: halted {halted} <= {} <= {}", shown.0, after.0);
            assert!(polled <= shown.1 && shown.1 <= after.1, "{id}: polled {polled} <= {} <= {}", shown.1, after.1);
        }
    }
    for (id, vm) in &mut vms {
        vm.signal(Signal::SIGKILL)?;
        vm.wait()?;
        agent.wait_until("its end", PATIENCE, |a| Ok(a.metrics()?.one(RUNNING, &[("vm_id", id)]) == Some(0.0)))?;
        let (halted, polled) = told(&trace, vm.vcpu_tids())?;
        eprintln!("{id}: halted {halted} ns, polled {polled} ns");
        assert!(halted > 0, "{id} never halted: nothing was tested");
        let scrape = agent.metrics()?;
        assert_eq!((scrape.nanos(HALTED, id), scrape.nanos(POLLED, id)), (halted, polled), "{id}");
    }
    Ok(())
}

#[test]
fn a_halt_before_anything_else_was_heard_of_a_vcpu_is_counted() -> Result<()> {
    const TEST: &str = "a_halt_before_anything_else_was_heard_of_a_vcpu_is_counted";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(trace) = start_trace(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    for number in 0..10 {
        let id = format!("dozes-{number}");
        let args = ["--id", &id, "--halts", "100", "--duty", "1", "--vcpus", "4", "--lifetime", "200ms"];
        let mut vm = TestVm::start(&args)?;
        vm.wait()?;
        agent.wait_ended(&[&id])?;
        let (halted, polled) = told(&trace, vm.vcpu_tids())?;
        assert!(halted > 0, "{id} never halted: nothing was tested");
        let scrape = agent.metrics()?;
        assert_eq!((scrape.nanos(HALTED, &id), scrape.nanos(POLLED, &id)), (halted, polled), "{id}");
    }
    Ok(())
}

#[test]
fn a_vm_that_sleeps_in_its_vmm_never_halted() -> Result<()> {
    const TEST: &str = "a_vm_that_sleeps_in_its_vmm_never_halted";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let _vm = TestVm::start(&["--id", "awake", "--duty", "10"])?;
    agent.wait_vms(&["awake"])?;
    agent.wait_samples(2)?;
    let scrape = agent.metrics()?;
    // The hook is at work and told nothing: that is a measured zero.
    assert_eq!(scrape.one(HALTED, &[("vm_id", "awake")]), Some(0.0));
    assert_eq!(scrape.one(POLLED, &[("vm_id", "awake")]), Some(0.0));
    Ok(())
}
