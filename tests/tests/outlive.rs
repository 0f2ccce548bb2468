//! Law: the agent's death is not a VM's death: kernel programs count on while no agent runs, and the next one bills what
//! they kept, each life once.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    clock::boot_ns,
    ended::{end, hold},
    ledger::{Life, lives, number, only},
    pins::Bpffs,
    process::LAST_SLICES_NS,
    skip::{host, in_full},
    vmm::spawn::{self, TestVm, burst},
};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const HEARTBEAT: &str = "[ledger]\nheartbeat = \"1s\"\n";
/// How long no agent runs, in short and in full.
const DOWN: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];
/// What the kernel may charge a thread after the process's CPU clock has forgotten it; measured: 11 µs on average.
const LAST_SLICE_NS: u64 = 100_000;
/// Stages that cost usage when something is lost in them.
const COSTLY: [&str; 5] = ["vm_slots", "thread_slots", "vm_table", "tid_range", "slot_return"];

fn pinned(bpffs: &Bpffs, dir: Option<TempDir>, config: &str) -> Result<Agent> {
    Agent::with(Setup { dir, pins: Some(bpffs.dir()), ..Setup::of(config) })
}

/// Nobody watched a VM before its guest first ran, and that was before it was ready; from then on it was watched.
fn watched_all_along(life: &Life, ready: &[(&str, u64)]) -> Result<()> {
    let unobserved = number(&life.stop.as_ref().context("no stop")?["coverage"]["unobserved_ns"])?;
    let (_, ready_ns) = ready.iter().find(|(id, _)| life.start["vm_id"] == *id).context("not one of them")?;
    let most = ready_ns - number(&life.start["mono_ns"])?;
    ensure!(unobserved <= most, "{unobserved} ns unobserved, {most} at most: {life:?}");
    Ok(())
}

#[test]
fn what_runs_starts_and_ends_while_no_agent_does_is_billed_as_if_one_did() -> Result<()> {
    let Some(_host) = host("what_runs_starts_and_ends_while_no_agent_does_is_billed_as_if_one_did") else {
        return Ok(());
    };
    let bpffs = Bpffs::mount()?;
    let agent = pinned(&bpffs, None, HEARTBEAT)?;
    let mut keeps = TestVm::start(&["--id", "keeps", "--duty", "40"])?;
    let mut goes = TestVm::start(&["--id", "goes", "--duty", "60", "--vcpus", "2"])?;
    let mut ready = vec![("keeps", boot_ns()?), ("goes", boot_ns()?)];
    agent.wait_until("heartbeats", PATIENCE, |a| {
        let lines = a.ledger()?;
        Ok(["keeps", "goes"].iter().all(|id| only(&lines, id).is_ok_and(|life| life.usage.len() >= 2)))
    })?;
    let dir = agent.kill()?;
    let dead = Instant::now();
    let gone = end(&mut goes)?;
    let mut comes = TestVm::start(&["--id", "comes", "--duty", "50"])?;
    ready.push(("comes", boot_ns()?));
    let mut brief = TestVm::start(&["--id", "brief", "--duty", "80", "--churn", "100"])?;
    ready.push(("brief", boot_ns()?));
    std::thread::sleep(Duration::from_millis(700));
    let short = end(&mut brief)?;
    let report = burst(100, 4, &["--id", "spark", "--lifetime", "5ms", "--end", "halt"])?;
    std::thread::sleep(DOWN[usize::from(in_full())].saturating_sub(dead.elapsed()));

    let agent = pinned(&bpffs, Some(dir), HEARTBEAT)?;
    let back_ns = boot_ns()?;
    agent.wait_until("all stops", PATIENCE, |a| {
        let stops = a.ledger()?.iter().filter(|line| line["kind"] == "vm.compute.stop").count();
        Ok(stops >= 102)
    })?;
    for (id, truth) in [("goes", &gone), ("brief", &short)] {
        let life = only(&agent.ledger()?, id)?;
        hold(id, &life, truth, LAST_SLICES_NS)?;
        watched_all_along(&life, &ready)?;
    }
    let lines = agent.ledger()?;
    let told =
        lives(&lines)?.into_values().filter(|l| l.start["vm_id"].as_str().is_some_and(|i| i.starts_with("spark")));
    let told: Vec<Life> = told.collect();
    ensure!(told.len() == 100, "{} lives of 100", told.len());
    for vm in report["vms"].as_array().context("no VMs")? {
        let id = vm["id"].as_str().context("no id")?;
        let (cpu, truth) = (only(&lines, id)?.cpu_ns()?, vm["cpu_us"].as_u64().context("no CPU")? * 1_000);
        ensure!(truth <= cpu + 2_000 && cpu <= truth + LAST_SLICES_NS, "{id}: CPU {cpu}, truth {truth}");
        let stopped = number(&only(&lines, id)?.stop.context("no stop")?["mono_ns"])?;
        ensure!(stopped < back_ns, "{id}: it ended before the agent came back");
    }
    for (id, vm) in [("keeps", &mut keeps), ("comes", &mut comes)] {
        agent.wait_until("a heartbeat", PATIENCE, |a| Ok(!only(&a.ledger()?, id)?.usage.is_empty()))?;
        let truth = end(vm)?;
        let life = agent.ended(id)?;
        hold(id, &life, &truth, LAST_SLICES_NS)?;
        watched_all_along(&life, &ready)?;
    }
    let lines = agent.ledger()?;
    ensure!(lines.iter().all(|line| line["kind"] != "agent.gap"), "nothing was lost");
    let kinds = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!((kinds("vm.compute.start"), kinds("vm.compute.stop")), (104, 104));
    let scrape = agent.metrics()?;
    assert_eq!(scrape.sum("kvmeter_sample_errors_total", &[("source", "regression")]), 0.0);
    agent.verify()
}

