//! Law: figures of interfaces that are no longer read are absent and told as such, never old ones shown as of now.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use kvmeter_tests::{
    agent::Agent,
    loss::feature,
    net::kind::kinds,
    skip::host,
    traffic::{Told, Wired},
};
use nix::{
    sys::{ptrace, wait},
    unistd::Pid,
};

const PATIENCE: Duration = Duration::from_secs(60);
const BYTES: &str = "kvmeter_vm_network_bytes_total";

/// A thread of the agent that stands still, as one does for whom a lock of the kernel never comes; goes on when dropped.
struct Still(Pid);

impl Still {
    fn hold(agent: &Agent, name: &str) -> Result<Self> {
        let threads = Path::new("/proc").join(agent.pid().to_string()).join("task");
        for thread in std::fs::read_dir(threads)? {
            let thread = thread?;
            if std::fs::read_to_string(thread.path().join("comm"))?.trim() == name {
                let tid = Pid::from_raw(thread.file_name().to_str().context("no number")?.parse()?);
                ptrace::seize(tid, ptrace::Options::empty())?;
                ptrace::interrupt(tid)?;
                wait::waitpid(tid, Some(wait::WaitPidFlag::__WALL))?;
                return Ok(Self(tid));
            }
        }
        bail!("the agent has no thread {name}")
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn figures_of_interfaces_that_hang_are_absent_and_told_and_come_back_whole() -> Result<()> {
    const TEST: &str = "figures_of_interfaces_that_hang_are_absent_and_told_and_come_back_whole";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let mut wired = Wired::tap("hangs", "")?;
    wired.counted(&agent)?;
    wired.vm.load(0, &kinds()[0].frame)?;
    wired.vm.send(0, 5)?;
    assert_eq!(Told::shown(&agent, "hangs")?.all(), wired.by_link()?);
    let still = Still::hold(&agent, "kvmeter-network")?;
    wired.vm.send(0, 7)?;
    let began = Instant::now();
    agent.wait_until("bad health", PATIENCE, |agent| Ok(agent.get("/healthz")?.0 == 503))?;
    println!("told after {:?}", began.elapsed());
    let said = agent.request("GET", "/healthz")?.problem(503)?;
    assert!(said["detail"].as_str().is_some_and(|why| why.contains("interfaces hangs")), "{said}");
    let scrape = agent.metrics()?;
    assert_eq!(scrape.all(BYTES, &[("vm_id", "hangs")]).count(), 0, "absent, not old");
    assert_eq!(scrape.all("kvmeter_vm_network_interfaces", &[("vm_id", "hangs")]).count(), 0);
    assert_eq!(scrape.one("kvmeter_feature_available", &[("feature", "network")]), Some(0.0));
    assert!(scrape.one("kvmeter_sample_errors_total", &[("source", "network")]) >= Some(1.0));
    assert_eq!(agent.json("/v1/vms/hangs")?.get("network"), None);
    let status = agent.json("/v1/status")?;
    let row = feature(&status, "network")?;
    assert_eq!((&row["available"], status["network"].is_null()), (&false.into(), true), "{row}");
    let doctor = agent.command(&["doctor"])?;
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("network ")).context("no such line")?;
    assert!(line.contains(" NO ") && line.contains("hangs"), "{line}");
    drop(still);
    agent.wait_until("good health", PATIENCE, |agent| Ok(agent.get("/healthz")?.0 == 200))?;
    assert_eq!(Told::shown(&agent, "hangs")?.all(), wired.by_link()?, "nothing is lost");
    assert_eq!(wired.by_link()?.transmit.packets, 12);
    Ok(())
}
