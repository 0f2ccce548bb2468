//! Law: each vCPU is its own thread's time, the vCPUs sum to their role, and they have series only where asked for.

use std::{collections::BTreeMap, fs::OpenOptions, io::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    bracket::{CPU, DELAY, cpu_is_bracketed, within},
    command::{code, out},
    loss::feature,
    metrics::{Metrics, Series},
    skip::host,
    vmm::{
        schedstat::{self, SchedStat},
        spawn::TestVm,
    },
};
use nix::sys::signal::Signal;
use serde_json::Value;

const VCPU_CPU: &str = "kvmeter_vm_vcpu_cpu_seconds_total";
const VCPU_DELAY: &str = "kvmeter_vm_vcpu_delay_seconds_total";
const PER_VCPU: &str = "[metrics]\nper_vcpu = true\n";
const PATIENCE: Duration = Duration::from_secs(60);

fn start_vm(id: &str) -> Result<TestVm> {
    TestVm::start(&["--id", id, "--duty", "40", "--vcpus", "2", "--workers", "1", "--worker-duty", "10"])
}

/// The thread of each vCPU, by its number in the series.
fn tids(agent: &Agent, id: &str) -> Result<BTreeMap<u64, i32>> {
    let vm = agent.json(&format!("/v1/vms/{id}"))?;
    let one = |vcpu: &Value| {
        let tid = vcpu["tid"].as_i64().context("no tid")?;
        Ok((vcpu["vcpu"].as_u64().context("no number")?, i32::try_from(tid)?))
    };
    vm["vcpus"].as_array().with_context(|| format!("no vcpus: {vm}"))?.iter().map(one).collect()
}

fn wait_vcpus(agent: &Agent, id: &str, count: usize) -> Result<()> {
    agent.wait_vms(&[id])?;
    agent.wait_until("its vCPUs", PATIENCE, |a| Ok(tids(a, id)?.len() == count))
}

fn of_vcpu(scrape: &Metrics, id: &str, number: u64) -> Result<SchedStat> {
    let number = number.to_string();
    let one = |name| {
        let labels = [("vm_id", id), ("vcpu", &*number)];
        let mut series = scrape.all(name, &labels);
        let first = series.next().map(Series::nanos).with_context(|| format!("no {name} of vCPU {number}"))?;
        anyhow::ensure!(series.next().is_none(), "{name} of vCPU {number} is there twice");
        Ok(first)
    };
    Ok(SchedStat { run_ns: one(VCPU_CPU)?, delay_ns: one(VCPU_DELAY)? })
}

fn of_role(scrape: &Metrics, id: &str) -> SchedStat {
    let sum = |name| scrape.all(name, &[("vm_id", id), ("role", "vcpu")]).map(Series::nanos).sum();
    SchedStat { run_ns: sum(CPU), delay_ns: sum(DELAY) }
}

fn less(from: SchedStat, early: SchedStat) -> SchedStat {
    SchedStat {
        run_ns: from.run_ns.saturating_sub(early.run_ns),
        delay_ns: from.delay_ns.saturating_sub(early.delay_ns),
    }
}

#[test]
fn no_series_has_a_vcpu_unless_asked_for_and_the_api_shows_them_always() -> Result<()> {
    const TEST: &str = "no_series_has_a_vcpu_unless_asked_for_and_the_api_shows_them_always";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = start_vm("plain")?;
    wait_vcpus(&agent, "plain", 2)?;
    let labelled: Vec<_> = agent.metrics()?.0.into_iter().filter(|s| s.labels.contains_key("vcpu")).collect();
    assert!(labelled.is_empty(), "{labelled:?}");

    let mut due = vm.vcpu_tids().to_vec();
    due.sort_unstable();
    let sorted = |vcpus: &Value| -> Vec<i64> {
        let mut tids: Vec<_> = vcpus.as_array().into_iter().flatten().filter_map(|v| v["tid"].as_i64()).collect();
        tids.sort_unstable();
        tids
    };
    let due: Vec<_> = due.into_iter().map(i64::from).collect();
    assert_eq!(sorted(&agent.json("/v1/vms/plain")?["vcpus"]), due);
    let json = agent.command(&["vm", "plain", "--json"])?;
    code(&json, 0)?;
    assert_eq!(sorted(&serde_json::from_slice::<Value>(&json.stdout)?["vcpus"]), due);

    let text = agent.command(&["vm", "plain"])?;
    code(&text, 0)?;
    let text = out(&text);
    for (number, tid) in tids(&agent, "plain")? {
        let field = format!("vcpus.{number}.tid");
        let line = text.lines().find(|line| line.starts_with(&field)).with_context(|| format!("no {field}: {text}"))?;
        assert!(line.ends_with(&format!(" {tid}")), "{line}");
    }
    assert!(!text.contains(['{', '[']), "no JSON among it: {text}");
    Ok(())
}

