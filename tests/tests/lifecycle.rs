//! Laws: a VM is an incarnation, each fact is on exactly one line, the dead are still charged; how a VM ended is told
//! by evidence, never guessed.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::fs::FileExt as _,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{
        Agent, Life, Setup, boot_ns, ledger_in, lives, number, process_cpu_ns, settled_cpu_ns, verify_in, wait_zombie,
    },
    skip::host,
    vmm::spawn::TestVm,
};
use nix::{
    sys::signal::Signal,
    unistd::{SysconfVar, sysconf},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const CPU: &str = "kvmeter_vm_cpu_seconds_total";
const RUNNING: &str = "kvmeter_vm_running";
const PATIENCE: Duration = Duration::from_secs(20);
/// What the kernel may charge a VM's dying threads after its CPU clock has forgotten them.
const LAST_SLICES_NS: u64 = 20_000_000;
/// Two readings of clock pairs, by the agent and by the test.
const CLOCK_PAIR_NS: u64 = 2_000_000;

/// What is known of a VM from outside the agent.
struct Truth {
    pid: i32,
    start_tick: u64,
    ready_ns: u64,
    end_ns: (u64, u64),
    cpu_ns: u64,
}

/// Ends a VM, or waits for its own end, and measures it as a zombie before it is reaped.
fn truth_of(mut vm: TestVm, ready_ns: u64, signal: Option<Signal>) -> Result<Truth> {
    let pid = vm.pid();
    let start_tick = stat(pid, 22)?;
    let alive_cpu_ns = process_cpu_ns(pid)?;
    let mut began = ready_ns;
    if let Some(signal) = signal {
        began = boot_ns()?;
        vm.signal(signal)?;
    }
    let ended = wait_zombie(pid)?;
    let cpu_ns = settled_cpu_ns(pid)?;
    ensure!(cpu_ns >= alive_cpu_ns, "the CPU clock of {pid} fell");
    vm.wait()?;
    Ok(Truth { pid, start_tick, ready_ns, end_ns: (began, ended), cpu_ns })
}

/// A field of `/proc/PID/stat`, counted from 1 as proc(5) does.
fn stat(pid: i32, field: usize) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("no comm")?;
    Ok(rest.split_ascii_whitespace().nth(field - 3).context("no such field")?.parse()?)
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

/// A life against what is known from outside.
fn check(id: &str, life: &Life, truth: &Truth) -> Result<()> {
    let stop = life.stop.as_ref().context("no stop")?;
    let (start_ns, stop_ns) = (number(&life.start["mono_ns"])?, number(&stop["mono_ns"])?);
    let incarnation = life.start["incarnation"].as_str().context("no incarnation")?;
    assert!(incarnation.ends_with(&format!("-{}-{start_ns}", truth.pid)), "{id}: {incarnation}");
    assert_eq!(start_ns / tick_ns()?, truth.start_tick, "{id}: the start is the process's");
    let told = unix_ns(&life.start["emitted_at"])?;
    assert!(told.abs_diff(unix_of(start_ns)?) < CLOCK_PAIR_NS, "{id}: emitted_at is the same instant");
    let first_run = unix_ns(&life.start["evidence"]["first_run_at"])?;
    assert!(told <= first_run && first_run <= unix_of(truth.ready_ns)? + CLOCK_PAIR_NS, "{id}: first guest entry");
    assert_eq!((&life.start["time_quality"], &stop["time_quality"]), (&"exact".into(), &"exact".into()), "{id}");
    let (began, ended) = truth.end_ns;
    assert!(began <= stop_ns && stop_ns <= ended, "{id}: ended at {stop_ns}, between {began} and {ended}");
    assert!(unix_ns(&stop["emitted_at"])?.abs_diff(unix_of(stop_ns)?) < CLOCK_PAIR_NS, "{id}");
    let usage = &stop["usage"];
    let cpu = number(&usage["cpu_ns"])?;
    assert_eq!(cpu, number(&usage["cpu_vcpu_ns"])? + number(&usage["cpu_vmm_ns"])?, "{id}: parts sum to the whole");
    eprintln!("{id}: CPU {cpu} ns, {} more than the process's clock", cpu.wrapping_sub(truth.cpu_ns).cast_signed());
    assert!(truth.cpu_ns <= cpu && cpu <= truth.cpu_ns + LAST_SLICES_NS, "{id}: CPU {cpu}, truth {}", truth.cpu_ns);
    let lost = &stop["coverage"]["lost_events"];
    assert_eq!(lost, 0, "{id}: {lost} lost");
    Ok(())
}

struct End {
    id: &'static str,
    args: &'static [&'static str],
    signal: Option<Signal>,
    reason: &'static str,
    cause: &'static str,
    evidence: &'static str,
}

