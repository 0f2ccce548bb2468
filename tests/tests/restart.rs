//! Laws: the agent's death is not a VM's death; each fact is on exactly one line, whoever writes it.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    clock::{CLOCK_PAIR_NS, boot_ns, unix_ns, unix_of},
    ledger::{ledger_in, lives, number, only, verify_in},
    process::{LAST_SLICES_NS, settled_cpu_ns, wait_zombie},
    skip::host,
    vmm::spawn::{self, TestVm},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const HEARTBEAT: &str = "[ledger]\nheartbeat = \"1s\"\n";

#[test]
fn a_killed_agents_vms_go_on_and_those_that_ended_meanwhile_end_once() -> Result<()> {
    let Some(_host) = host("a_killed_agents_vms_go_on_and_those_that_ended_meanwhile_end_once") else { return Ok(()) };
    let agent = Agent::with(Setup::of(HEARTBEAT))?;
    let ids = ["keep-0", "keep-1", "keep-2", "gone-0", "gone-1"];
    let mut vms = BTreeMap::new();
    for id in ids {
        vms.insert(id, TestVm::start(&["--id", id, "--duty", "20"])?);
    }
    agent.wait_until("heartbeats", PATIENCE, |a| {
        let lines = a.ledger()?;
        Ok(ids.iter().all(|id| only(&lines, id).is_ok_and(|life| life.usage.len() >= 2)))
    })?;
    let dir = agent.kill()?;
    let killed_lines = ledger_in(dir.path())?;
    let mut died = BTreeMap::new();
    for (id, signal) in [("gone-0", Signal::SIGKILL), ("gone-1", Signal::SIGTERM)] {
        let mut vm = vms.remove(id).context("it runs")?;
        vm.signal(signal)?;
        vm.wait()?;
        died.insert(id, boot_ns()?);
    }
    std::thread::sleep(Duration::from_millis(300));
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::of(HEARTBEAT) })?;
    let came_ns = boot_ns()?;
    for (id, died_ns) in died {
        let stop = agent.stop_line(id)?;
        let life = only(&agent.ledger()?, id)?;
        let last = only(&killed_lines, id)?.usage.pop().context("no heartbeat")?;
        assert_eq!(stop["time_quality"], "bounded", "{id}");
        assert_eq!(stop["not_before"], last["emitted_at"], "{id}: its last evidence of life");
        assert_eq!(stop["emitted_at"], stop["not_before"], "{id}: the bound that bills less");
        assert_eq!(stop["mono_ns"], last["mono_ns"], "{id}");
        assert_eq!(stop["usage"], last["usage"], "{id}: its last known usage");
        let not_after = unix_ns(&stop["not_after"])?;
        assert!(
            unix_of(died_ns)? <= not_after + CLOCK_PAIR_NS && not_after <= unix_of(came_ns)? + CLOCK_PAIR_NS,
            "{id}"
        );
        assert_eq!((stop.get("reason"), &stop["cause"]), (None, &"unknown".into()), "{id}: nobody saw why");
        assert_eq!(life.stop, Some(stop), "{id}");
    }
    agent.wait_until("heartbeats go on", PATIENCE, |a| {
        let lines = a.ledger()?;
        let beats = |lines: &[Value], id: &str| only(lines, id).map_or(0, |life| life.usage.len());
        Ok(vms.keys().all(|id| beats(&lines, id) >= beats(&killed_lines, id) + 2))
    })?;
    let scrape = agent.metrics()?;
    for id in vms.keys() {
        let life = only(&agent.ledger()?, id)?;
        let incarnation = life.start["incarnation"].as_str().context("no incarnation")?;
        assert_eq!(scrape.one("kvmeter_vm_info", &[("vm_id", id), ("incarnation", incarnation)]), Some(1.0), "{id}");
        assert_eq!(life.start["incarnation"], only(&killed_lines, id)?.start["incarnation"], "{id}");
        assert!(life.stop.is_none(), "{id} goes on");
        let newest = life.usage.last().context("no heartbeat")?;
        assert!(number(&newest["coverage"]["unobserved_ns"])? > 300_000_000, "{id}: nobody watched for a while");
    }
    assert_eq!(scrape.sum("kvmeter_vm_starts_total", &[]), 0.0);
    let up = agent.ledger()?.into_iter().rfind(|line| line["kind"] == "agent.up").context("no agent.up")?;
    let last = killed_lines.last().context("no line")?;
    assert_eq!((&up["clean"], &up["resumed_after"]["seq"]), (&false.into(), &last["seq"]));
    assert_eq!(up["resumed_after"]["id"], last["id"]);
    agent.verify()?;

    // Once more in order: nothing is opened or closed twice, and the ends are exact again.
    let (status, _, dir) = agent.stop()?;
    assert!(status.success());
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::of(HEARTBEAT) })?;
    for (id, mut vm) in vms {
        vm.signal(Signal::SIGTERM)?;
        wait_zombie(vm.pid())?;
        let truth = settled_cpu_ns(vm.pid())?;
        vm.wait()?;
        agent.stop_line(id)?;
        let life = only(&agent.ledger()?, id)?;
        let cpu = life.cpu_ns()?;
        eprintln!("{id}: CPU {cpu} ns, {} more than the process's clock", cpu.wrapping_sub(truth).cast_signed());
        assert!(truth <= cpu && cpu <= truth + LAST_SLICES_NS, "{id}: CPU {cpu}, truth {truth}");
        assert_eq!(life.stop.context("no stop")?["time_quality"], "exact", "{id}");
    }
    let ups = agent.ledger()?.into_iter().filter(|line| line["kind"] == "agent.up");
    assert_eq!(ups.map(|line| line["clean"].clone()).collect::<Vec<_>>(), [true, false, true]);
    agent.verify()
}