#[test]
fn each_vcpu_is_its_threads_time_and_they_sum_to_their_role() -> Result<()> {
    let Some(_host) = host("each_vcpu_is_its_threads_time_and_they_sum_to_their_role") else { return Ok(()) };
    let agent = Agent::with(Setup::of(PER_VCPU))?;
    let vm = start_vm("pair")?;
    // What a thread used before it was a vCPU is told as the role it had then, and is less than this.
    let early = schedstat::per_thread(vm.pid())?;
    wait_vcpus(&agent, "pair", 2)?;
    let numbers = tids(&agent, "pair")?;
    assert_eq!(numbers.keys().copied().collect::<Vec<_>>(), [0, 1]);
    for _ in 0..5 {
        let before = schedstat::per_thread(vm.pid())?;
        agent.wait_samples(1)?;
        let scrape = agent.metrics()?;
        let after = schedstat::per_thread(vm.pid())?;
        let mut sum = SchedStat::default();
        for (number, tid) in &numbers {
            let told = of_vcpu(&scrape, "pair", *number)?;
            within(less(before[tid], early[tid]), told, after[tid]).with_context(|| format!("vCPU {number}"))?;
            sum = SchedStat { run_ns: sum.run_ns + told.run_ns, delay_ns: sum.delay_ns + told.delay_ns };
        }
        assert_eq!(sum, of_role(&scrape, "pair"), "the sum is the role's, to the nanosecond");
        let shown: Vec<_> = scrape.all(VCPU_CPU, &[("vm_id", "pair")]).map(|s| s.labels["vcpu"].clone()).collect();
        assert_eq!(shown, ["0", "1"]);
        assert_eq!(tids(&agent, "pair")?, numbers, "a vCPU keeps its number");
    }
    Ok(())
}

#[test]
fn vcpus_are_shown_from_sighup_on() -> Result<()> {
    let Some(_host) = host("vcpus_are_shown_from_sighup_on") else { return Ok(()) };
    let agent = Agent::start()?;
    let _vm = start_vm("later")?;
    wait_vcpus(&agent, "later", 2)?;
    let shown = |agent: &Agent| Ok::<_, anyhow::Error>(agent.metrics()?.all(VCPU_CPU, &[("vm_id", "later")]).count());
    assert_eq!(shown(&agent)?, 0);
    OpenOptions::new().append(true).open(agent.dir().join("kvmeter.toml"))?.write_all(PER_VCPU.as_bytes())?;
    agent.signal(Signal::SIGHUP)?;
    agent.wait_until("series of vCPUs", PATIENCE, |agent| Ok(shown(agent)? == 2))?;
    agent.wait_until("a word on it", PATIENCE, |agent| Ok(agent.log().contains("metrics.per_vcpu")))
}

#[test]
fn without_exit_reasons_that_program_is_missing_and_no_other() -> Result<()> {
    const PROGRAM: &str = "kvm_exit_reason";
    let Some(_host) = host("without_exit_reasons_that_program_is_missing_and_no_other") else { return Ok(()) };
    let missing = |agent: &Agent| -> Result<Vec<String>> {
        let status = agent.json("/v1/status")?;
        let features = status["features"].as_array().context("no features")?;
        let missing = features.iter().filter(|f| f["available"] == false && f["name"] != PROGRAM);
        Ok(missing.filter_map(|f| f["name"].as_str()).map(str::to_owned).collect())
    };
    let usual = missing(&Agent::start()?)?;
    let agent = Agent::with(Setup::of("[bpf]\nexit_reasons = false\n"))?;
    assert_eq!(missing(&agent)?, usual);
    let vm = start_vm("coarse")?;
    wait_vcpus(&agent, "coarse", 2)?;
    let status = agent.json("/v1/status")?;
    let row = feature(&status, PROGRAM)?;
    assert_eq!((&row["available"], &status["cpu_source"]), (&false.into(), &"bpf".into()), "{row}");
    let why = row["why"].as_str().context("no why")?;
    assert!(why.starts_with("not loaded") && why.contains("bpf.exit_reasons"), "{why}");
    cpu_is_bracketed(&agent, &[("coarse", &vm)], 3)?;
    let scrape = agent.metrics()?;
    assert!(scrape.all("kvmeter_vm_exits_total", &[]).next().is_none(), "unmeasured is absent");
    assert!(scrape.sum("kvmeter_vm_userspace_exits_total", &[("vm_id", "coarse")]) > 0.0);
    drop(vm);
    agent.stop_line("coarse")?;
    agent.verify()
}
