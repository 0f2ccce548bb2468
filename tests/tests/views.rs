//! Law: views only read and wait for nobody, and what they show is durable.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    skip::host,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;

fn slowest(agent: &Agent, times: u32) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        let began = Instant::now();
        agent.metrics()?;
        slowest = slowest.max(began.elapsed());
    }
    Ok(slowest)
}

#[test]
fn a_vmm_that_is_stopped_delays_no_scrape() -> Result<()> {
    let Some(_host) = host("a_vmm_that_is_stopped_delays_no_scrape") else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = TestVm::start(&["--id", "hung", "--duty", "30", "--workers", "2", "--worker-duty", "5"])?;
    agent.wait_vms(&["hung"])?;
    let before = slowest(&agent, 20)?;
    vm.signal(Signal::SIGSTOP)?;
    let during = slowest(&agent, 20)?;
    agent.wait_samples(2)?;
    let later = slowest(&agent, 20)?;
    eprintln!("slowest of 20 scrapes: {before:?} before, {during:?} and {later:?} while stopped");
    // It is stopped until the end of this test: whoever waited for it would still do so.
    assert!(during.max(later) < Duration::from_secs(30), "{before:?} {during:?} {later:?}");
    assert_eq!(agent.metrics()?.one("kvmeter_vm_running", &[("vm_id", "hung")]), Some(1.0));
    Ok(())
}

#[test]
fn scraping_changes_no_state() -> Result<()> {
    let Some(_host) = host("scraping_changes_no_state") else { return Ok(()) };
    let agent = Agent::with(Setup::of("sample_interval = \"60s\"\n"))?;
    let _vm = TestVm::start(&["--id", "busy", "--duty", "60"])?;
    agent.wait_vms(&["busy"])?;
    let serial = || -> Result<i64> { agent.json("/v1/status")?["snapshot"]["serial"].as_i64().context("no serial") };
    let lines = || -> Result<Vec<_>> {
        // What the agent reads of itself when asked is no state, nor is how long it took to be asked last.
        let own = ["kvmeter_ledger_free_bytes", "kvmeter_scrape_duration_seconds"];
        Ok(agent.metrics()?.0.into_iter().filter(|s| !own.contains(&s.name.as_str())).collect())
    };
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        let (before, first) = (serial()?, lines()?);
        for path in
            ["/metrics", "/v1/vms", "/v1/vms?detail=true", "/v1/vms/busy", "/v1/vms/busy/usage", "/healthz", "/nowhere"]
        {
            for _ in 0..5 {
                agent.get(path)?;
            }
        }
        let (last, after) = (lines()?, serial()?);
        // A wake-up from outside (a uevent of another device) may have made a turn between the two.
        if before == after {
            assert_eq!(first, last);
            return Ok(());
        }
    }
    bail!("twenty times the state moved on under 37 reads; do they move it?")
}

#[test]
fn no_vm_is_shown_before_its_start_line_is_in_the_ledger() -> Result<()> {
    let Some(_host) = host("no_vm_is_shown_before_its_start_line_is_in_the_ledger") else { return Ok(()) };
    let agent = Agent::start()?;
    let starter =
        std::thread::spawn(|| (0..40).map(|n| TestVm::start(&["--id", &format!("d{n}")])).collect::<Result<Vec<_>>>());
    let mut shown = BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(120);
    while shown.len() < 40 {
        ensure!(Instant::now() < end, "only {} of 40 are shown", shown.len());
        let mut now: BTreeSet<String> =
            agent.metrics()?.all("kvmeter_vm_info", &[]).map(|s| s.labels["incarnation"].clone()).collect();
        let list = agent.json("/v1/vms")?;
        // Read after what was shown, so whatever was durable then is in it.
        now.extend(
            list["vms"].as_array().into_iter().flatten().map(|vm| vm["incarnation"].as_str().unwrap_or("").to_owned()),
        );
        if now.is_subset(&shown) {
            continue;
        }
        let text = std::fs::read_to_string(agent.metering().join("ledger.jsonl"))?;
        let written: BTreeSet<&str> = text
            .lines()
            .filter(|line| line.contains("\"kind\":\"vm.compute.start\""))
            .filter_map(|line| line.split_once("\"incarnation\":\"")?.1.split('"').next())
            .collect();
        for incarnation in now {
            assert!(written.contains(incarnation.as_str()), "{incarnation} is shown and not in the ledger");
            shown.insert(incarnation);
        }
    }
    drop(starter.join().map_err(|_| anyhow::anyhow!("the starter died"))??);
    Ok(())
}
