//! Law: a VM is a process that runs a KVM guest. Debian's QEMU is one, under the identity its command line gives.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::Agent,
    skip::{host, skipped},
    vmm::schedstat,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const QEMU: &str = "qemu-system-x86_64";
const UUID: &str = "6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a11";

/// A QEMU, killed and reaped when dropped.
struct Qemu(Child);

impl Qemu {
    fn start(extra: &[&str]) -> Result<Self> {
        let mut command = Command::new(QEMU);
        command.args([
            "-accel",
            "kvm",
            "-cpu",
            "qemu64,-cx16,-pni",
            "-name",
            "guest=web-1,debug-threads=on",
            "-uuid",
            UUID,
        ]);
        command.args(["-smp", "2", "-m", "192", "-nographic", "-nodefaults", "-display", "none"]).args(extra);
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start QEMU")?))
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn installed(test: &str) -> bool {
    let found = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        skipped(test, "needs qemu-system-x86_64");
    }
    found
}

fn assert_is_the_vm(agent: &Agent, qemu: &Qemu) -> Result<()> {
    agent.wait_vms(&[UUID])?;
    let vm = agent.json(&format!("/v1/vms/{UUID}"))?;
    let told = [&vm["vm_id"], &vm["uuid"], &vm["name"], &vm["hypervisor"], &vm["state"]];
    assert_eq!(told, [UUID, UUID, "web-1", "qemu", "running"]);
    assert_eq!(vm["shape"], serde_json::json!({ "cpu": 2, "mem_bytes": 192 << 20 }));
    assert_eq!(vm["pid"], qemu.pid());
    let start = agent.lines("vm.compute.start", UUID)?;
    assert_eq!(start.len(), 1);
    for key in ["vm_id", "uuid", "name", "hypervisor", "shape", "incarnation"] {
        assert_eq!(start[0][key], vm[key], "{key}");
    }
    let labels = [("vm_id", UUID), ("name", "web-1")];
    let metrics = agent.metrics()?;
    assert_eq!(metrics.one("kvmeter_vm_vcpus", &labels), Some(2.0));
    assert_eq!(metrics.one("kvmeter_vm_memory_configured_bytes", &labels), Some(f64::from(192 << 20)));
    for id in ["web-1", UUID, &UUID.to_uppercase()] {
        let output = agent.command(&["vm", id])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(UUID) && text.contains("qemu"), "{id}: {text}");
    }
    Ok(())
}

#[test]
fn qemu_appears_under_its_uuid_with_its_shape_and_its_death_is_told() -> Result<()> {
    const TEST: &str = "qemu_appears_under_its_uuid_with_its_shape_and_its_death_is_told";
    if !installed(TEST) {
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let mut qemu = Qemu::start(&[])?;
    assert_is_the_vm(&agent, &qemu)?;
    let before = schedstat::sum(qemu.pid())?.run_ns;
    agent.wait_samples(2)?;
    let cpu = agent.metrics()?.nanos("kvmeter_vm_cpu_seconds_total", UUID);
    let after = schedstat::sum(qemu.pid())?.run_ns;
    eprintln!("QEMU used between {before} and {after} ns by its living threads, kvmeter says {cpu}");
    // Threads that ended are in our figure and not in /proc's any more.
    assert!(before <= cpu, "{before} <= {cpu}");
    qemu.end(Signal::SIGKILL)?;
    let stop = agent.stop_line(UUID)?;
    assert_eq!(
        (&stop["cause"], &stop["reason"], &stop["evidence"]["signal"]),
        (&"signal".into(), &"stop-crash".into(), &9.into())
    );
    assert_eq!(stop["time_quality"], "exact");
    assert_eq!(stop["shape"], serde_json::json!({ "cpu": 2, "mem_bytes": 192 << 20 }));
    agent.verify()
}

#[test]
fn a_qemu_that_ran_before_the_agent_is_adopted_and_its_orderly_end_told() -> Result<()> {
    const TEST: &str = "a_qemu_that_ran_before_the_agent_is_adopted_and_its_orderly_end_told";
    if !installed(TEST) {
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let mut qemu = Qemu::start(&[])?;
    std::thread::sleep(Duration::from_secs(1));
    let agent = Agent::start()?;
    assert_is_the_vm(&agent, &qemu)?;
    assert_eq!(agent.json(&format!("/v1/vms/{UUID}"))?["adopted"], true);
    assert_eq!(
        agent.metrics()?.sum("kvmeter_vm_starts_total", &[("hypervisor", "qemu")]),
        0.0,
        "an adopted VM is no start"
    );
    // QEMU takes SIGTERM as a wish and exits with 0.
    qemu.end(Signal::SIGTERM)?;
    let stop = agent.stop_line(UUID)?;
    assert_eq!(
        (&stop["cause"], &stop["reason"], &stop["evidence"]["exit_code"]),
        (&"exit".into(), &"stop-user".into(), &0.into())
    );
    agent.verify()
}

#[test]
fn a_copied_uuid_gets_the_fallback_while_the_first_lives() -> Result<()> {
    const TEST: &str = "a_copied_uuid_gets_the_fallback_while_the_first_lives";
    if !installed(TEST) {
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let first = Qemu::start(&[])?;
    agent.wait_vms(&[UUID])?;
    let copy = Qemu::start(&[])?;
    let prefix = format!("qemu-{}-", copy.pid());
    agent.wait_until("the copy", Duration::from_secs(20), |a| {
        Ok(a.metrics()?.all("kvmeter_vm_info", &[("uuid", UUID)]).any(|s| s.labels["vm_id"].starts_with(&prefix)))
    })?;
    assert_eq!(agent.json(&format!("/v1/vms/{UUID}"))?["pid"], first.pid());
    let output = agent.command(&["vm", "web-1"])?;
    assert_eq!(output.status.code(), Some(3), "the name means two VMs: {}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains(UUID));
    Ok(())
}