/// Starts VMs that soon end, one after another, until told to stop.
fn short_lives(over: &AtomicBool) -> Result<u32> {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let id = format!("brief-{count}");
        let args = ["--id", &id, "--duty", "50", "--lifetime", "20ms"];
        ensure!(Command::new(spawn::binary()?).args(args).status()?.success(), "{id} failed");
        count += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(count)
}

#[test]
fn an_agent_killed_again_and_again_opens_and_closes_nothing_twice() -> Result<()> {
    let Some(_host) = host("an_agent_killed_again_and_again_opens_and_closes_nothing_twice") else { return Ok(()) };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let brief = scope.spawn(|| short_lives(&over));
        let killed = kill_again_and_again();
        over.store(true, Ordering::Relaxed);
        let count = brief.join().expect("the thread of short lives panicked")?;
        eprintln!("{count} short lives meanwhile");
        killed
    })
}

fn kill_again_and_again() -> Result<()> {
    let steady = TestVm::start(&["--id", "steady", "--duty", "10"])?;
    let mut guests: Vec<(String, TestVm)> = Vec::new();
    let mut dir = None;
    for round in 0..10 {
        let agent = Agent::with(Setup { dir, ..Setup::of(HEARTBEAT) })?;
        let id = format!("guest-{round}");
        guests.push((id.clone(), TestVm::start(&["--id", &id, "--duty", "10"])?));
        agent.wait_until("a start line", PATIENCE, |a| Ok(!a.lines("vm.compute.start", &id)?.is_empty()))?;
        agent.verify()?;
        if round % 3 == 2 {
            // Its end may be on its way into the ledger when the agent dies.
            guests.remove(0);
        }
        std::thread::sleep(Duration::from_millis(round % 4 * 3));
        dir = Some(agent.kill()?);
        if round % 3 == 1 {
            guests.remove(0);
        }
        let dir = dir.as_ref().context("a directory")?;
        lives(&ledger_in(dir.path()).or_else(|_| whole_lines(dir.path()))?)?;
    }
    let agent = Agent::with(Setup { dir, ..Setup::of(HEARTBEAT) })?;
    for (id, vm) in guests {
        drop(vm);
        agent.stop_line(&id)?;
    }
    drop(steady);
    agent.stop_line("steady")?;
    for round in 0..10 {
        assert!(only(&agent.ledger()?, &format!("guest-{round}"))?.stop.is_some(), "guest-{round} ended");
    }
    assert_eq!(agent.ledger()?.iter().filter(|line| line["kind"] == "agent.up").count(), 11);
    agent.verify()
}

