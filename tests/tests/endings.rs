//! Law: how a VM ended, and who ended it, is told by evidence; nothing is invented.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    cgroup::Group,
    memory::{MIB, MemoryVm},
    skip::{host, skipped},
    vmm::spawn::{self, TestVm},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LATER: &str = "300ms";

/// What the stop line says of why.
fn told(stop: &Value) -> Value {
    json!({ "cause": stop["cause"], "reason": stop["reason"], "evidence": stop["evidence"] })
}

fn due(cause: &str, reason: &str, evidence: Value) -> Value {
    json!({ "cause": cause, "reason": reason, "evidence": evidence })
}

/// This process as the kernel names it: its leader's name, not that of a test's thread.
fn own_name() -> Result<String> {
    Ok(std::fs::read_to_string(format!("/proc/{}/comm", std::process::id()))?.trim_end().to_owned())
}

/// Another program, under the name of one that kills VMs in life, that sends a signal and waits to be killed itself.
fn killer(name: &str, signal: &str, pid: i32) -> Result<(Child, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let program = dir.path().join(name);
    std::os::unix::fs::symlink(std::fs::canonicalize("/bin/sh")?, &program)?;
    let script = format!("kill -{signal} {pid}; read forever");
    let child = Command::new(program).args(["-c", &script]).stdin(Stdio::piped()).spawn()?;
    Ok((child, dir))
}

#[test]
fn who_sent_the_signal_that_ended_a_vm_is_told_by_pid_and_name() -> Result<()> {
    let Some(_host) = host("who_sent_the_signal_that_ended_a_vm_is_told_by_pid_and_name") else { return Ok(()) };
    let agent = Agent::start()?;
    let me = (std::process::id().to_string(), own_name()?);
    for (id, signal, reason) in [
        ("by-me-9", Signal::SIGKILL, "stop-crash"),
        ("by-me-15", Signal::SIGTERM, "stop-user"),
        ("by-me-6", Signal::SIGABRT, "stop-crash"),
    ] {
        let mut vm = TestVm::start(&["--id", id, "--duty", "10"])?;
        vm.signal(signal)?;
        vm.wait()?;
        let stop = agent.stop_line(id)?;
        let core = &stop["evidence"]["core_dumped"];
        let evidence = json!({ "signal": signal as i32, "core_dumped": core, "killer_pid": me.0, "killer_comm": me.1 });
        assert_eq!(told(&stop), due("signal", reason, evidence), "{id}");
    }
    for (name, signal, number, reason) in [
        ("libvirtd", "KILL", 9, "stop-crash"),
        ("systemd", "TERM", 15, "stop-user"),
        ("a\u{1}b", "HUP", 1, "stop-user"),
    ] {
        let id = format!("by-other-{number}");
        let mut vm = TestVm::start(&["--id", &id, "--duty", "10", "--leader-exits"])?;
        let (mut child, _dir) = killer(name, signal, vm.pid())?;
        vm.wait()?;
        let evidence = json!({
            "signal": number, "core_dumped": false,
            "killer_pid": child.id().to_string(), "killer_comm": name.replace('\u{1}', "\u{fffd}"),
        });
        assert_eq!(told(&agent.stop_line(&id)?), due("signal", reason, evidence), "{id}");
        child.kill()?;
        child.wait()?;
    }
    agent.verify()
}

#[test]
fn a_signal_without_a_sender_names_none_and_one_of_its_own_names_itself() -> Result<()> {
    let Some(_host) = host("a_signal_without_a_sender_names_none_and_one_of_its_own_names_itself") else {
        return Ok(());
    };
    let agent = Agent::start()?;
    let mut crash = TestVm::start(&["--id", "segv", "--duty", "10", "--lifetime", LATER, "--end", "crash"])?;
    crash.wait()?;
    let evidence = json!({ "signal": 11, "core_dumped": false });
    assert_eq!(told(&agent.stop_line("segv")?), due("signal", "stop-crash", evidence), "the kernel sent it");
    for (id, end, number) in [("self-9", "sigkill", 9), ("self-6", "abort", 6)] {
        let mut vm = TestVm::start(&["--id", id, "--duty", "10", "--lifetime", LATER, "--end", end])?;
        let pid = vm.pid().to_string();
        vm.wait()?;
        let evidence =
            json!({ "signal": number, "core_dumped": false, "killer_pid": pid, "killer_comm": "kvmeter-testvm" });
        assert_eq!(told(&agent.stop_line(id)?), due("signal", "stop-crash", evidence), "{id}");
    }
    // Signals that it survives are no reason for anything: the halts of its vCPUs are signals too.
    let mut busy = TestVm::start(&["--id", "busy", "--duty", "10", "--halts", "500", "--lifetime", LATER])?;
    busy.wait()?;
    assert_eq!(told(&agent.stop_line("busy")?), due("exit", "stop-user", json!({ "exit_code": 0 })));
    agent.verify()
}

