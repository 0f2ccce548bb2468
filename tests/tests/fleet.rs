//! Law: everything is bounded. A thousand VMs at once are all seen, agree with KVM's own count, and cost little.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::lives,
    skip::host,
    vmm::spawn::{TestFleet, TestVm, fleet_size},
};

/// VMs of the fleet, unless `KVMETER_FLEET` names another number.
const FLEET: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Descriptors of KVM VMs that any process holds.
fn held() -> Result<u64> {
    let mut count = 0;
    for process in std::fs::read_dir("/proc")? {
        let path = process?.path();
        if !path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit)) {
            continue;
        }
        // It may end while we look.
        for fd in std::fs::read_dir(path.join("fd")).into_iter().flatten().flatten() {
            count += u64::from(std::fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:kvm-vm"));
        }
    }
    Ok(count)
}

/// CPU time of a process in seconds, and its resident memory in bytes.
fn cost(pid: i32) -> Result<(f64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").context("no stat")?.1.split(' ').collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok((ticks as f64 / 100.0, kib.trim().trim_end_matches(" kB").parse::<u64>()? * 1024))
}

fn running(agent: &Agent) -> Result<BTreeSet<String>> {
    let list = agent.json("/v1/vms")?;
    let vms = list["vms"].as_array().context("no list")?.iter().filter(|vm| vm["state"] == "running");
    let ids = vms.filter_map(|vm| vm["vm_id"].as_str()).filter(|id| id.starts_with("f-"));
    Ok(ids.map(str::to_owned).collect())
}

#[test]
fn a_fleet_is_seen_whole_agrees_with_kvm_and_leaves_whole_lives() -> Result<()> {
    let Some(_host) = host("a_fleet_is_seen_whole_agrees_with_kvm_and_leaves_whole_lives") else { return Ok(()) };
    let (count, began) = (fleet_size(FLEET), Instant::now());
    let config = "[discovery]\nscan_interval = \"1s\"\n[metrics]\nlinger = \"5m\"\n".to_owned();
    let agent = Agent::with(Setup { config, ..Setup::default() })?;
    let (_, empty) = cost(agent.pid())?;
    let fleet = TestFleet::start(count, &["--id", "f"])?;
    let started = began.elapsed();
    let expected: BTreeSet<String> = (0..count).map(|n| format!("f-{n}")).collect();
    agent.wait_until("the fleet", PATIENCE, |a| Ok(running(a)? == expected))?;
    eprintln!("{count} VMs were started after {started:.1?} and shown after {:.1?}", began.elapsed());

    let metrics = agent.metrics()?;
    let shown: BTreeSet<_> =
        metrics.all("kvmeter_vm_running", &[]).filter(|s| s.value == 1.0).map(|s| &s.labels["vm_id"]).collect();
    assert!(expected.iter().all(|id| shown.contains(id)), "{} of {count} in /metrics", shown.len());
    assert!(metrics.one("kvmeter_vms", &[("state", "running")]) >= Some(f64::from(count)));
    // One process with three KVM VMs is one VM of ours and three of KVM's.
    let several = TestVm::start(&["--id", "several", "--vms", "3"])?;
    agent.wait_vms(&["several"])?;
    agent.wait_until("KVM, /proc and the agent to agree", PATIENCE, |a| {
        let (kvm, mine) = (a.json("/v1/status")?["kvm"].clone(), held()?);
        Ok(mine >= u64::from(count) + 3 && kvm["count"] == mine && kvm["held"] == mine)
    })?;
    drop(several);

    let (cpu, since) = (cost(agent.pid())?.0, Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let (later, full) = cost(agent.pid())?;
    let percent = (later - cpu) / since.elapsed().as_secs_f64() * 100.0;
    let text = agent.get("/metrics")?.1;
    let took = Instant::now();
    agent.get("/metrics")?;
    let took = took.elapsed();
    let samples = agent.metrics()?;
    let (sum, of) = (
        samples.sum("kvmeter_sample_duration_seconds_sum", &[]),
        samples.sum("kvmeter_sample_duration_seconds_count", &[]),
    );
    eprintln!(
        "with {count} VMs the agent takes {percent:.1} % of a core and {} MiB ({} MiB without any); a scrape {} KiB in {took:.1?}; \
         a sample {:.1} ms on average",
        full >> 20,
        empty >> 20,
        text.len() >> 10,
        sum / of * 1e3
    );
    assert!(full < 300 << 20, "{full} bytes");

    drop(fleet);
    agent.wait_until("all stop lines", PATIENCE, |a| {
        Ok(a.metrics()?.one("kvmeter_ledger_records_total", &[("kind", "vm.compute.stop")])
            >= Some(f64::from(count) + 1.0))
    })?;
    let lives = lives(&agent.ledger()?)?;
    let of_fleet: Vec<_> =
        lives.values().filter(|l| l.start["vm_id"].as_str().is_some_and(|id| id.starts_with("f-"))).collect();
    assert_eq!(of_fleet.len(), expected.len());
    for life in of_fleet {
        let stop = life.stop.as_ref().with_context(|| format!("no stop for {}", life.start))?;
        assert_eq!((&stop["cause"], &stop["evidence"]["signal"]), (&"signal".into(), &9.into()), "{stop}");
        assert_eq!(stop["time_quality"], "exact", "{stop}");
    }
    agent.wait_until("none to be shown as running", PATIENCE, |a| Ok(running(a)?.is_empty()))?;
    assert!(agent.metrics()?.all("kvmeter_vm_running", &[]).count() <= 1_000 + 50, "at most 1,000 linger");
    eprintln!("{count} VMs took {:.1?} in all", began.elapsed());
    // Nothing was lost and nothing failed: a storm of starts and ends is neither.
    let metrics = agent.metrics()?;
    let troubles = ["kvmeter_events_lost_total", "kvmeter_sample_errors_total"];
    let troubles: Vec<_> = metrics.0.iter().filter(|s| troubles.contains(&s.name.as_str()) && s.value > 0.0).collect();
    assert!(troubles.is_empty(), "{troubles:?}");
    agent.verify()
}
