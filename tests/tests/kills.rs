//! Law: whenever an agent is killed, also while it starts, no line is lost, none is there twice and none malformed, and the
//! CPU time of all VMs that came and went meanwhile is what the kernel counted.
//!
//! Every system call of a ledger's writer is `ledger_steps`; here it is any moment of whole agents, under a storm of VMs.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    command::binary,
    http,
    ledger::{ledger_in, lives, verify_in},
    pins::Bpffs,
    skip::{host, skipped},
    storm::{Accounted, Report, created},
};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(300);
/// Files so small that agents die while they rotate, too.
const CONFIG: &str =
    "sample_interval = \"200ms\"\n[ledger]\nheartbeat = \"1s\"\nmax_file = \"1MiB\"\n[metrics]\nlinger = \"0s\"\n";
/// Of its work, an agent that has started sees so much at most: more than a sample, and, as agents start at any time, each
/// moment between two heartbeats.
const WORK: Duration = Duration::from_millis(500);
/// VMs of one burst; one comes after the other.
const BURST: u32 = 100;

/// An agent that nobody waits for, killed and reaped when dropped.
struct Blind(Child);

impl Blind {
    fn start(dir: &TempDir, bpffs: &Bpffs) -> Result<Self> {
        let log = fs::OpenOptions::new().append(true).open(dir.path().join("agent.log"))?;
        let mut command = Command::new(binary()?);
        command.args(["run", "--config"]).arg(dir.path().join("kvmeter.toml"));
        command.env_clear().env("KVMETER_BPF__PIN_DIR", bpffs.dir());
        Ok(Self(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?))
    }

    /// Waits until it has told something, or for as long as nobody would. Where no agent came to that, the tables would be full
    /// one day, which is told as a loss and is another law.
    fn tell(&self, dir: &TempDir) {
        let end = Instant::now() + PATIENCE;
        let healthy = || -> Result<bool> {
            let stream = UnixStream::connect(dir.path().join("k.sock"))?;
            Ok(http::get(stream, "/healthz")?.0 == 200)
        };
        while !healthy().unwrap_or(false) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn kill(mut self) -> Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "an agent ended by itself");
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Blind {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Bursts of VMs, one after the other, until told to stop.
fn storm(over: &AtomicBool) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let id = format!("k{}", reports.len());
        let args = ["--id", &id, "--duty", "50", "--lifetime", "10ms", "--end", "halt"];
        reports.push(Accounted::start(&id, BURST, 4, &args)?.finish()?);
    }
    Ok(reports)
}

/// Numbers that look like none in particular.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        most.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

/// The last whole line of a ledger whose agent is dead: its number and id.
fn last_line(dir: &TempDir) -> Result<(u64, String)> {
    let text = fs::read(dir.path().join("data/metering/ledger.jsonl"))?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').context("no whole line")?;
    let line = text[..whole].rsplit(|byte| *byte == b'\n').next().context("no line")?;
    let line: Value = serde_json::from_slice(line)?;
    Ok((line["seq"].as_u64().context("no seq")?, line["id"].as_str().context("no id")?.to_owned()))
}

/// Kills agents at random moments, one after the other, while `goes_on`; what was in the ledger at each death.
fn kill_everywhere(
    dir: &TempDir,
    bpffs: &Bpffs,
    most: Duration,
    goes_on: impl Fn(usize) -> bool,
) -> Result<Vec<(u64, String)>> {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let mut dice = Dice(u64::try_from(seed & u128::from(u64::MAX))? | 1);
    println!("moments up to {most:.1?} after the start, from {:#x} on", dice.0);
    let mut seen = Vec::new();
    while goes_on(seen.len()) {
        let agent = Blind::start(dir, bpffs)?;
        // Two of three while it starts, or soon after; the third at a moment of its work, however long it took to start.
        if seen.len() % 3 == 2 {
            agent.tell(dir);
            std::thread::sleep(dice.below(WORK));
        } else {
            std::thread::sleep(dice.below(most));
        }
        agent.kill()?;
        seen.push(last_line(dir)?);
    }
    Ok(seen)
}

/// Keeps a ledger that has a fault for whoever looks into it; where it is.
fn kept(dir: &Path) -> Result<String> {
    let place = std::env::temp_dir().join(format!("kvmeter-kills-{}", std::process::id()));
    ensure!(Command::new("cp").arg("-r").arg(dir.join("data/metering")).arg(&place).status()?.success(), "not kept");
    Ok(format!("the ledger is kept in {}", place.display()))
}

