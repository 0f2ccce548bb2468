//! A value that is still growing, held against the scheduler: a reading before, the agent's, a reading after.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

use crate::{
    agent::Agent,
    cgroup::Group,
    metrics::Metrics,
    process::process_cpu_ns,
    vmm::{
        schedstat::{self, SchedStat},
        spawn::TestVm,
    },
};

/// CPU time of a VM by role.
pub const CPU: &str = "kvmeter_vm_cpu_seconds_total";
/// Run-queue time of a VM by role.
pub const DELAY: &str = "kvmeter_vm_cpu_delay_seconds_total";

/// CPU and run-queue time of a VM, over all roles.
#[must_use]
pub fn told(scrape: &Metrics, vm_id: &str) -> SchedStat {
    SchedStat { run_ns: scrape.nanos(CPU, vm_id), delay_ns: scrape.nanos(DELAY, vm_id) }
}

/// What is told lies between two readings.
pub fn within(low: SchedStat, told: SchedStat, high: SchedStat) -> Result<()> {
    let run = low.run_ns <= told.run_ns && told.run_ns <= high.run_ns;
    let delay = low.delay_ns <= told.delay_ns && told.delay_ns <= high.delay_ns;
    ensure!(run && delay, "{told:?} is told; before it was {low:?}, after it {high:?}");
    Ok(())
}

/// CPU and run-queue time of these VMs lie between two readings of the scheduler, so many times.
pub fn cpu_is_bracketed(agent: &Agent, vms: &[(&str, &TestVm)], times: u32) -> Result<()> {
    for _ in 0..times {
        let before = vms.iter().map(|(_, vm)| schedstat::sum(vm.pid())).collect::<Result<Vec<_>, _>>()?;
        agent.wait_samples(1)?;
        let scrape = agent.metrics()?;
        for ((id, vm), before) in vms.iter().zip(before) {
            within(before, told(&scrape, id), schedstat::sum(vm.pid())?).with_context(|| (*id).to_owned())?;
        }
    }
    Ok(())
}

/// A counter's new value, and truths before and after the sample that it is of.
pub struct Moved {
    /// The value.
    pub told_ns: u64,
    /// The process's CPU clock.
    pub clock_ns: (u64, u64),
    /// Its control group's; 0 without one.
    pub group_ns: (u64, u64),
}

/// Waits for a VM's CPU time to move. A sample is shown a while after it was read; it tells when that was, and the truth
/// before it is the last one that was known by then.
pub fn moved(agent: &Agent, vm_id: &str, pid: i32, group: Option<&Group>) -> Result<Moved> {
    let truth = || Ok::<_, anyhow::Error>((process_cpu_ns(pid)?, group.map_or(Ok(0), Group::cpu_ns)?));
    let mut old = told_at(agent, vm_id)?.0;
    let mut truths = Vec::new();
    loop {
        truths.push((truth()?, SystemTime::now()));
        let (told_ns, read_at) = told_at(agent, vm_id)?;
        if told_ns != old {
            let after = truth()?;
            if let Some((before, _)) = truths.iter().rev().find(|(_, known_at)| *known_at <= read_at) {
                return Ok(Moved { told_ns, clock_ns: (before.0, after.0), group_ns: (before.1, after.1) });
            }
            // Read before the first look.
            old = told_ns;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// CPU time of a VM over all roles, and when it was read.
fn told_at(agent: &Agent, vm_id: &str) -> Result<(u64, SystemTime)> {
    let vm = agent.json(&format!("/v1/vms/{vm_id}"))?;
    let roles = vm["cpu_ns"].as_object().context("no cpu_ns")?;
    let each = roles.values().map(|ns| Ok(ns.as_str().context("a decimal string")?.parse::<u64>()?));
    let read_at = vm["read_at"].as_str().context("no read_at")?;
    Ok((each.sum::<Result<_>>()?, humantime::parse_rfc3339(read_at)?))
}
