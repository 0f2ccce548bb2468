//! Law: a change of a VM's shape while it runs is one line with the whole new shape; what stays is told by none.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    skip::{host, skipped},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const QEMU: &str = "qemu-system-x86_64";
const NAME: &str = "grows";
const MIB: u64 = 1 << 20;

/// QEMU with a disk and a monitor, killed and reaped when dropped.
struct Qemu(Child);

impl Qemu {
    fn start(dir: &Path) -> Result<Self> {
        let disk = format!("file={},if=virtio,format=raw,file.locking=off", dir.join("disk.raw").display());
        let monitor = format!("unix:{},server=on,wait=off", dir.join("qmp").display());
        let mut command = Command::new(QEMU);
        command.args(["-accel", "kvm", "-cpu", "qemu64,-cx16,-pni", "-name", NAME, "-smp", "1,maxcpus=4", "-m", "64"]);
        command.args(["-nographic", "-nodefaults", "-display", "none", "-drive", &disk, "-qmp", &monitor]);
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start QEMU")?))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Says something to QEMU's monitor and returns what it says until it has answered.
fn say(stream: &mut UnixStream, command: &Value) -> Result<String> {
    stream.write_all(command.to_string().as_bytes())?;
    let mut said = String::new();
    while !said.contains("\"return\"") && !said.contains("\"error\"") {
        let mut part = [0; 4096];
        let read = stream.read(&mut part)?;
        anyhow::ensure!(read > 0, "the monitor closed: {said}");
        said.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    Ok(said)
}

fn plug_vcpu(dir: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(dir.join("qmp"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    say(&mut stream, &json!({ "execute": "qmp_capabilities" }))?;
    let place = json!({ "driver": "qemu64-x86_64-cpu", "id": "c1", "socket-id": 0, "core-id": 1, "thread-id": 0 });
    let said = say(&mut stream, &json!({ "execute": "device_add", "arguments": place }))?;
    anyhow::ensure!(said.contains("\"return\""), "{said}");
    Ok(())
}

fn shapes(agent: &Agent) -> Result<Vec<Value>> {
    Ok(agent.lines("vm.compute.resize", NAME)?.into_iter().map(|line| line["shape"].clone()).collect())
}

fn wait_resizes(agent: &Agent, count: usize) -> Result<()> {
    agent.wait_until("a resize", PATIENCE, |agent| Ok(shapes(agent)?.len() >= count))
}

#[test]
fn a_vcpu_that_is_plugged_in_and_a_disk_that_grows_are_told_once_each() -> Result<()> {
    const TEST: &str = "a_vcpu_that_is_plugged_in_and_a_disk_that_grows_are_told_once_each";
    if !Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        skipped(TEST, "needs qemu-system-x86_64");
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let dir = TempDir::new()?;
    let disk = File::create(dir.path().join("disk.raw"))?;
    disk.set_len(8 * MIB)?;
    let config = "[discovery]\nscan_interval = \"1s\"\n[ledger]\nheartbeat = \"1s\"\n";
    let agent = Agent::with(Setup::of(config))?;
    let qemu = Qemu::start(dir.path())?;
    agent.wait_vms(&[NAME])?;
    let shape = |cpu: u32, disk: u64| json!({ "cpu": cpu, "mem_bytes": 64 * MIB, "storage_bytes": disk * MIB });
    agent.wait_until("the disk", PATIENCE, |agent| {
        Ok(agent.lines("vm.compute.usage", NAME)?.last().is_some_and(|line| line["shape"] == shape(1, 8)))
    })?;
    assert_eq!(shapes(&agent)?, Vec::<Value>::new(), "a disk that was there from the start is no change");

    plug_vcpu(dir.path())?;
    wait_resizes(&agent, 1)?;
    disk.set_len(16 * MIB)?;
    wait_resizes(&agent, 2)?;
    agent.wait_samples(3)?;
    assert_eq!(shapes(&agent)?, [shape(2, 8), shape(2, 16)]);

    // While no agent runs the disk grows once more: the next one tells it, and nothing else.
    let (_, _, old) = agent.stop()?;
    disk.set_len(32 * MIB)?;
    let agent = Agent::with(Setup { dir: Some(old), ..Setup::of(config) })?;
    wait_resizes(&agent, 3)?;
    agent.wait_samples(3)?;
    assert_eq!(shapes(&agent)?, [shape(2, 8), shape(2, 16), shape(2, 32)]);
    drop(qemu);
    assert_eq!(agent.stop_line(NAME)?["shape"], shape(2, 32));
    agent.verify()
}
