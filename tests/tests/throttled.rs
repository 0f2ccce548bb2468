//! Law: what was not measured is absent. Throttling is told where a VM has control groups of its own, as they counted it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    cgroup::Group,
    skip::{host, skipped},
    vmm::spawn::TestVm,
};

const THROTTLED: &str = "kvmeter_vm_cpu_throttled_seconds_total";
const PATIENCE: Duration = Duration::from_secs(60);
const SCAN: &str = "[discovery]\nscan_interval = \"1s\"\n";

fn limited(test: &str, name: &str, percent: u32) -> Result<Option<Group>> {
    let Some(group) = Group::cpu(name) else {
        skipped(test, "needs control groups of version 1 with the cpu controller");
        return Ok(None);
    };
    group.limit(percent)?;
    Ok(Some(group))
}

fn spinning_in(group: &Group, id: &str) -> Result<TestVm> {
    let dir = group.dir().to_str().context("no text")?;
    TestVm::start(&["--id", id, "--duty", "100", "--cgroup", dir])
}

#[test]
fn a_vm_is_throttled_as_its_own_control_group_counted() -> Result<()> {
    const TEST: &str = "a_vm_is_throttled_as_its_own_control_group_counted";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(group) = limited(TEST, "own", 20)? else { return Ok(()) };
    let agent = Agent::with(Setup::of(SCAN))?;
    let vm = spinning_in(&group, "held")?;
    agent.wait_vms(&["held"])?;
    agent.wait_until("its series", PATIENCE, |a| Ok(a.metrics()?.one(THROTTLED, &[("vm_id", "held")]).is_some()))?;
    let (first, mut last) = (group.throttled_ns()?, 0);
    for _ in 0..5 {
        let before = group.throttled_ns()?;
        agent.wait_samples(1)?;
        last = agent.metrics()?.nanos(THROTTLED, "held");
        let after = group.throttled_ns()?;
        assert!(before <= last && last <= after, "{before} <= {last} <= {after}");
    }
    assert!(last > first, "{last} ns after {first}: it was never held, so nothing was tested");
    drop(vm);
    Ok(())
}

#[test]
fn throttling_of_a_shared_group_is_no_vms() -> Result<()> {
    const TEST: &str = "throttling_of_a_shared_group_is_no_vms";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let (Some(group), Some(own)) = (limited(TEST, "shared", 20)?, limited(TEST, "alone", 20)?) else { return Ok(()) };
    let vms = [spinning_in(&group, "one")?, spinning_in(&group, "two")?, TestVm::start(&["--id", "root"])?];
    let alone = spinning_in(&own, "alone")?;
    let agent = Agent::with(Setup::of(SCAN))?;
    agent.wait_vms(&["one", "two", "root", "alone"])?;
    // Where this one is told, the others would have been.
    agent.wait_until("a series", PATIENCE, |a| Ok(a.metrics()?.one(THROTTLED, &[("vm_id", "alone")]) > Some(0.0)))?;
    agent.wait_samples(2)?;
    assert!(group.throttled_ns()? > 0, "the group was never held: nothing was tested");
    let scrape = agent.metrics()?;
    for id in ["one", "two", "root"] {
        assert_eq!(scrape.all(THROTTLED, &[("vm_id", id)]).count(), 0, "{id}: not measured is absent");
    }
    drop((vms, alone));
    Ok(())
}

#[test]
fn a_vm_that_moves_to_another_group_keeps_its_counter() -> Result<()> {
    const TEST: &str = "a_vm_that_moves_to_another_group_keeps_its_counter";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let (Some(old), Some(new)) = (limited(TEST, "old", 20)?, limited(TEST, "new", 30)?) else { return Ok(()) };
    let agent = Agent::with(Setup::of(SCAN))?;
    let vm = spinning_in(&old, "mover")?;
    agent.wait_vms(&["mover"])?;
    let shown = |agent: &Agent| Ok::<_, anyhow::Error>(agent.metrics()?.nanos(THROTTLED, "mover"));
    agent.wait_until("its series", PATIENCE, |a| Ok(shown(a)? > 0))?;
    let mut last = shown(&agent)?;
    new.add(vm.pid())?;
    agent.wait_samples(1)?;
    let left = old.throttled_ns()?;
    agent.wait_until("it to be held where it is now", PATIENCE, |agent| {
        let now = shown(agent)?;
        assert!(now >= last, "a counter fell from {last} to {now}");
        let most = old.throttled_ns()? + new.throttled_ns()?;
        assert!(now <= most, "{now} ns of {most}");
        last = now;
        Ok(now > left)
    })
}
