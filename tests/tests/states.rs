//! Law: VMs are counted as they are shown: created, destroyed, running, paused, stopped.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    metrics::Metrics,
    skip::host,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn created_destroyed_and_states_are_counted_and_no_label_is_forbidden() -> Result<()> {
    let Some(_host) = host("created_destroyed_and_states_are_counted_and_no_label_is_forbidden") else { return Ok(()) };
    let agent = Agent::with(Setup::of("sample_interval = \"200ms\"\n[metrics]\nlinger = \"10s\"\n"))?;
    let state = |a: &Agent, state: &str| -> Result<f64> {
        a.metrics()?.one("kvmeter_vms", &[("state", state)]).context("a state is not told")
    };
    let one = |a: &Agent, name: &str| -> Result<f64> { a.metrics()?.one(name, &[]).context("a count is not told") };
    let before = (one(&agent, "kvmeter_vms_created_total")?, one(&agent, "kvmeter_vm_boot_seconds_count")?);
    let _lives = TestVm::start(&["--id", "lives", "--duty", "10"])?;
    drop(TestVm::start(&["--id", "ends", "--duty", "10"])?);
    agent.stop_line("ends")?;
    agent.wait_until("one of each", PATIENCE, |a| {
        Ok(state(a, "running")? >= 1.0 && state(a, "stopped")? >= 1.0 && one(a, "kvmeter_vms_destroyed_total")? >= 1.0)
    })?;
    agent.wait_until("both to be counted", PATIENCE, |a| {
        let now = (one(a, "kvmeter_vms_created_total")?, one(a, "kvmeter_vm_boot_seconds_count")?);
        Ok(now.0 >= before.0 + 2.0 && now.1 >= before.1 + 2.0)
    })?;
    agent.wait_until("the end of the linger time", PATIENCE, |a| Ok(state(a, "stopped")? == 0.0))?;
    let scrape = agent.scrape()?;
    let shown = scrape.lines().filter(|line| line.starts_with("kvmeter_vm_running{") && line.ends_with(" 1")).count();
    let told = Metrics::parse(&scrape)?.one("kvmeter_vms", &[("state", "running")]);
    assert_eq!(told, Some(shown as f64), "as many as are shown");
    let forbidden = ["pid", "tgid", "path", "time", "timestamp", "error", "message", "command", "url", "hook"];
    for line in scrape.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, labels)) = line.split_once('{') else { continue };
        for key in labels.split("=\"").filter_map(|part| part.rsplit([',', '{']).next()) {
            assert!(!forbidden.contains(&key), "label {key} in {line}");
        }
    }
    assert!(scrape.contains("kvmeter_build_info{version="), "what it was built from");
    Ok(())
}

#[test]
fn a_vm_whose_process_is_stopped_is_paused_until_it_goes_on() -> Result<()> {
    let Some(_host) = host("a_vm_whose_process_is_stopped_is_paused_until_it_goes_on") else { return Ok(()) };
    let agent = Agent::with(Setup::of("sample_interval = \"200ms\"\n"))?;
    let vm = TestVm::start(&["--id", "held", "--duty", "50"])?;
    let halts = TestVm::start(&["--id", "halts", "--duty", "1"])?;
    agent.wait_vms(&["held", "halts"])?;
    let state = |a: &Agent, id: &str| -> Result<Value> { Ok(a.json(&format!("/v1/vms/{id}"))?["state"].clone()) };
    let paused = |a: &Agent| a.metrics().map(|metrics| metrics.one("kvmeter_vms", &[("state", "paused")]));
    let before = paused(&agent)?.context("the state is not told")?;
    vm.signal(Signal::SIGSTOP)?;
    agent.wait_until("the pause", PATIENCE, |a| Ok(state(a, "held")? == "paused"))?;
    assert_eq!(paused(&agent)?, Some(before + 1.0));
    assert_eq!(agent.metrics()?.one("kvmeter_vm_running", &[("vm_id", "held")]), Some(1.0), "it lives");
    assert_eq!(state(&agent, "halts")?, "running");
    vm.signal(Signal::SIGCONT)?;
    agent.wait_until("it to go on", PATIENCE, |a| Ok(state(a, "held")? == "running" && paused(a)? == Some(before)))?;
    drop((vm, halts));
    Ok(())
}
