//! Laws: the agent's death is not a VM's death; each fact is on exactly one line, whoever writes it; a reused process
//! id is a different VM.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Write as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{
        Agent, Life, Setup, boot_ns, ledger_in, lives, number, process_cpu_ns, settled_cpu_ns, verify_in, wait_zombie,
    },
    skip::host,
    vmm::spawn::{self, TestVm},
};
use nix::{
    sys::signal::Signal,
    unistd::{SysconfVar, sysconf},
};
use serde_json::Value;
use tempfile::TempDir;

const CPU: &str = "kvmeter_vm_cpu_seconds_total";
const RUNNING: &str = "kvmeter_vm_running";
const PATIENCE: Duration = Duration::from_secs(20);
const HEARTBEAT: &str = "[ledger]\nheartbeat = \"1s\"\n";
/// What the kernel may charge a VM's dying threads after its CPU clock has forgotten them.
const LAST_SLICES_NS: u64 = 20_000_000;
/// Two readings of clock pairs, by the agent and by the test.
const CLOCK_PAIR_NS: u64 = 2_000_000;

/// The clock tick a process started in, from `/proc/PID/stat`.
fn start_tick(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("no comm")?;
    Ok(rest.split_ascii_whitespace().nth(22 - 3).context("no start time")?.parse()?)
}

fn tick_ns() -> Result<u64> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(1_000_000_000 / u64::try_from(per_second)?)
}

fn unix_ns(time: &Value) -> Result<u64> {
    let since = humantime::parse_rfc3339(time.as_str().context("no time")?)?.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_nanos())?)
}

/// The wall clock at an instant of the boot clock.
fn unix_of(boot: u64) -> Result<u64> {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    Ok(u64::try_from(wall)? - boot_ns()? + boot)
}

fn with(dir: Option<TempDir>, config: &str) -> Result<Agent> {
    Agent::with(Setup { dir, config: config.to_owned(), ..Setup::default() })
}

/// The lives of a vm_id, in the order they began.
fn lives_of(lines: &[Value], vm_id: &str) -> Result<Vec<Life>> {
    let mut found: Vec<_> = lives(lines)?.into_values().filter(|life| life.start["vm_id"] == vm_id).collect();
    found.sort_by_key(|life| life.start["seq"].as_u64());
    Ok(found)
}

fn only(lines: &[Value], vm_id: &str) -> Result<Life> {
    let mut found = lives_of(lines, vm_id)?;
    ensure!(found.len() == 1, "{} lives of {vm_id}", found.len());
    found.pop().context("one life")
}

/// The only life of a process.
fn of_process(lines: &[Value], pid: i32) -> Result<Life> {
    let mark = format!("-{pid}-");
    let mut found = lives(lines)?.into_iter().filter(|(incarnation, _)| incarnation.contains(&mark));
    let (_, life) = found.next().with_context(|| format!("no life of process {pid}"))?;
    ensure!(found.next().is_none(), "several lives of process {pid}");
    Ok(life)
}

/// The CPU time of a stop line.
fn cpu_of(life: &Life) -> Result<u64> {
    number(&life.stop.as_ref().context("no stop")?["usage"]["cpu_ns"])
}