/// A ledger whose last line may be torn.
fn whole_lines(dir: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(dir.join("data/metering/ledger.jsonl"))?;
    let (whole, _) = text.rsplit_once('\n').context("no whole line")?;
    whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn an_agent_told_to_end_does_so_in_order_and_closes_no_interval() -> Result<()> {
    let Some(_host) = host("an_agent_told_to_end_does_so_in_order_and_closes_no_interval") else { return Ok(()) };
    let agent = Agent::start()?;
    let vms = ["stay-0", "stay-1", "stay-2"].map(|id| TestVm::start(&["--id", id, "--duty", "30"]));
    agent.wait_until("all starts", PATIENCE, |a| {
        Ok(a.ledger()?.iter().filter(|l| l["vm_id"].as_str().is_some_and(|id| id.starts_with("stay-"))).count() >= 3)
    })?;
    let socket = agent.socket().to_owned();
    let (status, took, dir) = agent.stop()?;
    eprintln!("ended in {took:?}");
    assert!(status.success(), "{status}");
    assert!(took < PATIENCE, "{took:?}");
    assert!(!socket.exists(), "no socket is left");
    let lines = ledger_in(dir.path())?;
    assert_eq!(lines.last().map(|line| &line["kind"]), Some(&"agent.down".into()));
    assert_eq!(lines.iter().filter(|line| line["kind"] == "agent.down").count(), 1);
    let all = lives(&lines)?;
    for vm in vms {
        let mark = format!("-{}-", vm?.pid());
        let life = all.iter().find(|(incarnation, _)| incarnation.contains(&mark)).context("no start")?.1;
        assert!(life.stop.is_none(), "its VM goes on");
    }
    verify_in(dir.path())
}

#[test]
fn a_clock_set_while_no_agent_ran_has_one_line_with_by_how_much() -> Result<()> {
    const SET_BY: u64 = 3_600;
    let Some(_host) = host("a_clock_set_while_no_agent_ran_has_one_line_with_by_how_much") else { return Ok(()) };
    let config = "[bpf]\nenabled = \"off\"\n";
    let agent = Agent::with(Setup::of(config))?;
    agent.wait_until("its first line", PATIENCE, |agent| Ok(!agent.ledger()?.is_empty()))?;
    let dir = agent.kill()?;
    let before = ledger_in(dir.path())?;
    let last = before.last().context("no line")?;
    // In a time namespace in which the host has run for an hour more: what an hour's step back of the wall clock shows.
    let offsets = [format!("--boottime={SET_BY}"), format!("--monotonic={SET_BY}")];
    let wrapper = in_time(&offsets);
    let agent = Agent::with(Setup { dir: Some(dir), wrapper, ..Setup::of(config) })?;
    let told = told_once(&agent, "clock.step")?;
    let at = |key: &str| unix_ns(&told[key]);
    let by = at("stepped_from")? - at("emitted_at")?;
    ensure!(by.abs_diff(SET_BY * 1_000_000_000) < 100_000_000, "{by} ns: {told}");
    let since = number(&told["mono_ns"])? - number(&last["mono_ns"])?;
    ensure!(since > SET_BY * 1_000_000_000, "between {last} and {told}");
    agent.verify()
}

/// The line of this kind, once there is one, if two samples later it is still the only one.
fn told_once(agent: &Agent, kind: &str) -> Result<Value> {
    let told = |agent: &Agent| -> Result<Vec<Value>> {
        Ok(agent.ledger()?.into_iter().filter(|line| line["kind"] == kind).collect())
    };
    agent.wait_until("a line", PATIENCE, |agent| Ok(!told(agent)?.is_empty()))?;
    agent.wait_samples(2)?;
    let mut all = told(agent)?;
    ensure!(all.len() == 1, "{all:?}");
    all.pop().context("no line")
}

/// A command in a time namespace of its own.
fn in_time(offsets: &[String]) -> Vec<std::ffi::OsString> {
    ["unshare", "--time", "--fork", "--kill-child"]
        .into_iter()
        .chain(offsets.iter().map(String::as_str))
        .map(Into::into)
        .collect()
}

#[test]
fn a_host_suspended_while_no_agent_ran_has_one_line_with_for_how_long() -> Result<()> {
    const NIGHT: u64 = 20;
    let Some(_host) = host("a_host_suspended_while_no_agent_ran_has_one_line_with_for_how_long") else { return Ok(()) };
    let config = "[bpf]\nenabled = \"off\"\n";
    let mut dir = Agent::with(Setup::of(config))?.kill()?;
    let last = ledger_in(dir.path())?.last().context("no line")?.clone();
    // A time namespace in which CLOCK_MONOTONIC has stood still for longer: what a night shows.
    let wrapper = in_time(&[format!("--monotonic=-{NIGHT}")]);
    // The second is killed, so that the third has only what lines tell.
    for _ in 0..2 {
        let agent = Agent::with(Setup { dir: Some(dir), wrapper: wrapper.clone(), ..Setup::of(config) })?;
        let told = told_once(&agent, "host.suspend")?;
        let by = number(&told["suspended_ns"])?;
        ensure!(by.abs_diff(NIGHT * 1_000_000_000) < 1_000_000, "{by} ns: {told}");
        let not_before = unix_ns(&told["not_before"])?;
        ensure!(not_before.abs_diff(unix_ns(&last["emitted_at"])?) < 1_000_000_000, "since {last}: {told}");
        ensure!(agent.ledger()?.iter().all(|line| line["kind"] != "clock.step"), "no clock was set");
        agent.verify()?;
        dir = agent.kill()?;
    }
    Ok(())
}