/// Starts VMs that soon end, one after another, until told to stop; how many there were.
fn short_lives(over: &AtomicBool) -> Result<usize> {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let args = ["--id", &format!("brief-{count}"), "--duty", "50", "--lifetime", "20ms", "--end", "halt"];
        ensure!(Command::new(spawn::binary()?).args(args).status()?.success(), "{args:?} failed");
        count += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(count)
}

#[test]
fn agents_that_are_killed_one_after_another_count_every_exit_and_every_life_once() -> Result<()> {
    let Some(_host) = host("agents_that_are_killed_one_after_another_count_every_exit_and_every_life_once") else {
        return Ok(());
    };
    let bpffs = Bpffs::mount()?;
    let counted = TempDir::new()?;
    let file = counted.path().join("count");
    let path = file.to_str().context("no path")?;
    let agent = pinned(&bpffs, None, HEARTBEAT)?;
    let mut steady = TestVm::start(&["--id", "steady", "--duty", "40", "--vcpus", "2"])?;
    let began = Instant::now();
    let mut churns = TestVm::start(&["--id", "churns", "--duty", "20", "--churn", "200"])?;
    // Its vCPU leaves KVM_RUN all the time, also in the moments when one agent's programs take over from another's.
    let args = ["--id", "leaves", "--duty", "50", "--exit-rate", "20000", "--lifetime", "50s", "--end", "triple-fault"];
    let mut leaves = TestVm::start(&[&args[..], &["--count", path]].concat())?;
    agent.wait_vms(&["steady", "churns", "leaves"])?;
    let (over, mut current, mut restarts) = (AtomicBool::new(false), Some(agent), 0);
    let count = std::thread::scope(|scope| -> Result<usize> {
        let brief = scope.spawn(|| short_lives(&over));
        let restarted = (0..20).try_for_each(|round| {
            // The agent that sees it end is the one that can be asked for its exits.
            if began.elapsed() > Duration::from_secs(34) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200 + round % 5 * 40));
            let before = bpffs.settled()?;
            let dir = current.take().context("an agent runs")?.kill()?;
            current = Some(pinned(&bpffs, Some(dir), HEARTBEAT)?);
            let after = bpffs.settled()?;
            ensure!(before.len() == after.len() && before != after, "one generation at a time: {before:?}, {after:?}");
            restarts += 1;
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        let count = brief.join().expect("the thread of short lives panicked");
        restarted?;
        count
    })?;
    let agent = current.context("an agent runs")?;
    ensure!(restarts >= 5, "{restarts} restarts in time");
    let truth = end(&mut steady)?;
    hold("steady", &agent.ended("steady")?, &truth, LAST_SLICES_NS)?;
    let truth = end(&mut churns)?;
    let threads = 200 * (began.elapsed().as_secs() + 1);
    hold("churns", &agent.ended("churns")?, &truth, LAST_SLICES_NS + threads * LAST_SLICE_NS)?;
    leaves.wait()?;
    let told = agent.ended("leaves")?;
    agent.wait_ended(&["leaves"])?;
    let own: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let scrape = agent.metrics()?;
    for (ours, theirs) in [("mmio", "mmio"), ("shutdown", "shutdown"), ("intr", "interrupted")] {
        let labels = [("vm_id", "leaves"), ("reason", theirs)];
        let (due, told) =
            (own["exits"][ours].as_f64().unwrap_or(0.0), scrape.sum("kvmeter_vm_userspace_exits_total", &labels));
        eprintln!("{theirs}: {told} of {due}");
        ensure!(told == due, "{theirs}: the VMM counted {due}, the agents {told}");
    }
    ensure!(told.stop.is_some_and(|stop| stop["time_quality"] == "exact"), "its end was seen");
    agent.wait_until("the last brief stop", PATIENCE, |a| {
        Ok(a.ledger()?.iter().filter(|line| line["kind"] == "vm.compute.stop").count() >= count + 3)
    })?;
    let lines = agent.ledger()?;
    for number in 0..count {
        let id = format!("brief-{number}");
        let named = |line: &&Value| line["vm_id"].as_str().is_some_and(|id| !id.starts_with("brief-"));
        let others: Vec<_> = lines.iter().filter(|line| line["kind"] == "vm.compute.start").filter(named).collect();
        let life = only(&lines, &id).with_context(|| format!("other names: {others:?}"))?;
        ensure!(life.stop.as_ref().is_some_and(|stop| stop["time_quality"] == "exact"), "{id}: {life:?}");
    }
    eprintln!("{count} short lives over {restarts} restarts, {} pins", bpffs.pins()?.len());
    let scrape = agent.metrics()?;
    for stage in COSTLY {
        assert_eq!(scrape.sum("kvmeter_events_lost_total", &[("stage", stage)]), 0.0, "{stage}");
    }
    assert_eq!(scrape.sum("kvmeter_sample_errors_total", &[("source", "regression")]), 0.0);
    agent.verify()
}