#[test]
fn vms_that_ran_before_the_agent_have_their_true_start_and_all_their_cpu_time() -> Result<()> {
    let Some(_host) = host("vms_that_ran_before_the_agent_have_their_true_start_and_all_their_cpu_time") else {
        return Ok(());
    };
    let shapes: [(&str, &[&str]); 6] = [
        ("old-idle", &[]),
        ("old-spin", &["--duty", "100"]),
        ("old-half", &["--duty", "25", "--vcpus", "2", "--workers", "3", "--worker-duty", "5"]),
        ("old-main", &["--duty", "20", "--main-vcpu"]),
        ("old-leader", &["--duty", "20", "--leader-exits"]),
        ("old-churn", &["--duty", "20", "--churn", "100"]),
    ];
    let mut vms = Vec::new();
    for (id, args) in shapes {
        vms.push((id, TestVm::start(&[&["--id", id], args].concat())?));
    }
    std::thread::sleep(Duration::from_millis(500));
    let agent = Agent::start()?;
    agent.wait_samples(1)?;
    let before: Vec<_> = vms.iter().map(|(_, vm)| process_cpu_ns(vm.pid())).collect::<Result<_>>()?;
    agent.wait_samples(1)?;
    let scrape = agent.metrics()?;
    let lines = agent.ledger()?;
    for ((id, vm), before) in vms.iter().zip(before) {
        let life = of_process(&lines, vm.pid())?;
        let start_ns = number(&life.start["mono_ns"])?;
        assert_eq!(start_ns / tick_ns()?, start_tick(vm.pid())?, "{id}: its true start");
        assert!(unix_ns(&life.start["emitted_at"])?.abs_diff(unix_of(start_ns)?) < CLOCK_PAIR_NS, "{id}");
        assert_eq!(life.start.get("reason"), None, "{id}: nobody saw why it started");
        let vm_id = life.start["vm_id"].as_str().context("no vm_id")?;
        assert_eq!(scrape.one(RUNNING, &[("vm_id", vm_id)]), Some(1.0), "{id}");
        let (cpu, after) = (scrape.nanos(CPU, vm_id), process_cpu_ns(vm.pid())?);
        assert!(before <= cpu && cpu <= after + LAST_SLICES_NS, "{id}: {before} <= {cpu} <= {after}");
    }
    assert_eq!(scrape.sum("kvmeter_vm_starts_total", &[]), 0.0, "adopted VMs are no starts");
    for (id, mut vm) in vms {
        vm.signal(Signal::SIGTERM)?;
        wait_zombie(vm.pid())?;
        let truth = settled_cpu_ns(vm.pid())?;
        vm.wait()?;
        agent.wait_until("its stop", PATIENCE, |a| Ok(of_process(&a.ledger()?, vm.pid())?.stop.is_some()))?;
        let life = of_process(&agent.ledger()?, vm.pid())?;
        let cpu = cpu_of(&life)?;
        eprintln!("{id}: CPU {cpu} ns, {} more than the process's clock", cpu.wrapping_sub(truth).cast_signed());
        assert!(truth <= cpu && cpu <= truth + LAST_SLICES_NS, "{id}: CPU {cpu}, truth {truth}");
        let stop = life.stop.context("no stop")?;
        assert_eq!((&stop["time_quality"], &stop["cause"]), (&"exact".into(), &"signal".into()), "{id}");
        assert!(number(&stop["coverage"]["unobserved_ns"])? > 0, "{id}: nobody watched its beginning");
    }
    agent.verify()
}

#[test]
fn a_vm_whose_leader_has_ended_is_adopted_with_its_identity() -> Result<()> {
    let Some(_host) = host("a_vm_whose_leader_has_ended_is_adopted_with_its_identity") else { return Ok(()) };
    let vm = TestVm::start(&["--id", "headless", "--name", "its name", "--duty", "20", "--leader-exits"])?;
    std::thread::sleep(Duration::from_millis(100));
    let agent = Agent::start()?;
    agent.wait_samples(1)?;
    let life = of_process(&agent.ledger()?, vm.pid())?;
    assert_eq!((&life.start["vm_id"], &life.start["name"]), (&"headless".into(), &"its name".into()));
    Ok(())
}

#[test]
fn a_killed_agents_vms_go_on_and_those_that_ended_meanwhile_end_once() -> Result<()> {
    let Some(_host) = host("a_killed_agents_vms_go_on_and_those_that_ended_meanwhile_end_once") else { return Ok(()) };
    let agent = with(None, HEARTBEAT)?;
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
    let agent = with(Some(dir), HEARTBEAT)?;
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
    let agent = with(Some(dir), HEARTBEAT)?;
    for (id, mut vm) in vms {
        vm.signal(Signal::SIGTERM)?;
        wait_zombie(vm.pid())?;
        let truth = settled_cpu_ns(vm.pid())?;
        vm.wait()?;
        agent.stop_line(id)?;
        let life = only(&agent.ledger()?, id)?;
        let cpu = cpu_of(&life)?;
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
        let agent = with(dir, HEARTBEAT)?;
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
    let agent = with(dir, HEARTBEAT)?;
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
fn a_torn_tail_is_cut_back_and_told_and_nothing_else_is_lost() -> Result<()> {
    let Some(_host) = host("a_torn_tail_is_cut_back_and_told_and_nothing_else_is_lost") else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = TestVm::start(&["--id", "torn", "--duty", "10"])?;
    agent.wait_until("the start", PATIENCE, |a| Ok(!a.lines("vm.compute.start", "torn")?.is_empty()))?;
    let dir = agent.kill()?;
    let path = dir.path().join("data/metering/ledger.jsonl");
    let before = std::fs::read(&path)?;
    let tail = b"{\"kind\":\"vm.compute.stop\",\"vm_id\":\"torn\",\"hyperv";
    std::fs::File::options().append(true).open(&path)?.write_all(tail)?;
    ensure!(verify_in(dir.path()).is_err(), "a torn tail of a dead agent is a fault");
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::default() })?;
    let after = std::fs::read(&path)?;
    assert!(after.starts_with(&before), "no line is changed");
    let recovered: Vec<_> = agent.ledger()?.into_iter().filter(|line| line["kind"] == "ledger.recovered").collect();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert_eq!(recovered[0]["seq"], u64::try_from(before.split(|b| *b == b'\n').count())?, "the next number");
    drop(vm);
    agent.stop_line("torn")?;
    assert!(only(&agent.ledger()?, "torn")?.stop.is_some());
    agent.verify()
}

