//! Law: a ledger of many files is one ledger: agents that are killed while they rotate lose no line and write none
//! twice, who follows it gets each line, what others do to its files is told, and files go only as readers allow.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    command::binary,
    ledger::{ledger_in, lives, only, rotated_in, verify_in},
    skip::host,
    vmm::spawn::{self, TestVm},
};
use serde_json::Value;

const SMALL: &str = "sample_interval = \"200ms\"\n[ledger]\nheartbeat = \"1s\"\nmax_file = \"64KiB\"\n";
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts VMs that soon end, one after another, until told to stop.
fn short_lives(over: &AtomicBool) -> Result<()> {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let id = format!("brief-{count}");
        let args = ["--id", &id, "--duty", "50", "--lifetime", "5ms"];
        ensure!(Command::new(spawn::binary()?).args(args).status()?.success(), "{id} failed");
        count += 1;
    }
    Ok(())
}

/// Runs `work` while VMs come and go.
fn in_a_storm<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let brief = scope.spawn(|| short_lives(&over));
        let done = work();
        over.store(true, Ordering::Relaxed);
        brief.join().map_err(|_| anyhow::anyhow!("the thread of short lives panicked"))??;
        done
    })
}

/// A follower, killed when dropped.
struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Hands the ledger over to a file, from where it was, until it is killed.
fn follow(dir: &Path, more: &[&str]) -> Result<Following> {
    let mut command = Command::new(binary()?);
    command.env_clear().args(["ledger", "export", "--format", "cloudevents", "--follow", "--cursor"]);
    command.arg(dir.join("cursor")).arg("--output").arg(dir.join("events")).args(more).arg(dir.join("data/metering"));
    Ok(Following(command.stdin(Stdio::null()).stderr(File::create(dir.join("follower.log"))?).spawn()?))
}

/// The ids that were handed over, in order.
fn handed_over(dir: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(dir.join("events")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| Ok(serde_json::from_str::<Value>(line)?["id"].as_str().context("no id")?.to_owned()))
        .collect()
}

#[test]
fn agents_killed_while_they_rotate_lose_no_line_and_a_follower_gets_each_once() -> Result<()> {
    let Some(_host) = host("agents_killed_while_they_rotate_lose_no_line_and_a_follower_gets_each_once") else {
        return Ok(());
    };
    let steady = ["s-0", "s-1", "s-2"].map(|id| TestVm::start(&["--id", id, "--duty", "5"]));
    let (dir, following) = in_a_storm(|| {
        let agent = Agent::with(Setup::of(SMALL))?;
        let follower = follow(agent.dir(), &[])?;
        let (mut agent, mut rounds) = (agent, 0_u32);
        loop {
            let before = rotated_in(agent.dir())?.len();
            agent.wait_until("a rotation", PATIENCE, |a| Ok(rotated_in(a.dir())?.len() > before))?;
            std::thread::sleep(Duration::from_millis(u64::from(rounds) * 7 % 20));
            let dir = agent.kill()?;
            rounds += 1;
            if rounds == 8 {
                return Ok((dir, follower));
            }
            agent = Agent::with(Setup { dir: Some(dir), ..Setup::of(SMALL) })?;
        }
    })?;
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::of(SMALL) })?;
    for vm in steady {
        drop(vm?);
    }
    for id in ["s-0", "s-1", "s-2"] {
        agent.stop_line(id)?;
        ensure!(only(&agent.ledger()?, id)?.stop.is_some(), "{id} ended once");
    }
    agent.verify()?;
    let (_, _, dir) = agent.stop()?;
    verify_in(dir.path())?;
    let lines = ledger_in(dir.path())?;
    let files = rotated_in(dir.path())?.len();
    let all = lives(&lines)?;
    assert!(lines.iter().map(|line| line["seq"].as_u64()).eq((1..=lines.len() as u64).map(Some)), "a hole");
    let ids: Vec<String> = lines.iter().map(|line| line["id"].as_str().unwrap_or_default().to_owned()).collect();
    let end = std::time::Instant::now() + PATIENCE;
    while handed_over(dir.path())?.len() < ids.len() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(following);
    assert_eq!(handed_over(dir.path())?, ids, "{}", fs::read_to_string(dir.path().join("follower.log"))?);
    eprintln!("{} lines, {} lives, {files} rotated files, 8 kills", lines.len(), all.len());
    assert!(files >= 8 && all.len() > 100);
    Ok(())
}

