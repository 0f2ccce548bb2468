//! Law: a VM is an incarnation: a reused process id or vm_id is a different VM, a hostile one changes labels and nothing
//! else.

use std::{
    ffi::{OsStr, OsString},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::{Life, lives, lives_of, number},
    process::{LAST_SLICES_NS, process_cpu_ns, settled_cpu_ns, stat, wait_zombie},
    skip::host,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use sha2::{Digest as _, Sha256};

const CPU: &str = "kvmeter_vm_cpu_seconds_total";
const RUNNING: &str = "kvmeter_vm_running";
const PATIENCE: Duration = Duration::from_secs(60);
const HEARTBEAT: &str = "[ledger]\nheartbeat = \"1s\"\n";

/// `<vmm>-<tgid>-<8 hex of SHA-256(incarnation)>`.
fn fallback(life: &Life, pid: i32) -> String {
    let digest = Sha256::digest(life.start["incarnation"].as_str().unwrap_or_default());
    let mark: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("kvmeter-testvm-{pid}-{mark}")
}

fn life_of(agent: &Agent, pid: i32) -> Result<Life> {
    let mark = format!("-{pid}-");
    let ours = |agent: &Agent| -> Result<Vec<Life>> {
        let all = lives(&agent.ledger()?)?;
        Ok(all.into_iter().filter(|(incarnation, _)| incarnation.contains(&mark)).map(|(_, life)| life).collect())
    };
    agent.wait_until("a start line", PATIENCE, |agent| Ok(!ours(agent)?.is_empty()))?;
    let mut found = ours(agent)?;
    ensure!(found.len() == 1, "{} lives of process {pid}", found.len());
    found.pop().context("one life")
}

/// Changes a running process's command line in place: to bytes that no test VMM takes.
fn rewrite_argument(pid: i32, from: &[u8], to: &[u8]) -> Result<()> {
    ensure!(from.len() == to.len(), "a command line cannot grow");
    let (start, end) = (stat(pid, 48)?, stat(pid, 49)?);
    let memory = std::fs::File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    let mut line = vec![0; usize::try_from(end - start)?];
    memory.read_exact_at(&mut line, start)?;
    let at = line.windows(from.len()).position(|window| window == from).context("no such argument")?;
    memory.write_all_at(to, start + u64::try_from(at)?)?;
    Ok(())
}

#[test]
fn a_hostile_id_changes_labels_and_nothing_else() -> Result<()> {
    let Some(_host) = host("a_hostile_id_changes_labels_and_nothing_else") else { return Ok(()) };
    let mut hostile: Vec<OsString> =
        ["two words", "a\"b\\c{d=\"e\"}", "a\nb 1\nkvmeter_vm_running 7", "", "größe", "\u{202e}x"]
            .map(OsString::from)
            .to_vec();
    hostile.push("x".repeat(300).into());
    let mut vms = Vec::new();
    // Bytes that are no UTF-8 can only be put there afterwards, so this one is adopted.
    let vm = TestVm::start(&["--id", "RAWBYTES", "--duty", "5"])?;
    rewrite_argument(vm.pid(), b"RAWBYTES", b"\xff\xfe\xc3(\x80\xf0\x9f\n")?;
    vms.push(vm);
    let agent = Agent::start()?;
    for id in &hostile {
        vms.push(TestVm::start(&[OsStr::new("--id"), id, OsStr::new("--duty"), OsStr::new("5")])?);
    }
    for vm in &vms {
        let life = life_of(&agent, vm.pid())?;
        let vm_id = fallback(&life, vm.pid());
        assert_eq!(life.start["vm_id"], vm_id, "{:?}", life.start["name"]);
        let name = life.start["name"].as_str().unwrap_or_default();
        assert!(name.len() <= 128 && !name.chars().any(char::is_control), "{name:?}");
        agent.wait_until(&format!("{name:?} with its CPU time"), PATIENCE, |a| {
            let scrape = a.metrics()?;
            let running = scrape.one(RUNNING, &[("vm_id", &vm_id), ("name", name)]) == Some(1.0);
            Ok(running && scrape.nanos(CPU, &vm_id) > 0)
        })?;
    }
    for mut vm in vms {
        vm.signal(Signal::SIGTERM)?;
        vm.wait()?;
        let pid = vm.pid();
        agent.wait_until("its stop", PATIENCE, |agent| Ok(life_of(agent, pid)?.stop.is_some()))?;
    }
    agent.verify()
}

#[test]
fn while_a_vm_lives_nobody_else_gets_its_vm_id() -> Result<()> {
    let Some(_host) = host("while_a_vm_lives_nobody_else_gets_its_vm_id") else { return Ok(()) };
    let agent = Agent::start()?;
    let conflicts = |agent: &Agent| Ok::<_, anyhow::Error>(agent.metrics()?.one("kvmeter_vm_id_conflicts_total", &[]));
    assert_eq!(conflicts(&agent)?, Some(0.0));
    let mut first = TestVm::start(&["--id", "twin", "--duty", "60"])?;
    life_of(&agent, first.pid())?;
    let second = TestVm::start(&["--id", "twin", "--duty", "10"])?;
    let newcomer = life_of(&agent, second.pid())?;
    assert_eq!(newcomer.start["vm_id"], fallback(&newcomer, second.pid()));
    assert_eq!(newcomer.start["name"], "twin");
    agent.wait_until("both twins", PATIENCE, |a| Ok(a.metrics()?.all(RUNNING, &[("name", "twin")]).count() == 2))?;
    // What it has used by its end is more than a newcomer can have.
    agent.wait_until("a second of CPU time", PATIENCE, |a| Ok(a.metrics()?.nanos(CPU, "twin") > 1_000_000_000))?;
    let scrape = agent.metrics()?;
    assert_eq!(scrape.one("kvmeter_vm_id_conflicts_total", &[]), Some(1.0));
    assert_eq!(scrape.all(RUNNING, &[("name", "twin")]).count(), 2);
    assert_eq!(scrape.one(RUNNING, &[("vm_id", "twin")]), Some(1.0));

    first.signal(Signal::SIGKILL)?;
    first.wait()?;
    agent.stop_line("twin")?;
    agent.wait_until("the end", PATIENCE, |a| Ok(a.metrics()?.one(RUNNING, &[("vm_id", "twin")]) == Some(0.0)))?;
    let used = agent.metrics()?.nanos(CPU, "twin");
    let third = TestVm::start(&["--id", "twin"])?;
    agent.wait_until("the new twin", PATIENCE, |a| Ok(a.metrics()?.one(RUNNING, &[("vm_id", "twin")]) == Some(1.0)))?;
    let scrape = agent.metrics()?;
    let restarted = scrape.nanos(CPU, "twin");
    assert!(restarted < used, "counters start over: {used} ns, then {restarted} ns");
    let life = life_of(&agent, third.pid())?;
    assert_eq!(life.start["vm_id"], "twin");
    let incarnation = life.start["incarnation"].as_str().context("no incarnation")?;
    let info: Vec<_> = scrape.all("kvmeter_vm_info", &[("vm_id", "twin")]).collect();
    assert_eq!(info.iter().map(|series| series.labels["incarnation"].as_str()).collect::<Vec<_>>(), [incarnation]);
    assert_eq!(conflicts(&agent)?, Some(1.0), "a lingering VM is no conflict");
    agent.verify()
}

#[test]
fn a_vm_id_is_free_as_soon_as_its_process_is_dead() -> Result<()> {
    let Some(_host) = host("a_vm_id_is_free_as_soon_as_its_process_is_dead") else { return Ok(()) };
    let agent = Agent::start()?;
    for round in 0..20 {
        let mut vm = TestVm::start(&["--id", "phoenix", "--duty", "100"])?;
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(round));
        }
        vm.signal(Signal::SIGKILL)?;
        vm.wait()?;
    }
    agent.wait_until("all stops", PATIENCE, |a| Ok(a.lines("vm.compute.stop", "phoenix")?.len() >= 20))?;
    let all = lives(&agent.ledger()?)?;
    let phoenixes = all.values().filter(|life| life.start["name"] == "phoenix");
    assert!(phoenixes.clone().all(|life| life.start["vm_id"] == "phoenix"), "{phoenixes:?}");
    assert_eq!(phoenixes.count(), 20);
    let mut open = false;
    for line in agent.ledger()?.iter().filter(|line| line["vm_id"] == "phoenix") {
        // In the order of the ledger an old stop comes before a new start.
        assert_eq!(open, line["kind"] != "vm.compute.start", "{line}");
        open = line["kind"] != "vm.compute.stop";
    }
    assert_eq!(agent.metrics()?.one("kvmeter_vm_id_conflicts_total", &[]), Some(0.0));
    agent.verify()
}