/// Why an agent did not start: its exit status and log.
fn refusal(setup: Setup) -> Result<String> {
    match Agent::with(setup) {
        Ok(_) => anyhow::bail!("the agent started"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
fn damage_in_the_middle_stops_the_agent_loudly() -> Result<()> {
    let Some(_host) = host("damage_in_the_middle_stops_the_agent_loudly") else { return Ok(()) };
    let agent = Agent::start()?;
    let mut vm = TestVm::start(&["--id", "hurt", "--lifetime", "50ms"])?;
    vm.wait()?;
    agent.stop_line("hurt")?;
    let (_, _, dir) = agent.stop()?;
    verify_in(dir.path())?;
    for (line, at_byte) in [(1, 10), (2, 300), (3, 40)] {
        let path = dir.path().join("data/metering/ledger.jsonl");
        let whole = std::fs::read(&path)?;
        let offset: usize = whole.split_inclusive(|b| *b == b'\n').take(line - 1).map(<[u8]>::len).sum();
        let mut damaged = whole.clone();
        damaged[offset + at_byte] ^= 1;
        std::fs::write(&path, &damaged)?;
        ensure!(verify_in(dir.path()).is_err(), "verify sees it too");
        let wrapper = ["env".into(), format!("KVMETER_DATA_DIR={}", dir.path().join("data").display()).into()];
        let why = refusal(Setup { wrapper: wrapper.to_vec(), ..Setup::default() })?;
        assert!(why.contains("exit status: 1"), "{why}");
        assert!(why.contains(&format!("line {line} at byte {offset}")), "{why}");
        assert_eq!(std::fs::read(&path)?, damaged, "nothing was changed");
        std::fs::write(&path, &whole)?;
    }
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::default() })?;
    agent.verify()
}

#[test]
fn one_agent_writes_a_ledger() -> Result<()> {
    let Some(_host) = host("one_agent_writes_a_ledger") else { return Ok(()) };
    let agent = Agent::start()?;
    let data: OsString = format!("KVMETER_DATA_DIR={}", agent.dir().join("data").display()).into();
    let why = refusal(Setup { wrapper: ["env".into(), data].to_vec(), ..Setup::default() })?;
    assert!(why.contains("exit status: 1"), "{why}");
    let lock = agent.metering().join("lock");
    assert!(why.contains(&lock.display().to_string()), "{why}");
    assert!(why.contains(&format!("pid {}", agent.pid())), "{why}");
    let mut vm = TestVm::start(&["--id", "still", "--lifetime", "20ms"])?;
    vm.wait()?;
    agent.ended("still")?;
    assert_eq!(agent.ledger()?.iter().filter(|line| line["kind"] == "agent.up").count(), 1);
    agent.verify()
}

/// Starts a VM whose process id is this one; tries again when somebody else was faster.
fn start_as(pid: i32, args: &[&str]) -> Result<Option<TestVm>> {
    for _ in 0..20 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        let vm = TestVm::start(args)?;
        if vm.pid() == pid {
            return Ok(Some(vm));
        }
        if Path::new(&format!("/proc/{pid}")).exists() {
            // Somebody else has it, for as long as they like.
            return Ok(None);
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
        let cpu = cpu_of(life)?;
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
    let agent = with(None, HEARTBEAT)?;
    let vm = TestVm::start(&["--id", "relief", "--duty", "50"])?;
    let pid = vm.pid();
    agent.wait_until("a heartbeat", PATIENCE, |a| Ok(!a.lines("vm.compute.usage", "relief")?.is_empty()))?;
    let dir = agent.kill()?;
    drop(vm);
    let mut next = start_as(pid, &["--id", "relief", "--duty", "10"])?.context("the process id is taken")?;
    let agent = with(Some(dir), HEARTBEAT)?;
    agent.wait_until("two starts", PATIENCE, |a| Ok(a.lines("vm.compute.start", "relief")?.len() >= 2))?;
    next.signal(Signal::SIGTERM)?;
    wait_zombie(pid)?;
    let truth = settled_cpu_ns(pid)?;
    next.wait()?;
    agent.wait_until("two stops", PATIENCE, |a| Ok(a.lines("vm.compute.stop", "relief")?.len() >= 2))?;
    let found = lives_of(&agent.ledger()?, "relief")?;
    let qualities = found.iter().map(|life| life.stop.as_ref().map(|stop| stop["time_quality"].clone()));
    assert_eq!(qualities.collect::<Vec<_>>(), [Some("bounded".into()), Some("exact".into())]);
    let cpu = cpu_of(&found[1])?;
    assert!(truth <= cpu && cpu <= truth + LAST_SLICES_NS, "CPU {cpu}, truth {truth}");
    agent.verify()
}
