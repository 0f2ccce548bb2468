//! Law: why a VM started is told by its command line and by the ledger's own earlier lines; nothing is invented.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::lives_of,
    skip::{host, installed, skipped},
    vmm::spawn::TestVm,
};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const QEMU: &str = "qemu-system-x86_64";

/// Reason and source of the newest life of a vm_id, once it is there as the n-th.
fn why(agent: &Agent, vm_id: &str, life: usize) -> Result<(Value, Value)> {
    agent.wait_until("a start line", PATIENCE, |a| Ok(a.lines("vm.compute.start", vm_id)?.len() >= life))?;
    let lines = agent.lines("vm.compute.start", vm_id)?;
    ensure!(lines.len() == life, "{} lives of {vm_id}", lines.len());
    let start = lines.last().context("a line")?;
    Ok((start["reason"].clone(), start["source_snapshot_id"].clone()))
}

/// Starts the test VMM under another's name, has its start told, and ends it.
fn live(agent: &Agent, program: &str, vm_id: &str, words: &[&str], life: usize) -> Result<(Value, Value)> {
    let mut vm = TestVm::start_as(program, &[&["--duty", "10"], words].concat())?;
    let why = why(agent, vm_id, life)?;
    vm.signal(nix::sys::signal::Signal::SIGTERM)?;
    vm.wait()?;
    agent.wait_until("its stop", PATIENCE, |a| Ok(a.lines("vm.compute.stop", vm_id)?.len() == life))?;
    Ok(why)
}

fn again(dir: TempDir, wrapper: &[&str]) -> Result<Agent> {
    let wrapper = wrapper.iter().map(Into::into).collect();
    Agent::with(Setup { dir: Some(dir), wrapper, ..Setup::default() })
}

#[test]
fn a_vm_that_has_run_before_restarts_whoever_wrote_of_its_earlier_lives() -> Result<()> {
    let Some(_host) = host("a_vm_that_has_run_before_restarts_whoever_wrote_of_its_earlier_lives") else {
        return Ok(());
    };
    let agent = Agent::start()?;
    // kvmtool starts from a snapshot in no way, so what has not run before is a boot.
    let known = ["--name", "known"];
    assert_eq!(live(&agent, "lkvm", "known", &known, 1)?, ("boot".into(), Value::Null));
    assert_eq!(live(&agent, "lkvm", "known", &known, 2)?.0, "restart");
    // Of a VMM that nobody knows a first start says nothing.
    assert_eq!(live(&agent, "stranger", "odd", &["--id", "odd"], 1)?.0, Value::Null);
    assert_eq!(live(&agent, "stranger", "odd", &["--id", "odd"], 2)?.0, "restart");
    let running = TestVm::start_as("lkvm", &["--name", "while-away"])?;
    assert_eq!(why(&agent, "while-away", 1)?.0, "boot");

    // An agent that was killed, and one of another boot, know it from the ledger.
    let dir = agent.kill()?;
    drop(running);
    let adopted = TestVm::start_as("lkvm", &["--name", "while-away"])?;
    let agent = again(dir, &[])?;
    assert_eq!(why(&agent, "while-away", 2)?.0, "restart", "found running, and told of before");
    drop(adopted);
    assert_eq!(live(&agent, "lkvm", "known", &known, 3)?.0, "restart");
    let (_, _, dir) = agent.stop()?;
    let boot = dir.path().join("boot_id");
    std::fs::write(&boot, "0c0ffee0-0000-4000-8000-000000000001\n")?;
    let script = format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"", boot.display());
    let agent = again(dir, &["unshare", "--mount", "sh", "-c", &script, "sh"])?;
    assert_eq!(live(&agent, "lkvm", "known", &known, 4)?.0, "restart");
    assert_eq!(live(&agent, "lkvm", "fresh", &["--name", "fresh"], 1)?.0, "boot");
    let boots: std::collections::BTreeSet<_> =
        lives_of(&agent.ledger()?, "known")?.into_iter().map(|life| life.start["boot_id"].to_string()).collect();
    assert_eq!(boots.len(), 2, "two boots wrote of it");
    agent.verify()
}