/// One ledger and its agents, killed while `goes_on`, held against what was there: how many were killed.
fn killed(test: &str, goes_on: impl Fn(usize) -> bool) -> Result<usize> {
    let before = created()?;
    let bpffs = Bpffs::mount()?;
    let pinned = |dir| Agent::with(Setup { dir, pins: Some(bpffs.dir()), ..Setup::of(CONFIG) });
    let began = Instant::now();
    let dir = pinned(None)?.kill()?;
    // Beside a storm it takes longer to start than it did here.
    let most = began.elapsed();
    let over = AtomicBool::new(false);
    let (seen, reports) = std::thread::scope(|scope| -> Result<_> {
        let storm = scope.spawn(|| storm(&over));
        let seen = kill_everywhere(&dir, &bpffs, most, &goes_on);
        over.store(true, Ordering::Relaxed);
        let reports = storm.join().map_err(|_| anyhow::anyhow!("the storm panicked"))?;
        Ok((seen?, reports?))
    })?;
    let vms = reports.iter().flat_map(|report| &report.vms).count();
    let agent = pinned(Some(dir))?;
    agent.wait_until("each VM's stop", PATIENCE, |a| {
        Ok(a.ledger()?.iter().filter(|line| line["kind"] == "vm.compute.stop").count() >= vms)
    })?;
    agent.verify().or_else(|error| Err(error.context(kept(agent.dir())?)))?;
    let (_, _, dir) = agent.stop()?;
    verify_in(dir.path())?;
    let lines = ledger_in(dir.path())?;
    assert!(lines.iter().map(|line| line["seq"].as_u64()).eq((1..=lines.len() as u64).map(Some)), "a hole");
    for (seq, id) in &seen {
        let line = &lines[usize::try_from(*seq)? - 1];
        ensure!(line["id"] == id.as_str(), "line {seq} was {id} when an agent died: {line}");
    }
    let made = created()? - before - 1;
    charged(test, &lines, &reports, made)?;
    let files = fs::read_dir(dir.path().join("data/metering"))?.count();
    println!("{} kills, {made} VMs, {} lines, {files} files, {:.0?}", seen.len(), lines.len(), began.elapsed());
    Ok(seen.len())
}

/// Every VM has one life, whole and exact, and all of them the CPU time of their groups.
fn charged(test: &str, lines: &[Value], reports: &[Report], made: u64) -> Result<()> {
    let all = lives(lines)?;
    let vms: Vec<&Value> = reports.iter().flat_map(|report| &report.vms).collect();
    assert_eq!((all.len(), made), (vms.len(), vms.len() as u64), "lives, VMs that KVM made, and VMs that were started");
    let mut sum = 0;
    for life in all.values() {
        let stop = life.stop.as_ref().with_context(|| format!("no stop: {}", life.start))?;
        ensure!(stop["time_quality"] == "exact" && life.start["time_quality"] == "exact", "{} {stop}", life.start);
        sum += life.cpu_ns()?;
    }
    let gaps: Vec<_> = lines.iter().filter(|line| line["kind"] == "agent.gap").collect();
    ensure!(gaps.is_empty(), "{gaps:?}");
    let counted: Option<u64> = reports.iter().map(|report| report.cpu_ns).sum();
    println!("CPU time of the stop lines {sum} ns, of the VMs' groups {counted:?} ns");
    match counted {
        Some(counted) => assert_eq!(sum, counted, "the stop lines' CPU time, and the kernel's"),
        None => skipped(test, "no cpuacct control group: CPU time is not held against anything"),
    }
    Ok(())
}

#[test]
fn agents_killed_at_random_moments_under_a_storm_lose_no_line_and_no_nanosecond() -> Result<()> {
    const TEST: &str = "agents_killed_at_random_moments_under_a_storm_lose_no_line_and_no_nanosecond";
    let Some(_host) = host(TEST) else { return Ok(()) };
    assert_eq!(killed(TEST, |kills| kills < 21)?, 21);
    Ok(())
}

/// The same for as many moments as `KVMETER_KILLS` says, or as there are in so many minutes: `cargo xtask storms`. Each
/// ledger is held against the kernel after [`SERIES`] of them, for agents read theirs when they start.
#[test]
#[ignore = "takes minutes; cargo xtask storms runs it"]
fn long_form_of_agents_killed_at_random_moments() -> Result<()> {
    const TEST: &str = "long_form_of_agents_killed_at_random_moments";
    const SERIES: usize = 500;
    let Some(_host) = host(TEST) else { return Ok(()) };
    let number = |name: &str, or: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let most = usize::try_from(number("KVMETER_KILLS", 10_000))?;
    let end = Instant::now() + Duration::from_secs(60 * number("KVMETER_KILL_MINUTES", 10));
    let mut sum = 0;
    while sum < most && Instant::now() < end {
        sum += killed(TEST, |kills| kills < SERIES.min(most - sum) && Instant::now() < end)?;
        println!("{sum} kills so far");
    }
    Ok(())
}