#[test]
fn a_kill_by_the_oom_killer_is_told_as_such_and_one_beside_it_is_not() -> Result<()> {
    const TEST: &str = "a_kill_by_the_oom_killer_is_told_as_such_and_one_beside_it_is_not";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(group) = Group::memory("oom") else {
        skipped(TEST, "needs the memory controller of control groups version 1");
        return Ok(());
    };
    group.limit_memory(48 * MIB)?;
    let agent = Agent::start()?;
    let dir = group.dir().to_str().context("no text")?;
    let mut greedy = MemoryVm::start("greedy", &["--cgroup", dir])?;
    let mut modest = TestVm::start(&["--id", "modest", "--cgroup", dir])?;
    // Its answer never comes: the kernel ends it while it takes the memory.
    ensure!(greedy.orders.give(&format!("hold anon {}", 96 * MIB)).is_err(), "96 MiB in a group of 48");
    greedy.vm.wait()?;
    let evidence = json!({ "signal": 9, "core_dumped": false, "oom": true });
    assert_eq!(told(&agent.stop_line("greedy")?), due("oom", "stop-crash", evidence));
    modest.signal(Signal::SIGKILL)?;
    modest.wait()?;
    let stop = agent.stop_line("modest")?;
    assert_eq!((&stop["cause"], stop["evidence"].get("oom")), (&"signal".into(), None), "{stop}");
    assert_eq!(stop["evidence"]["killer_pid"], std::process::id().to_string());
    agent.verify()
}

#[test]
fn a_guest_that_crashes_its_hypervisor_or_asks_for_its_end_is_told_by_its_last_exit() -> Result<()> {
    const TEST: &str = "a_guest_that_crashes_its_hypervisor_or_asks_for_its_end_is_told_by_its_last_exit";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let run = |id: &str, end: &str| -> Result<Option<i32>> {
        let args = ["--id", id, "--duty", "20", "--lifetime", LATER, "--end", end];
        Ok(Command::new(spawn::binary()?).args(args).status()?.code())
    };
    assert_eq!(run("astray", "internal-error")?, Some(0));
    let evidence = json!({ "exit_code": 0, "kvm_exit": "KVM_EXIT_INTERNAL_ERROR" });
    assert_eq!(told(&agent.stop_line("astray")?), due("guest-crash", "stop-crash", evidence));
    if run("asks", "system-event")? == Some(0) {
        let evidence = json!({ "exit_code": 0, "kvm_exit": "KVM_EXIT_SYSTEM_EVENT" });
        assert_eq!(told(&agent.stop_line("asks")?), due("guest-shutdown", "stop-user", evidence));
    } else {
        skipped(TEST, "its part about KVM_EXIT_SYSTEM_EVENT needs a KVM with CONFIG_KVM_HYPERV");
    }
    agent.verify()
}

/// An agent that sees this directory as `/run`, and the rest of the host as it is.
fn with_run(run: &Path) -> Result<Agent> {
    let script = format!("mount --bind {} /run && exec \"$@\"", run.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(Into::into).to_vec();
    Agent::with(Setup { wrapper, ..Setup::default() })
}

#[test]
fn an_end_while_the_host_goes_down_is_the_hosts_and_a_crash_is_not() -> Result<()> {
    let Some(_host) = host("an_end_while_the_host_goes_down_is_the_hosts_and_a_crash_is_not") else { return Ok(()) };
    let run = tempfile::tempdir()?;
    let agent = with_run(run.path())?;
    let ended = |id: &str, signal: Signal| -> Result<Value> {
        let mut vm = TestVm::start(&["--id", id, "--duty", "10"])?;
        vm.signal(signal)?;
        vm.wait()?;
        agent.stop_line(id)
    };
    assert_eq!(ended("before", Signal::SIGTERM)?["cause"], "signal");
    // As systemd-user-sessions writes it when it is stopped.
    let notice = "System is going down. Unprivileged users are not permitted to log in anymore. For technical details, see pam_nologin(8).\n";
    std::fs::write(run.path().join("nologin"), notice)?;
    std::thread::sleep(Duration::from_millis(300));
    for (id, signal) in [("down-15", Signal::SIGTERM), ("down-9", Signal::SIGKILL)] {
        let stop = ended(id, signal)?;
        assert_eq!((&stop["cause"], &stop["reason"]), (&"host-shutdown".into(), &"stop-user".into()), "{id}");
        assert_eq!(stop["evidence"]["killer_pid"], std::process::id().to_string(), "{id}");
    }
    let mut exits = TestVm::start(&["--id", "down-0", "--duty", "10", "--lifetime", LATER])?;
    exits.wait()?;
    assert_eq!(told(&agent.stop_line("down-0")?), due("host-shutdown", "stop-user", json!({ "exit_code": 0 })));
    assert_eq!(ended("down-6", Signal::SIGABRT)?["reason"], "stop-crash");
    // What is announced for later does not end anything now.
    std::fs::create_dir_all(run.path().join("systemd/shutdown"))?;
    let later = "USEC=32503680000000000\nWARN_WALL=1\nMODE=poweroff\n";
    std::fs::write(run.path().join("systemd/shutdown/scheduled"), later)?;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ended("planned", Signal::SIGTERM)?["cause"], "signal");
    agent.verify()
}