/// Starts a VM whose process id is this one; tries again when somebody else was faster, until they let go of it.
fn start_as(pid: i32, args: &[&str]) -> Result<Option<TestVm>> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if Path::new(&format!("/proc/{pid}")).exists() {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        let vm = TestVm::start(args)?;
        if vm.pid() == pid {
            return Ok(Some(vm));
        }
    }
    Ok(None)
}

#[test]
fn a_reused_process_id_is_a_different_vm() -> Result<()> {
    let Some(_host) = host("a_reused_process_id_is_a_different_vm") else { return Ok(()) };
    let agent = Agent::start()?;
    let first = TestVm::start(&["--id", "reuse", "--duty", "100"])?;
    let pid = first.pid();
    let mut next = Some(first);
    let mut truths = Vec::new();
    for round in 0..12 {
        let Some(mut vm) = next.take() else { break };
        std::thread::sleep(Duration::from_millis(round % 3 * 40));
        vm.signal(Signal::SIGKILL)?;
        wait_zombie(pid)?;
        // In every other round the next life begins before the agent can have turned to this one's end.
        truths.push(if round % 2 == 0 { settled_cpu_ns(pid)? } else { process_cpu_ns(pid)? });
        vm.wait()?;
        next = start_as(pid, &["--id", "reuse", "--duty", "100"])?;
    }
    if next.is_some() {
        drop(next);
        truths.push(0);
    }
    eprintln!("{} lives of process {pid}", truths.len());
    assert!(truths.len() >= 3, "the process id could not be reused: nothing was tested");
    check_reuse(&agent, pid, &truths)?;
    agent.verify()
}

