//! Law: the dead are still charged: a VM that lives shorter than any interval has exact usage and both its lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::Agent,
    ledger::{Life, lives, number},
    skip::{host, skipped},
    vmm::spawn::burst,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// rusage counts whole microseconds.
const ROUNDING_NS: u64 = 2_000;
/// What the kernel may charge a VM's dying threads after rusage has forgotten them.
const LAST_SLICES_NS: u64 = 20_000_000;

/// The kernel's own trace of returns from KVM_RUN: which processes did run a guest.
struct Trace(PathBuf);

impl Trace {
    fn start() -> Option<Self> {
        let instances = Path::new("/sys/kernel/tracing/instances");
        if !instances.is_dir() {
            // Not every host mounts it at boot.
            let mount = ["-t", "tracefs", "nodev", "/sys/kernel/tracing"];
            std::process::Command::new("mount").args(mount).status().ok()?;
        }
        let path = instances.join(format!("kvmeter-tests-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        let trace = Self(path);
        let set = [
            ("trace_options", "record-tgid"),
            ("buffer_size_kb", "8192"),
            ("events/kvm/kvm_userspace_exit/enable", "1"),
        ];
        set.into_iter().all(|(file, text)| std::fs::write(trace.0.join(file), text).is_ok()).then_some(trace)
    }

    /// Processes that left KVM_RUN since the start.
    fn ran(&self) -> Result<BTreeSet<u64>> {
        let text = std::fs::read_to_string(self.0.join("trace"))?;
        let lines = text.lines().filter(|line| line.contains(": kvm_userspace_exit: "));
        lines.map(|line| tgid(line).with_context(|| format!("no process in: {line}"))).collect()
    }
}

/// The process in a line such as `vcpu0-18702   (  18694) [000] ..... 4446.123166: kvm_userspace_exit: …`.
fn tgid(line: &str) -> Option<u64> {
    line.split_once('(')?.1.split_once(')')?.0.trim().parse().ok()
}

impl Drop for Trace {
    fn drop(&mut self) {
        drop(std::fs::write(self.0.join("events/enable"), "0"));
        drop(std::fs::remove_dir(&self.0));
    }
}

#[test]
fn five_hundred_vms_of_a_few_milliseconds_are_each_told_and_charged() -> Result<()> {
    let Some(_host) = host("five_hundred_vms_of_a_few_milliseconds_are_each_told_and_charged") else { return Ok(()) };
    tell_and_charge("five_hundred_vms_of_a_few_milliseconds_are_each_told_and_charged", 500, 8, "3ms")
}

#[test]
fn five_hundred_vms_that_all_ran_have_five_hundred_starts_and_stops() -> Result<()> {
    let Some(_host) = host("five_hundred_vms_that_all_ran_have_five_hundred_starts_and_stops") else { return Ok(()) };
    let agent = Agent::start()?;
    // The vCPU itself ends each VM, so every one of them has run.
    burst(500, 8, &["--id", "x", "--lifetime", "3ms", "--end", "halt"])?;
    let count =
        |kind: &str| -> Result<usize> { Ok(agent.ledger()?.iter().filter(|line| line["kind"] == kind).count()) };
    agent.wait_until("500 stops", PATIENCE, |_| Ok(count("vm.compute.stop")? >= 500))?;
    ensure!((count("vm.compute.start")?, count("vm.compute.stop")?) == (500, 500));
    let stops = agent.ledger()?.into_iter().filter(|line| line["kind"] == "vm.compute.stop");
    for stop in stops {
        ensure!(number(&stop["usage"]["cpu_ns"])? > 0, "no CPU time: {stop}");
    }
    agent.verify()
}

#[test]
fn a_vm_ended_before_its_first_guest_entry_is_counted_where_it_is_not_told() -> Result<()> {
    let Some(_host) = host("a_vm_ended_before_its_first_guest_entry_is_counted_where_it_is_not_told") else {
        return Ok(());
    };
    // Sixteen at once on few CPUs, and no time: many end before their vCPU gets one.
    tell_and_charge("a_vm_ended_before_its_first_guest_entry_is_counted_where_it_is_not_told", 300, 16, "0ms")
}

/// A VM whose vCPU got no CPU before its end ran no guest: it has no line, and counts as unrun. All others have both.
fn tell_and_charge(test: &str, count: u32, concurrency: u32, lifetime: &str) -> Result<()> {
    let agent = Agent::start()?;
    let trace = Trace::start();
    let report = burst(count, concurrency, &["--id", "b", "--duty", "50", "--lifetime", lifetime, "--end", "exit0"])?;
    let told = by_id(&report)?;
    assert_eq!(told.len(), usize::try_from(count)?, "the burst itself is whole");
    agent.wait_until("each to have ended or not to have run", PATIENCE, |a| {
        let (lives, unrun) = (ours(&a.ledger()?)?, a.metrics()?.one("kvmeter_unrun_vms_total", &[]).unwrap_or(0.0));
        Ok(lives.values().all(|life| life.stop.is_some()) && lives.len() as f64 + unrun >= told.len() as f64)
    })?;
    // Whatever else there is to say of them has been said by then.
    agent.wait_samples(1)?;
    let lives = ours(&agent.ledger()?)?;
    let mut more = Vec::new();
    for (id, life) in &lives {
        more.push(check(id, life, told.get(id).context("not in the report")?)?);
    }
    match &trace {
        Some(trace) => {
            let ran = trace.ran()?;
            let ran = told.iter().filter(|(_, vm)| vm["pid"].as_u64().is_some_and(|pid| ran.contains(&pid)));
            let ran: BTreeSet<_> = ran.map(|(id, _)| id).collect();
            assert_eq!(lives.keys().collect::<BTreeSet<_>>(), ran, "those that ran a guest, and no others");
        }
        None => skipped(test, "no tracefs to say which VMs ran: those without a line are only counted"),
    }
    more.sort_unstable();
    let (median, most) = (more.get(more.len() / 2), more.last());
    eprintln!("{} of {count} ran, in {} s", lives.len(), report["seconds"]);
    eprintln!("more CPU than rusage tells, ns: median {median:?}, most {most:?}");
    let scrape = agent.metrics()?;
    assert!(scrape.all("kvmeter_events_lost_total", &[]).count() > 0, "what could be lost is counted");
    let lost: Vec<_> = scrape.all("kvmeter_events_lost_total", &[]).filter(|series| series.value > 0.0).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let unrun = scrape.one("kvmeter_unrun_vms_total", &[]);
    assert_eq!(unrun, Some(told.len() as f64 - lives.len() as f64), "unrun VMs of {count}, {} ran", lives.len());
    agent.verify()
}

fn by_id(report: &Value) -> Result<BTreeMap<String, &Value>> {
    let vms = report["vms"].as_array().context("no VMs")?.iter();
    vms.map(|vm| Ok((vm["id"].as_str().context("no id")?.to_owned(), vm))).collect()
}

/// The lives of the burst's VMs, by vm_id: one each.
fn ours(lines: &[Value]) -> Result<BTreeMap<String, Life>> {
    let is_ours = |vm_id: &str| vm_id.strip_prefix("b-").is_some_and(|number| number.parse::<u32>().is_ok());
    let mut found = BTreeMap::new();
    for life in lives(lines)?.into_values() {
        let vm_id = life.start["vm_id"].as_str().unwrap_or_default().to_owned();
        if is_ours(&vm_id) {
            ensure!(found.insert(vm_id.clone(), life).is_none(), "{vm_id} lived twice");
        }
    }
    Ok(found)
}

/// One life against what its parent saw; how much more CPU time it was charged than rusage tells.
fn check(id: &str, life: &Life, told: &Value) -> Result<u64> {
    let stop = life.stop.as_ref().context("no stop")?;
    let incarnation = life.start["incarnation"].as_str().context("no incarnation")?;
    assert!(incarnation.contains(&format!("-{}-", told["pid"])), "{id}: {incarnation}");
    assert_eq!((&stop["cause"], &stop["evidence"]["exit_code"]), (&"exit".into(), &told["code"]), "{id}");
    assert_eq!((&life.start["time_quality"], &stop["time_quality"]), (&"exact".into(), &"exact".into()), "{id}");
    let age = number(&stop["mono_ns"])? - number(&life.start["mono_ns"])?;
    let usage = &stop["usage"];
    let cpu = number(&usage["cpu_ns"])?;
    assert_eq!(cpu, number(&usage["cpu_vcpu_ns"])? + number(&usage["cpu_vmm_ns"])?, "{id}: parts sum to the whole");
    assert!(number(&usage["cpu_vcpu_ns"])? > 0, "{id}: it ran a guest");
    let cpus = u64::try_from(std::thread::available_parallelism()?.get())?;
    assert!(0 < cpu && cpu <= cpus * age + LAST_SLICES_NS, "{id}: CPU {cpu} in a life of {age} ns");
    let rusage = told["cpu_us"].as_u64().context("no rusage")? * 1_000;
    assert!(rusage <= cpu + ROUNDING_NS, "{id}: CPU {cpu}, rusage {rusage}");
    assert!(cpu <= rusage + LAST_SLICES_NS, "{id}: CPU {cpu}, rusage {rusage}");
    Ok(cpu.saturating_sub(rusage))
}