#[test]
fn what_others_do_to_files_is_told_and_nothing_is_written_to_one_that_is_not_ours() -> Result<()> {
    let Some(_host) = host("what_others_do_to_files_is_told_and_nothing_is_written_to_one_that_is_not_ours") else {
        return Ok(());
    };
    let agent = Agent::with(Setup::of(SMALL))?;
    in_a_storm(|| agent.wait_until("a rotation", PATIENCE, |a| Ok(!rotated_in(a.dir())?.is_empty())))?;
    let healthy = |code: u16| agent.wait_until("health to tell", PATIENCE, |a| Ok(a.get("/healthz")?.0 == code));
    healthy(200)?;
    let rotated = rotated_in(agent.dir())?.pop().context("a file")?;
    let aside = agent.dir().join("aside");
    fs::rename(&rotated, &aside)?;
    healthy(503)?;
    let name = rotated.file_name().context("a name")?.to_string_lossy().into_owned();
    ensure!(agent.get("/healthz")?.1.contains(&name), "{}", agent.get("/healthz")?.1);
    ensure!(agent.json("/v1/status")?["ledger"]["hurt"].as_str().is_some_and(|why| why.contains(&name)));
    ensure!(agent.command(&["ledger", "verify"])?.status.code() == Some(3), "verify sees it too");
    let vm = TestVm::start(&["--id", "meanwhile", "--lifetime", "50ms"])?;
    agent.wait_until("a line", PATIENCE, |a| {
        Ok(fs::read_to_string(a.metering().join("ledger.jsonl"))?.contains("meanwhile"))
    })?;
    fs::rename(&aside, &rotated)?;
    healthy(200)?;
    drop(vm);
    agent.stop_line("meanwhile")?;
    agent.verify()?;

    let live = agent.metering().join("ledger.jsonl");
    let bytes = fs::read(&live)?;
    File::options().write(true).open(&live)?.set_len(100)?;
    healthy(503)?;
    let mut vm = TestVm::start(&["--id", "unwritten", "--lifetime", "50ms"])?;
    vm.wait()?;
    agent.wait_until("it to be counted", PATIENCE, |a| {
        Ok(a.metrics()?.sum("kvmeter_ledger_write_failures_total", &[("op", "open")]) > 1.0)
    })?;
    assert_eq!(fs::metadata(&live)?.len(), 100, "nothing is appended to it");
    fs::write(&live, &bytes)?;
    healthy(200)?;
    agent.ended("unwritten")?;
    agent.verify()?;

    let (_, _, dir) = agent.stop()?;
    fs::rename(&rotated, &aside)?;
    let data = format!("KVMETER_DATA_DIR={}", dir.path().join("data").display());
    let refused = Agent::with(Setup { wrapper: ["env".into(), data.into()].to_vec(), ..Setup::of(SMALL) });
    let why = refused.err().map(|error| format!("{error:#}")).context("the agent started")?;
    ensure!(why.contains("exit status: 1") && why.contains(&name), "{why}");
    fs::rename(&aside, &rotated)?;
    Agent::with(Setup { dir: Some(dir), ..Setup::of(SMALL) })?.verify()
}

#[test]
fn files_go_once_the_reader_has_them_and_a_vm_older_than_they_is_billed_on() -> Result<()> {
    let Some(_host) = host("files_go_once_the_reader_has_them_and_a_vm_older_than_they_is_billed_on") else {
        return Ok(());
    };
    let config = format!("{SMALL}max_total = \"128KiB\"\nreaders = [\"siem\"]\n");
    let agent = Agent::with(Setup::of(&config))?;
    let old = TestVm::start(&["--id", "old", "--name", "Methuselah", "--duty", "5"])?;
    let follower = in_a_storm(|| {
        agent.wait_until("rotations", PATIENCE, |a| Ok(rotated_in(a.dir())?.len() > 2))?;
        let first = rotated_in(agent.dir())?.swap_remove(0);
        std::thread::sleep(Duration::from_secs(11));
        ensure!(first.exists(), "the reader has not even begun");
        let follower = follow(agent.dir(), &["--reader", "siem"])?;
        agent.wait_until("files to go", PATIENCE, |_| Ok(!first.exists()))?;
        Ok(follower)
    })?;
    // A storm may fill files faster than they are looked through.
    agent.wait_until("what is left to be small", PATIENCE, |a| Ok(rotated_in(a.dir())?.len() < 3))?;
    drop(follower);
    assert_eq!(agent.metrics()?.one("kvmeter_events_lost_total", &[("stage", "unread")]), Some(0.0));
    agent.verify()?;
    let dir = agent.kill()?;
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::of(&config) })?;
    drop(old);
    let stop = agent.stop_line("Methuselah")?;
    assert_eq!((&stop["name"], stop["usage"]["cpu_ns"].is_string()), (&"Methuselah".into(), true));
    let starts = agent.lines("vm.compute.start", "Methuselah")?;
    assert!(starts.is_empty(), "its start line is gone, and it is not started again: {starts:?}");
    let ids: BTreeSet<String> = agent.ledger()?.iter().map(|line| line["id"].to_string()).collect();
    assert_eq!(ids.len(), agent.ledger()?.len(), "no id twice");
    agent.verify()
}
