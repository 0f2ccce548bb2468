//! Laws: a VM is one life, each fact is on exactly one line, the dead are still charged; how a VM ended is told by
//! evidence, never guessed.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    clock::{CLOCK_PAIR_NS, boot_ns, tick_ns, unix_ns, unix_of},
    ledger::{Life, lives, number},
    process::{last_slices_ns, process_cpu_ns, settled_cpu_ns, stat, wait_zombie},
    skip::host,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const CPU: &str = "kvmeter_vm_cpu_seconds_total";
const RUNNING: &str = "kvmeter_vm_running";
const PATIENCE: Duration = Duration::from_secs(60);

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
    assert!(truth.cpu_ns <= cpu && cpu <= truth.cpu_ns + last_slices_ns(), "{id}: CPU {cpu}, truth {}", truth.cpu_ns);
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
    // The last one is counted once its line is durable, a moment after it can be read.
    agent.wait_ended(&[ENDS[ENDS.len() - 1].id])?;
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
    // Each runs and is one.
    agent.wait_vms(&running.iter().map(|(id, ..)| *id).collect::<Vec<_>>())?;
    agent.wait_samples(1)?;
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

#[test]
fn a_kvm_vm_that_never_runs_gets_no_line() -> Result<()> {
    let Some(_host) = host("a_kvm_vm_that_never_runs_gets_no_line") else { return Ok(()) };
    let agent = Agent::with(Setup::of("[discovery]\nscan_interval = \"1s\"\n"))?;
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
    let agent = Agent::with(Setup::of("[metrics]\nlinger = \"5s\"\n"))?;
    let mut vm = TestVm::start(&["--id", "ghost", "--duty", "50"])?;
    agent.wait_vms(&["ghost"])?;
    agent.wait_samples(1)?;
    let alive = agent.metrics()?;
    assert_eq!(alive.one(RUNNING, &[("vm_id", "ghost")]), Some(1.0));
    assert_eq!(alive.one("kvmeter_vm_vcpus", &[("vm_id", "ghost")]), Some(1.0));
    vm.signal(Signal::SIGTERM)?;
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
        assert!(asked < stop_ns + 60_000_000_000, "it lingers too long");
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
    assert!(gone >= stop_ns + 4_900_000_000, "it lingered only {} ns", gone - stop_ns);
    Ok(())
}
