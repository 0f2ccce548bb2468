//! Law: the parts sum to the whole, and the whole is what the scheduler itself accounted.

use std::time::Duration;

use anyhow::{Result, bail};
use kvmeter_tests::{
    agent::Agent,
    bracket::{cpu_is_bracketed, told},
    skip::{host, in_full},
    vmm::{schedstat, spawn::TestVm},
};
use nix::sys::signal::Signal;

fn wait_seen(agent: &Agent, vm_id: &str) -> Result<()> {
    agent.wait_until(vm_id, Duration::from_secs(60), |a| {
        Ok(a.metrics()?.one("kvmeter_vm_running", &[("vm_id", vm_id)]) == Some(1.0))
    })
}

#[test]
fn cpu_time_lies_between_two_readings_of_the_scheduler() -> Result<()> {
    let Some(_host) = host("cpu_time_lies_between_two_readings_of_the_scheduler") else { return Ok(()) };
    let agent = Agent::start()?;
    let vms = [
        ("spin", TestVm::start(&["--id", "spin", "--duty", "100"])?),
        ("half", TestVm::start(&["--id", "half", "--duty", "50", "--vcpus", "2"])?),
        (
            "many",
            TestVm::start(&["--id", "many", "--duty", "20", "--vcpus", "4", "--workers", "8", "--worker-duty", "5"])?,
        ),
    ];
    for (id, _) in &vms {
        wait_seen(&agent, id)?;
    }
    // A minute of samples where somebody asks for the long form.
    let samples = if in_full() { 60 } else { 5 };
    let vms = vms.iter().map(|(id, vm)| (*id, vm)).collect::<Vec<_>>();
    cpu_is_bracketed(&agent, &vms, samples)
}

#[test]
fn stopped_threads_are_accounted_to_the_nanosecond() -> Result<()> {
    let Some(_host) = host("stopped_threads_are_accounted_to_the_nanosecond") else { return Ok(()) };
    let agent = Agent::start()?;
    let vm =
        TestVm::start(&["--id", "parked", "--duty", "60", "--vcpus", "2", "--workers", "2", "--worker-duty", "10"])?;
    wait_seen(&agent, "parked")?;
    vm.signal(Signal::SIGSTOP)?;
    // A thread stops when it next has a CPU: that it uses nothing more is waited for.
    for _ in 0..20 {
        let before = schedstat::sum(vm.pid())?;
        agent.wait_samples(1)?;
        let scrape = agent.metrics()?;
        if before == schedstat::sum(vm.pid())? {
            assert_eq!(told(&scrape, "parked"), before);
            return Ok(());
        }
    }
    bail!("a process that was stopped goes on using CPU time")
}
