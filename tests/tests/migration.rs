//! Law: that a VM moved is told where it was seen, and of no other end. Shown with real QEMUs that hand a guest over a Unix
//! socket, without libvirt.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::Agent,
    metrics::Series,
    skip::{host, installed, skipped},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const QEMU: &str = "qemu-system-x86_64";
const UUID: &str = "6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a71";

/// A QEMU with a monitor, killed and reaped when dropped.
struct Qemu {
    child: Child,
    monitor: UnixStream,
}

impl Qemu {
    fn start(dir: &Path, name: &str, extra: &[&str]) -> Result<Self> {
        let path = dir.join(name);
        let monitor = format!("unix:{},server=on,wait=off", path.display());
        let mut command = Command::new(QEMU);
        command.args(["-accel", "kvm", "-cpu", "qemu64,-cx16,-pni", "-name", "guest=mover", "-uuid", UUID]);
        command.args(["-smp", "1", "-m", "64", "-nographic", "-nodefaults", "-display", "none", "-qmp", &monitor]);
        let child = command.args(extra).stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("no QEMU")?;
        let end = std::time::Instant::now() + PATIENCE;
        let monitor = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(error) => ensure!(std::time::Instant::now() < end, "no monitor: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        monitor.set_read_timeout(Some(PATIENCE))?;
        let mut qemu = Self { child, monitor };
        qemu.say(&json!({ "execute": "qmp_capabilities" }))?;
        Ok(qemu)
    }

    /// Says something to the monitor; what it answers.
    fn say(&mut self, command: &Value) -> Result<Value> {
        self.monitor.write_all(command.to_string().as_bytes())?;
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            ensure!(self.monitor.read(&mut byte)? == 1, "the monitor closed");
            if byte != *b"\n" {
                line.extend(byte);
                continue;
            }
            let said: Value = serde_json::from_slice(&line)?;
            line.clear();
            if said.get("return").is_some() || said.get("error").is_some() {
                ensure!(said.get("error").is_none(), "{command}: {said}");
                return Ok(said["return"].clone());
            }
        }
    }

    fn status(&mut self) -> Result<String> {
        Ok(self.say(&json!({ "execute": "query-status" }))?["status"].as_str().unwrap_or_default().to_owned())
    }