#[test]
fn what_there_was_no_room_for_while_no_agent_ran_is_a_line_of_its_own() -> Result<()> {
    let Some(_host) = host("what_there_was_no_room_for_while_no_agent_ran_is_a_line_of_its_own") else { return Ok(()) };
    let (bpffs, config) = (Bpffs::mount()?, "[bpf]\nmax_vms = 9\n");
    let dir = pinned(&bpffs, None, config)?.kill()?;
    let began = boot_ns()?;
    burst(20, 2, &["--id", "many", "--lifetime", "5ms", "--end", "halt"])?;
    let agent = pinned(&bpffs, Some(dir), config)?;
    // One slot of nine stands for none.
    agent.wait_until("what there was room for, and for what there was none", PATIENCE, |a| {
        let lines = a.ledger()?;
        let stops = lines.iter().filter(|line| line["kind"] == "vm.compute.stop").count();
        Ok(stops >= 8 && lines.iter().any(|line| line["kind"] == "agent.gap"))
    })?;
    let lines = agent.ledger()?;
    let gaps: Vec<_> = lines.iter().filter(|line| line["kind"] == "agent.gap").collect();
    ensure!(gaps.len() == 1, "one gap: {gaps:?}");
    let (lost, text) = (gaps[0]["coverage"]["lost_events"].as_u64().unwrap_or(0), gaps[0]["cause"].as_str());
    eprintln!("{}", gaps[0]);
    ensure!(
        lost >= 12 && text.is_some_and(|text| text.starts_with("lost: ") && text.contains("vm_slots ")),
        "{gaps:?}"
    );
    ensure!(number(&gaps[0]["mono_ns"])? <= began, "it begins where an agent read last: {gaps:?}");
    ensure!(gaps[0]["time_quality"] == "bounded", "{gaps:?}");
    assert_eq!(lives(&lines)?.len(), 8, "and what there was room for is billed");
    agent.verify()?;
    // Once told, it is not told again.
    let agent = pinned(&bpffs, Some(agent.kill()?), config)?;
    agent.wait_samples(1)?;
    assert_eq!(agent.ledger()?.iter().filter(|line| line["kind"] == "agent.gap").count(), 1);
    assert_eq!(lives(&agent.ledger()?)?.len(), 8);
    agent.verify()
}