#[test]
fn a_start_from_a_snapshot_is_a_restore_of_its_own_and_a_clone_of_anothers() -> Result<()> {
    let Some(_host) = host("a_start_from_a_snapshot_is_a_restore_of_its_own_and_a_clone_of_anothers") else {
        return Ok(());
    };
    let agent = Agent::start()?;
    let ids = ["6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a31", "6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a32"];
    let platform = ids.map(|id| format!("uuid={id}"));
    let cold = |n: usize| vec!["--words", "--platform", &platform[n]];
    let warm = |n: usize, from: &'static str| [cold(n), vec!["--words", "--restore", from]].concat();
    let source = "source_url=file:///snapshots/golden";
    let golden: Value = "/snapshots/golden".into();
    let ch = "cloud-hypervisor";
    assert_eq!(live(&agent, ch, ids[0], &cold(0), 1)?, ("boot".into(), Value::Null));
    assert_eq!(live(&agent, ch, ids[0], &warm(0, source), 2)?, ("restore".into(), golden.clone()));
    assert_eq!(live(&agent, ch, ids[1], &warm(1, source), 1)?, ("clone".into(), golden.clone()));
    let agent = again(agent.kill()?, &[])?;
    assert_eq!(live(&agent, ch, ids[0], &warm(0, source), 3)?, ("restore".into(), golden.clone()), "still its own");
    assert_eq!(live(&agent, ch, ids[1], &warm(1, source), 2)?, ("clone".into(), golden), "still another's");
    assert_eq!(live(&agent, ch, ids[1], &cold(1), 3)?, ("restart".into(), Value::Null));
    agent.verify()
}

/// A real QEMU with its monitor on standard input.
struct Qemu(Child);

impl Qemu {
    fn start(uuid: &str, disk: &Path, more: &[&str]) -> Result<Self> {
        let drive = format!("if=none,id=d,format=qcow2,file={}", disk.display());
        let mut command = Command::new(QEMU);
        command.args(["-accel", "kvm", "-cpu", "qemu64,-cx16,-pni", "-m", "32", "-nodefaults", "-display", "none"]);
        command.args(["-monitor", "stdio", "-uuid", uuid, "-drive", &drive, "-device", "virtio-blk-pci,drive=d"]);
        let child =
            command.args(more).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("cannot start QEMU")?;
        Ok(Self(child))
    }

    fn order(&mut self, line: &str) -> Result<()> {
        Ok(self.0.stdin.as_mut().context("a monitor")?.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Its own end; the monitor does one thing after the other.
    fn quit(mut self) -> Result<()> {
        self.order("quit")?;
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

#[test]
fn a_real_qemu_is_restored_from_a_file_and_from_its_disk_and_cloned() -> Result<()> {
    const TEST: &str = "a_real_qemu_is_restored_from_a_file_and_from_its_disk_and_cloned";
    if !installed(QEMU) || !installed("qemu-img") {
        skipped(TEST, "needs qemu-system-x86_64 and qemu-img");
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let dir = tempfile::tempdir()?;
    let disks = ["a", "b"].map(|name| dir.path().join(format!("{name}.qcow2")));
    for disk in &disks {
        ensure!(
            Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(disk).arg("16M").status()?.success()
        );
    }
    let ids = ["6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a41", "6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a42"];
    let state = dir.path().join("state");
    let path: Value = state.to_str().context("no text")?.into();

    let mut qemu = Qemu::start(ids[0], &disks[0], &[])?;
    assert_eq!(why(&agent, ids[0], 1)?, ("boot".into(), Value::Null));
    qemu.order("savevm before")?;
    // Without -d the monitor waits until all is written.
    qemu.order(&format!("migrate \"exec:cat > {}\"", state.display()))?;
    qemu.quit()?;
    ensure!(std::fs::metadata(&state)?.len() > 100_000, "the state was saved");

    let from = format!("exec:cat {}", state.display());
    let qemu = Qemu::start(ids[0], &disks[0], &["-incoming", &from])?;
    assert_eq!(why(&agent, ids[0], 2)?, ("restore".into(), path.clone()));
    let copy = Qemu::start(ids[1], &disks[1], &["-incoming", &from])?;
    assert_eq!(why(&agent, ids[1], 1)?, ("clone".into(), path));
    drop(copy);
    qemu.quit()?;
    let qemu = Qemu::start(ids[0], &disks[0], &["-loadvm", "before"])?;
    assert_eq!(why(&agent, ids[0], 3)?, ("restore".into(), "before".into()));
    qemu.quit()?;
    let qemu = Qemu::start(ids[0], &disks[0], &[])?;
    assert_eq!(why(&agent, ids[0], 4)?, ("restart".into(), Value::Null));
    qemu.quit()?;
    let stop = |a: &Agent| a.lines("vm.compute.stop", ids[0]);
    agent.wait_until("four stops", PATIENCE, |a| Ok(stop(a)?.len() == 4))?;
    for line in stop(&agent)? {
        assert_eq!((&line["cause"], &line["reason"]), (&"exit".into(), &"stop-user".into()));
    }
    agent.verify()
}