/// Each life of a process id has its own incarnation and its own CPU time; a truth of 0 was not measured.
fn check_reuse(agent: &Agent, pid: i32, truths: &[u64]) -> Result<()> {
    let mark = format!("-{pid}-");
    let ours = |agent: &Agent| -> Result<Vec<Life>> {
        let all = lives(&agent.ledger()?)?;
        let ours = all.into_iter().filter(|(incarnation, _)| incarnation.contains(&mark));
        let mut ours: Vec<_> = ours.map(|(_, life)| life).filter(|life| life.stop.is_some()).collect();
        ours.sort_by_key(|life| number(&life.start["mono_ns"]).unwrap_or(0));
        Ok(ours)
    };
    agent.wait_until("all lives", PATIENCE, |a| Ok(ours(a)?.len() >= truths.len()))?;
    let found = ours(agent)?;
    assert_eq!(found.len(), truths.len());
    for (life, truth) in found.iter().zip(truths).filter(|(_, truth)| **truth > 0) {
        let cpu = life.cpu_ns()?;
        eprintln!("CPU {cpu} ns, {} more than the process's clock", cpu.wrapping_sub(*truth).cast_signed());
        assert!(*truth <= cpu && cpu <= truth + LAST_SLICES_NS, "CPU {cpu}, truth {truth}: {:?}", life.stop);
        assert_eq!(life.stop.as_ref().context("no stop")?["time_quality"], "exact");
        assert_eq!(life.start["vm_id"], "reuse", "the old life has ended, so its vm_id is free");
    }
    Ok(())
}

#[test]
fn a_process_id_reused_while_no_agent_ran_is_a_different_vm() -> Result<()> {
    let Some(_host) = host("a_process_id_reused_while_no_agent_ran_is_a_different_vm") else { return Ok(()) };
    let agent = Agent::with(Setup::of(HEARTBEAT))?;
    let vm = TestVm::start(&["--id", "relief", "--duty", "50"])?;
    let pid = vm.pid();
    agent.wait_until("a heartbeat", PATIENCE, |a| Ok(!a.lines("vm.compute.usage", "relief")?.is_empty()))?;
    let dir = agent.kill()?;
    drop(vm);
    let mut next = start_as(pid, &["--id", "relief", "--duty", "10"])?.context("the process id is taken")?;
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::of(HEARTBEAT) })?;
    agent.wait_until("two starts", PATIENCE, |a| Ok(a.lines("vm.compute.start", "relief")?.len() >= 2))?;
    next.signal(Signal::SIGTERM)?;
    wait_zombie(pid)?;
    let truth = settled_cpu_ns(pid)?;
    next.wait()?;
    agent.wait_until("two stops", PATIENCE, |a| Ok(a.lines("vm.compute.stop", "relief")?.len() >= 2))?;
    let found = lives_of(&agent.ledger()?, "relief")?;
    let qualities = found.iter().map(|life| life.stop.as_ref().map(|stop| stop["time_quality"].clone()));
    assert_eq!(qualities.collect::<Vec<_>>(), [Some("bounded".into()), Some("exact".into())]);
    let cpu = found[1].cpu_ns()?;
    assert!(truth <= cpu && cpu <= truth + LAST_SLICES_NS, "CPU {cpu}, truth {truth}");
    agent.verify()
}