    fn wait_status(&mut self, status: &str) -> Result<()> {
        let end = std::time::Instant::now() + PATIENCE;
        while self.status()? != status {
            ensure!(std::time::Instant::now() < end, "it is {} and not {status}", self.status()?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn migrate(&mut self, to: &str) -> Result<()> {
        self.say(&json!({ "execute": "migrate", "arguments": { "uri": to } })).map(drop)
    }

    fn quit(mut self) -> Result<()> {
        self.say(&json!({ "execute": "quit" }))?;
        ensure!(self.child.wait()?.success());
        Ok(())
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The line of a kind about a process, once it is there.
fn line_of(agent: &Agent, kind: &str, pid: u32) -> Result<Value> {
    let find = |agent: &Agent| -> Result<Option<Value>> {
        let about = |line: &Value| line["incarnation"].as_str().is_some_and(|i| i.contains(&format!("-{pid}-")));
        Ok(agent.ledger()?.into_iter().find(|line| line["kind"] == kind && about(line)))
    };
    agent.wait_until(kind, PATIENCE, |agent| Ok(find(agent)?.is_some()))?;
    find(agent)?.context("it was there")
}

fn why(line: &Value) -> (Option<&str>, Option<&str>) {
    (line["cause"].as_str(), line["reason"].as_str())
}

fn can(test: &str) -> bool {
    let can = installed(QEMU);
    if !can {
        skipped(test, "needs qemu-system-x86_64");
    }
    can
}

#[test]
fn a_vm_that_moves_to_another_process_of_the_host_has_migrated_and_no_other_end_has() -> Result<()> {
    const TEST: &str = "a_vm_that_moves_to_another_process_of_the_host_has_migrated_and_no_other_end_has";
    if !can(TEST) {
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let dir = TempDir::new()?;
    let uri = |n: u32| format!("unix:{}", dir.path().join(format!("mig{n}")).display());
    let agent = Agent::start()?;
    let mut first = Qemu::start(dir.path(), "q1", &[])?;
    line_of(&agent, "vm.compute.start", first.pid())?;

    // It moves, the guest runs in the second, the first is let go: by a monitor's order, with exit code 0.
    let mut second = Qemu::start(dir.path(), "q2", &["-incoming", &uri(1)])?;
    first.migrate(&uri(1))?;
    first.wait_status("postmigrate")?;
    second.wait_status("running")?;
    let start = line_of(&agent, "vm.compute.start", second.pid())?;
    // What comes in through a socket may be a VM or a snapshot: no reason is made up. The first still has the UUID.
    assert_eq!((&start["reason"], &start["uuid"]), (&Value::Null, &json!(UUID)), "{start}");
    assert_ne!(start["vm_id"], UUID, "{start}");
    agent.wait_samples(1)?;
    let pid = first.pid();
    first.quit()?;
    let stop = line_of(&agent, "vm.compute.stop", pid)?;
    assert_eq!(why(&stop), (Some("migrated"), Some("stop-user")), "{stop}");
    assert_eq!((&stop["evidence"]["exit_code"], &stop["vm_id"]), (&json!(0), &json!(UUID)));

    // A third takes its state in, and then the second goes on: it is its own end that it has.
    let mut third = Qemu::start(dir.path(), "q3", &["-incoming", &uri(2)])?;
    second.migrate(&uri(2))?;
    second.wait_status("postmigrate")?;
    third.wait_status("running")?;
    line_of(&agent, "vm.compute.start", third.pid())?;
    agent.wait_samples(1)?;
    let pid = second.pid();
    // It goes on when its vCPU next has a CPU: being stopped again tells, because a guest that ran then returns.
    let ran = |a: &Agent| -> Result<f64> {
        let scrape = a.metrics()?;
        let of = |s: &&Series| s.labels["vm_id"].contains(&format!("-{pid}-"));
        Ok(scrape.all("kvmeter_vm_userspace_exits_total", &[]).filter(of).map(|s| s.value).sum())
    };
    let before = ran(&agent)?;
    agent.wait_until("its guest to run again", PATIENCE, |a| {
        for (order, status) in [("cont", "running"), ("stop", "paused"), ("cont", "running")] {
            second.say(&json!({ "execute": order }))?;
            second.wait_status(status)?;
        }
        a.wait_samples(1)?;
        Ok(ran(a)? > before)
    })?;
    second.quit()?;
    assert_eq!(why(&line_of(&agent, "vm.compute.stop", pid)?), (Some("exit"), Some("stop-user")));

    // One that waits for a state which never comes is no place to have moved to.
    let fourth = Qemu::start(dir.path(), "q4", &["-incoming", &uri(3)])?;
    agent.wait_samples(1)?;
    let pid = third.pid();
    third.quit()?;
    assert_eq!(why(&line_of(&agent, "vm.compute.stop", pid)?), (Some("exit"), Some("stop-user")));
    drop(fourth);
    agent.verify()
}

#[test]
fn a_vm_that_moves_out_of_sight_ends_as_its_process_does() -> Result<()> {
    const TEST: &str = "a_vm_that_moves_out_of_sight_ends_as_its_process_does";
    if !can(TEST) {
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let dir = TempDir::new()?;
    let agent = Agent::start()?;
    let mut vm = Qemu::start(dir.path(), "q", &[])?;
    line_of(&agent, "vm.compute.start", vm.pid())?;
    // Whoever takes it is no VM of this host; nothing here shows whether it went on anywhere.
    vm.migrate("exec:cat > /dev/null")?;
    vm.wait_status("postmigrate")?;
    agent.wait_samples(1)?;
    let pid = vm.pid();
    vm.quit()?;
    assert_eq!(why(&line_of(&agent, "vm.compute.stop", pid)?), (Some("exit"), Some("stop-user")));
    agent.verify()
}