const fn end(
    id: &'static str,
    args: &'static [&'static str],
    signal: Option<Signal>,
    (cause, reason): (&'static str, &'static str),
    evidence: &'static str,
) -> End {
    End { id, args, signal, reason, cause, evidence }
}

const USER: (&str, &str) = ("exit", "stop-user");
const CODE: (&str, &str) = ("exit", "stop-crash");
const ASKED: (&str, &str) = ("signal", "stop-user");
const KILLED: (&str, &str) = ("signal", "stop-crash");
const GUEST: (&str, &str) = ("guest-crash", "stop-crash");
const LATER: &str = "400ms";
const ENDS: [End; 10] = [
    end("end-exit0", &["--lifetime", LATER, "--end", "exit0"], None, USER, r#"{"exit_code":0}"#),
    end("end-exit3", &["--lifetime", LATER, "--end", "exit=3"], None, CODE, r#"{"exit_code":3}"#),
    end("end-halt", &["--lifetime", LATER, "--end", "halt"], None, USER, r#"{"exit_code":0}"#),
    end("end-term", &[], Some(Signal::SIGTERM), ASKED, r#"{"signal":15,"core_dumped":false}"#),
    end("end-int", &[], Some(Signal::SIGINT), ASKED, r#"{"signal":2,"core_dumped":false}"#),
    end("end-kill", &[], Some(Signal::SIGKILL), KILLED, r#"{"signal":9,"core_dumped":false}"#),
    end("end-suicide", &["--lifetime", LATER, "--end", "sigkill"], None, KILLED, r#"{"signal":9,"core_dumped":false}"#),
    end("end-crash", &["--lifetime", LATER, "--end", "crash"], None, KILLED, r#"{"signal":11,"core_dumped":false}"#),
    end(
        "end-fault0",
        &["--lifetime", LATER, "--end", "triple-fault", "--exit-code", "0"],
        None,
        GUEST,
        r#"{"exit_code":0,"kvm_exit":"KVM_EXIT_SHUTDOWN"}"#,
    ),
    end(
        "end-fault3",
        &["--lifetime", LATER, "--end", "triple-fault", "--exit-code", "3"],
        None,
        GUEST,
        r#"{"exit_code":3,"kvm_exit":"KVM_EXIT_SHUTDOWN"}"#,
    ),
];

#[test]
fn every_end_is_told_apart_by_its_evidence() -> Result<()> {
    let Some(_host) = host("every_end_is_told_apart_by_its_evidence") else { return Ok(()) };
    let agent = Agent::start()?;
    for end in &ENDS {
        let vm = TestVm::start(&[&["--id", end.id, "--duty", "50"], end.args].concat())?;
        let ready = boot_ns()?;
        if end.signal.is_some() {
            std::thread::sleep(Duration::from_millis(200));
        }
        let truth = truth_of(vm, ready, end.signal)?;
        let life = agent.ended(end.id)?;
        check(end.id, &life, &truth)?;
        let stop = life.stop.context("no stop")?;
        assert_eq!((&stop["cause"], &stop["reason"]), (&end.cause.into(), &end.reason.into()), "{}", end.id);
        let mut told = stop["evidence"].clone();
        if let Some(told) = told.as_object_mut() {
            // Who killed is evidence too, where it is known.
            told.retain(|key, _| !key.starts_with("killer_"));
        }
        let due: Value = serde_json::from_str(end.evidence)?;
        assert_eq!(told, due, "{}", end.id);
    }
    agent.verify()?;
    starts_and_stops_are_counted_as_the_ledger_tells(&agent)
}

fn starts_and_stops_are_counted_as_the_ledger_tells(agent: &Agent) -> Result<()> {
    let all = lives(&agent.ledger()?)?;
    let mut reasons = BTreeMap::<String, f64>::new();
    for stop in all.values().filter_map(|life| life.stop.as_ref()) {
        *reasons.entry(stop["reason"].as_str().unwrap_or("unknown").to_owned()).or_default() += 1.0;
    }
    let scrape = agent.metrics()?;
    for (reason, count) in reasons {
        assert_eq!(scrape.sum("kvmeter_vm_stops_total", &[("reason", &reason)]), count, "{reason}");
    }
    assert!(scrape.sum("kvmeter_vm_starts_total", &[]) >= ENDS.len() as f64);
    Ok(())
}

#[test]
fn a_vm_of_any_shape_is_one_life_with_all_its_cpu_time() -> Result<()> {
    let Some(_host) = host("a_vm_of_any_shape_is_one_life_with_all_its_cpu_time") else { return Ok(()) };
    let agent = Agent::start()?;
    let shapes: [(&str, &[&str], u64); 6] = [
        ("shape-four", &["--vcpus", "4"], 4),
        ("shape-late", &["--vcpus", "3", "--late-vcpus", "150ms"], 3),
        ("shape-main", &["--main-vcpu"], 1),
        ("shape-leader", &["--leader-exits", "--vcpus", "2"], 2),
        ("shape-three", &["--vms", "3"], 3),
        ("shape-busy", &["--workers", "10", "--worker-duty", "3", "--churn", "50"], 1),
    ];
    let mut running = Vec::new();
    for (id, args, cpus) in shapes {
        let vm = TestVm::start(&[&["--id", id, "--duty", "15"], args].concat())?;
        running.push((id, cpus, vm, boot_ns()?));
    }
    agent.wait_samples(2)?;
    let scrape = agent.metrics()?;
    for (id, ..) in &running {
        assert_eq!(scrape.one(RUNNING, &[("vm_id", id)]), Some(1.0), "{id} runs and is one");
    }
    for (id, cpus, vm, ready) in running {
        let truth = truth_of(vm, ready, Some(Signal::SIGTERM))?;
        let life = agent.ended(id)?;
        check(id, &life, &truth)?;
        let stop = life.stop.context("no stop")?;
        assert_eq!(stop["shape"]["cpu"], cpus, "{id}");
        assert!(number(&stop["usage"]["cpu_vcpu_ns"])? > 0, "{id}");
    }
    agent.verify()
}

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
    agent.wait_samples(2)?;
    for vm in &vms {
        let life = life_of(&agent, vm.pid())?;
        let vm_id = fallback(&life, vm.pid());
        assert_eq!(life.start["vm_id"], vm_id, "{:?}", life.start["name"]);
        let name = life.start["name"].as_str().unwrap_or_default();
        assert!(name.len() <= 128 && !name.chars().any(char::is_control), "{name:?}");
        let scrape = agent.metrics()?;
        assert_eq!(scrape.one(RUNNING, &[("vm_id", &vm_id), ("name", name)]), Some(1.0), "{name:?}");
        assert!(scrape.nanos(CPU, &vm_id) > 0, "{name:?}");
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
    agent.wait_samples(2)?;
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

#[test]
fn a_kvm_vm_that_never_runs_gets_no_line() -> Result<()> {
    let Some(_host) = host("a_kvm_vm_that_never_runs_gets_no_line") else { return Ok(()) };
    let agent = Agent::with(Setup { config: "[discovery]\nscan_interval = \"1s\"\n".to_owned(), ..Setup::default() })?;
    let unrun = |agent: &Agent| Ok::<_, anyhow::Error>(agent.metrics()?.one("kvmeter_unrun_vms_total", &[]));
    let vm = TestVm::start(&["--id", "never", "--unrun", "--vcpus", "2"])?;
    let mark = format!("-{}-", vm.pid());
    agent.wait_samples(3)?;
    assert_eq!(unrun(&agent)?, Some(0.0), "it may still run");
    drop(vm);
    agent.wait_until("its count", PATIENCE, |agent| Ok(unrun(agent)? == Some(1.0)))?;
    let mut ran = TestVm::start(&["--id", "always", "--vms", "2", "--lifetime", "50ms"])?;
    ran.wait()?;
    agent.ended("always")?;
    agent.wait_samples(2)?;
    assert_eq!(unrun(&agent)?, Some(1.0), "a VM that ran is not counted");
    let lines = agent.ledger()?;
    assert!(!lines.iter().any(|line| line["vm_id"] == "never" || line["name"] == "never"));
    assert!(!lines.iter().any(|line| line["incarnation"].as_str().is_some_and(|i| i.contains(&mark))));
    agent.verify()
}

#[test]
fn a_stopped_vm_keeps_its_final_counters_until_it_goes() -> Result<()> {
    let Some(_host) = host("a_stopped_vm_keeps_its_final_counters_until_it_goes") else { return Ok(()) };
    let agent = Agent::with(Setup { config: "[metrics]\nlinger = \"2s\"\n".to_owned(), ..Setup::default() })?;
    let mut vm = TestVm::start(&["--id", "ghost", "--duty", "50", "--lifetime", "1500ms"])?;
    agent.wait_samples(1)?;
    let alive = agent.metrics()?;
    assert_eq!(alive.one(RUNNING, &[("vm_id", "ghost")]), Some(1.0));
    assert_eq!(alive.one("kvmeter_vm_vcpus", &[("vm_id", "ghost")]), Some(1.0));
    wait_zombie(vm.pid())?;
    let stop = agent.stop_line("ghost")?;
    vm.wait()?;
    agent.wait_until("the end", PATIENCE, |a| Ok(a.metrics()?.one(RUNNING, &[("vm_id", "ghost")]) == Some(0.0)))?;
    let stop_ns = number(&stop["mono_ns"])?;
    let mut gone = 0;
    while gone == 0 {
        let asked = boot_ns()?;
        let scrape = agent.metrics()?;
        let series: Vec<_> =
            scrape.0.iter().filter(|s| s.labels.get("vm_id").is_some_and(|id| id == "ghost")).collect();
        if series.is_empty() {
            gone = asked;
            continue;
        }
        assert!(asked < stop_ns + 5_000_000_000, "it lingers too long");
        assert_eq!(
            scrape.nanos(CPU, "ghost"),
            number(&stop["usage"]["cpu_ns"])?,
            "the final counters are the ledger's"
        );
        let gauges = series.iter().filter(|s| !s.name.ends_with("_total")).map(|s| s.name.as_str());
        let gauges: Vec<_> = gauges.filter(|name| *name != RUNNING && *name != "kvmeter_vm_info").collect();
        assert!(gauges.is_empty(), "{gauges:?}");
        assert_eq!(scrape.one("kvmeter_vm_info", &[("vm_id", "ghost")]), Some(1.0));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(gone >= stop_ns + 1_900_000_000, "it lingered only {} ns", gone - stop_ns);
    Ok(())
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
    assert!(took < Duration::from_secs(1), "{took:?}");
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
