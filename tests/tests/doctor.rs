//! Law: `doctor` says what cannot be told here and what to do, and claims nothing that a running agent knows not to work.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    command::{code, kvmeter, out},
    loss::feature,
    skip::host,
    vmm::spawn::TestVm,
};
use serde_json::Value;
use tempfile::TempDir;

/// A name the kernel cuts to 15 bytes, which is how a QEMU is known, and which its threads inherit.
const QEMU: &str = "qemu-system-x86_64";
const INHERITED: &str = "qemu-system-x86";

/// `kvmeter doctor` with a configuration of its own; it must find CPU and ledger at work.
fn doctor(socket: Option<&Agent>, json: bool) -> Result<String> {
    let dir = TempDir::new()?;
    let socket = socket.map_or_else(|| dir.path().join("s"), |agent| agent.socket().to_owned());
    let config = dir.path().join("kvmeter.toml");
    std::fs::write(&config, format!("socket = {socket:?}\ndata_dir = {:?}\n", dir.path().join("data")))?;
    let config = config.to_str().context("no text")?;
    let output = kvmeter(&[&["--config", config, "doctor"][..], if json { &["--json"] } else { &[] }].concat())?;
    code(&output, 0)?;
    Ok(out(&output))
}

fn diagnosis(agent: Option<&Agent>) -> Result<Value> {
    Ok(serde_json::from_str(&doctor(agent, true)?)?)
}

#[test]
fn a_qemu_without_thread_names_is_named_with_what_to_do() -> Result<()> {
    let Some(_host) = host("a_qemu_without_thread_names_is_named_with_what_to_do") else { return Ok(()) };
    let vm = TestVm::start_as(QEMU, &["--name", "mute", "--named-worker", INHERITED])?;
    let told = diagnosis(None)?;
    let row = feature(&told, "io_threads")?;
    assert_eq!((&row["available"], &told["ok"]), (&false.into(), &true.into()), "{row}");
    assert!(row["why"].as_str().is_some_and(|why| why.contains(&format!("mute (pid {})", vm.pid()))), "{row}");
    assert!(row["advice"].as_str().is_some_and(|advice| advice.contains("debug-threads=on")), "{row}");
    let text = doctor(None, false)?;
    let line = text.lines().find(|line| line.starts_with("io_threads")).context("no such line")?;
    assert!(line.contains(" NO ") && line.contains("debug-threads=on"), "{line}");
    Ok(())
}

#[test]
fn a_vm_whose_threads_have_names_or_that_has_no_io_threads_is_not_blamed() -> Result<()> {
    const TEST: &str = "a_vm_whose_threads_have_names_or_that_has_no_io_threads_is_not_blamed";
    let Some(_host) = host(TEST) else { return Ok(()) };
    // Others may run on this host.
    let before = diagnosis(None)?;
    let before = feature(&before, "io_threads")?;
    let io = ["--name", "named", "--named-worker", "IO iothread0", "--named-worker", INHERITED];
    let _vms = (
        TestVm::start_as(QEMU, &io)?,
        TestVm::start_as("firecracker", &["--id", "micro", "--named-worker", "firecracker"])?,
        TestVm::start(&["--id", "stranger", "--named-worker", "kvmeter-testvm"])?,
    );
    let now = diagnosis(None)?;
    let now = feature(&now, "io_threads")?;
    assert_eq!((&now["available"], &now["why"]), (&before["available"], &before["why"]));
    let gives = now["gives"].as_str().context("no text")?;
    assert!(
        gives.contains("Firecracker") && gives.contains("kvmeter-testvm"),
        "it says where nothing is told: {gives}"
    );
    Ok(())
}

#[test]
fn what_a_running_agent_found_not_to_work_doctor_does_not_call_working() -> Result<()> {
    const TEST: &str = "what_a_running_agent_found_not_to_work_doctor_does_not_call_working";
    let Some(_host) = host(TEST) else { return Ok(()) };
    // The agent's configuration is another than doctor's: only by asking can doctor know.
    let agent = Agent::with(Setup::of("[bpf]\nexit_reasons = false\n"))?;
    let _vm = TestVm::start(&["--id", "runs", "--duty", "50", "--exit-rate", "100"])?;
    agent.wait_until("a verdict on the hooks of guest entry", Duration::from_secs(60), |agent| {
        let status = agent.json("/v1/status")?;
        let entry = feature(&status, "kvm_entry")?;
        Ok(entry["available"] == true || entry["why"].as_str().is_some_and(|why| why.contains("never fired")))
    })?;
    let (status, told) = (agent.json("/v1/status")?, diagnosis(Some(&agent))?);
    let mut missing = Vec::new();
    for found in status["features"].as_array().context("no features")?.iter().filter(|f| f["available"] == false) {
        let name = found["name"].as_str().context("no name")?;
        let (row, why) = (feature(&told, name)?, found["why"].as_str().context("no why")?);
        assert_eq!(row["available"], false, "{name}: {row}");
        assert!(row["why"].as_str().is_some_and(|told| told.contains(why)), "{name}: {row}");
        missing.push(name);
    }
    assert!(missing.contains(&"kvm_exit_reason"), "{missing:?}");
    let alone = diagnosis(None)?;
    let alone = feature(&alone, "kvm_exit_reason")?;
    assert!(!alone["why"].as_str().is_some_and(|why| why.contains("exit_reasons")), "without an agent: {alone}");
    Ok(())
}