#[test]
fn tables_of_another_layout_are_closed_with_a_line_and_counting_begins_anew() -> Result<()> {
    let Some(_host) = host("tables_of_another_layout_are_closed_with_a_line_and_counting_begins_anew") else {
        return Ok(());
    };
    let bpffs = Bpffs::mount()?;
    let agent = pinned(&bpffs, None, HEARTBEAT)?;
    let mut lives_on = TestVm::start(&["--id", "lives-on", "--duty", "40"])?;
    let mut ends = TestVm::start(&["--id", "ends", "--duty", "40"])?;
    agent.wait_until("heartbeats", PATIENCE, |a| {
        let lines = a.ledger()?;
        Ok(["lives-on", "ends"].iter().all(|id| only(&lines, id).is_ok_and(|life| !life.usage.is_empty())))
    })?;
    let (before, dir) = (bpffs.pins()?, agent.kill()?);
    end(&mut ends)?;
    let agent = pinned(&bpffs, Some(dir), "[bpf]\nmax_vms = 100\n[ledger]\nheartbeat = \"1s\"\n")?;
    let stop = agent.stop_line("ends")?;
    assert_eq!(stop["time_quality"], "bounded", "what the other tables knew of its end cannot be read");
    agent.wait_until("a gap", PATIENCE, |a| Ok(a.ledger()?.iter().any(|line| line["kind"] == "agent.gap")))?;
    let gaps: Vec<_> = agent.ledger()?.into_iter().filter(|line| line["kind"] == "agent.gap").collect();
    ensure!(gaps.len() == 1 && gaps[0]["cause"] == "another layout", "{gaps:?}");
    ensure!(number(&gaps[0]["coverage"]["unobserved_ns"])? > 0, "{gaps:?}");
    let after = bpffs.pins()?;
    let layout = |pins: &[String]| pins[0].split('/').nth(2).map(str::to_owned);
    ensure!(before.len() == after.len() && layout(&before) != layout(&after), "{before:?}, {after:?}");
    let truth = end(&mut lives_on)?;
    hold("lives-on", &agent.ended("lives-on")?, &truth, LAST_SLICES_NS)?;
    agent.verify()
}

#[test]
fn release_lets_everything_go_and_doctor_tells_what_is_pinned() -> Result<()> {
    let Some(_host) = host("release_lets_everything_go_and_doctor_tells_what_is_pinned") else { return Ok(()) };
    let bpffs = Bpffs::mount()?;
    let agent = pinned(&bpffs, None, "")?;
    let row = |agent: &Agent| -> Result<Value> {
        let told: Value = serde_json::from_slice(&agent.command(&["doctor", "--json"])?.stdout)?;
        let rows = told["features"].as_array().context("no features")?;
        rows.iter().find(|row| row["name"] == "pins").cloned().context("no row of pins")
    };
    let told = row(&agent)?;
    ensure!(told["available"] == true && told["gives"].as_str().is_some_and(|t| t.contains("; since 2")), "{told}");
    let status = agent.json("/v1/status")?;
    ensure!(status["features"].as_array().is_some_and(|all| all.contains(&told)), "{status}");
    let pins = bpffs.pins()?;
    ensure!(pins.iter().any(|pin| pin.ends_with("/sched_switch")), "{pins:?}");
    let released = agent.command(&["release"])?;
    ensure!(released.status.code() == Some(0), "{released:?}");
    ensure!(String::from_utf8_lossy(&released.stdout).contains("an agent runs"), "{released:?}");
    assert_eq!(bpffs.pins()?, Vec::<String>::new());
    let again = agent.command(&["release"])?;
    assert_eq!(again.status.code(), Some(3), "{again:?}");
    // The agent that ran goes on, and what it held ends with it.
    agent.wait_samples(1)?;
    let (_, _, dir) = agent.stop()?;
    assert_eq!(bpffs.pins()?, Vec::<String>::new());
    let agent = pinned(&bpffs, Some(dir), "")?;
    let ours = bpffs.pins()?;
    assert_eq!(ours.len(), pins.len());
    let (status, _, dir) = agent.stop()?;
    ensure!(status.success() && bpffs.pins()? == ours, "an agent that ends in order leaves them");
    drop(dir);
    Ok(())
}
