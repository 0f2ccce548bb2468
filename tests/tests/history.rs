//! Law: the history survives the agent. An orderly end loses nothing of it, a kill what came after the last save, damage
//! what it hits; where nothing can be written it goes on in memory and says so.

use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kvmeter::clock;
use kvmeter_tests::{
    agent::{Agent, Setup},
    skip::host,
    sse::Sse,
    vmm::spawn::TestVm,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// It is saved at an orderly end alone.
const AT_THE_END: &str = "[history]\ninterval = \"1s\"\nsave_interval = \"1d\"\n";
const EACH_SECOND: &str = "[history]\ninterval = \"1s\"\nsave_interval = \"1s\"\n";

fn kept(agent: &Agent, vm: &str) -> Result<u64> {
    agent.json(&format!("/v1/vms/{vm}"))?["samples"].as_u64().context("no samples")
}

/// Waits until so many samples more of a VM are kept.
fn wait_more(agent: &Agent, vm: &str, more: u64) -> Result<()> {
    let due = kept(agent, vm)? + more;
    agent.wait_until("samples", PATIENCE, |agent| Ok(kept(agent, vm)? >= due))
}

/// A time in which no sample of a VM is added any more: until the second of the newest, Unix seconds.
fn past(agent: &Agent, vm: &str) -> Result<(u64, u64)> {
    let latest = agent.json(&format!("/v1/vms/{vm}/usage"))?;
    let at = clock::parse_rfc3339(latest["at"].as_str().context("no at")?).context("no instant")?;
    let until = at / 1_000_000_000;
    Ok((until - 600, until))
}

/// What is told of a VM by the second; its buckets with samples, if `whole` is false.
fn points(agent: &Agent, vm: &str, (since, until): (u64, u64), whole: bool) -> Result<Vec<Value>> {
    let path = format!("/v1/vms/{vm}/usage/range?since={since}&until={until}&resolution=1s");
    let Value::Array(mut points) = agent.json(&path)?["points"].take() else { anyhow::bail!("no points") };
    points.retain(|point| whole || point["count"] != 0);
    Ok(points)
}

fn again(dir: TempDir, config: &str) -> Result<Agent> {
    Agent::with(Setup { dir: Some(dir), ..Setup::of(config) })
}

fn saved(agent: &Agent) -> Result<Value> {
    Ok(agent.json("/v1/status")?["history"]["saved"].take())
}

#[test]
fn an_orderly_restart_keeps_every_point_leaves_a_gap_and_streams_go_on_over_it() -> Result<()> {
    let Some(_host) = host("an_orderly_restart_keeps_every_point_leaves_a_gap_and_streams_go_on_over_it") else {
        return Ok(());
    };
    let agent = Agent::with(Setup::of(AT_THE_END))?;
    let _vm = TestVm::start(&["--id", "r", "--duty", "30"])?;
    agent.wait_vms(&["r"])?;
    let path = "/v1/vms/r/usage/stream";
    let mut live = Sse::open(&agent, path, None)?;
    let (first, _) = live.next_of("sample")?;
    let told = [live.next_of("sample")?.0, live.next_of("sample")?.0];
    wait_more(&agent, "r", 3)?;
    let range = past(&agent, "r")?;
    let before = points(&agent, "r", range, false)?;
    ensure!(before.len() >= 3 && before.iter().any(|point| point["cpu_percent"]["mean"].as_f64() > Some(0.0)));
    let (status, _, dir) = agent.stop()?;
    ensure!(status.success());
    let mode = |path: &Path| -> Result<u32> { Ok(std::fs::metadata(path)?.permissions().mode() & 0o777) };
    let history = dir.path().join("data/history");
    ensure!(mode(&history)? == 0o700, "a directory for the agent alone");
    for file in std::fs::read_dir(&history)? {
        ensure!(mode(&file?.path())? == 0o600, "files for the agent alone");
    }
    // Nobody measures for a while.
    std::thread::sleep(Duration::from_secs(3));
    let agent = again(dir, AT_THE_END)?;
    assert_eq!(points(&agent, "r", range, false)?, before, "what was told before is told again");
    let mut back = Sse::open(&agent, path, Some(first))?;
    assert_eq!([back.next_of("sample")?.0, back.next_of("sample")?.0], told, "who comes back misses none");
    wait_more(&agent, "r", 3)?;
    let (since, until) = (range.0, past(&agent, "r")?.1);
    let all = points(&agent, "r", (since, until), true)?;
    let gaps = all.windows(2).filter(|pair| pair.iter().all(|point| point["count"] == 0)).count();
    let begun = all.iter().position(|point| point["count"] != 0).context("no samples")?;
    ensure!(gaps > begun.saturating_sub(1), "while no agent ran there are no samples: {all:?}");
    for point in all {
        ensure!(point["count"] != 0 || point.as_object().is_some_and(|keys| keys.len() == 2), "made up: {point}");
    }
    assert_eq!(points(&agent, "r", range, false)?, before, "and nothing is doubled");
    Ok(())
}

#[test]
fn a_kill_loses_no_sample_that_was_there_at_the_last_save() -> Result<()> {
    let Some(_host) = host("a_kill_loses_no_sample_that_was_there_at_the_last_save") else { return Ok(()) };
    let mut agent = Agent::with(Setup::of(EACH_SECOND))?;
    let _vm = TestVm::start(&["--id", "k", "--duty", "30"])?;
    agent.wait_vms(&["k"])?;
    for _ in 0..3 {
        wait_more(&agent, "k", 3)?;
        let range = past(&agent, "k")?;
        let before = points(&agent, "k", range, false)?;
        let asked = clock::now()?.unix_ns;
        agent.wait_until("a save that began later", PATIENCE, |agent| {
            Ok(saved(agent)?["saved_at"].as_str().and_then(clock::parse_rfc3339) > Some(asked))
        })?;
        agent = again(agent.kill()?, EACH_SECOND)?;
        assert_eq!(points(&agent, "k", range, false)?, before);
        assert_eq!(agent.metrics()?.one("kvmeter_history_damaged_total", &[]), Some(0.0));
    }
    let metrics = agent.metrics()?;
    assert_eq!(metrics.one("kvmeter_history_save_failures_total", &[]), Some(0.0));
    ensure!(metrics.one("kvmeter_history_disk_bytes", &[]) > Some(0.0));
    Ok(())
}

#[test]
fn damage_costs_the_vm_it_hits_and_is_told_once() -> Result<()> {
    let Some(_host) = host("damage_costs_the_vm_it_hits_and_is_told_once") else { return Ok(()) };
    let agent = Agent::with(Setup::of(AT_THE_END))?;
    let _vms = [TestVm::start(&["--id", "d1"])?, TestVm::start(&["--id", "d2"])?];
    agent.wait_vms(&["d1", "d2"])?;
    wait_more(&agent, "d1", 3)?;
    agent.wait_until("samples of the other", PATIENCE, |agent| Ok(kept(agent, "d2")? > 2))?;
    let ranges = [("d1", past(&agent, "d1")?), ("d2", past(&agent, "d2")?)];
    let before: Vec<_> = ranges.iter().map(|(vm, range)| points(&agent, vm, *range, false)).collect::<Result<_>>()?;
    let (_, _, dir) = agent.stop()?;
    let open = std::fs::read_dir(dir.path().join("data/history"))?
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "open"))
        .context("no open blocks")?;
    let mut bytes = std::fs::read(&open)?;
    let last = bytes.len() - 20;
    bytes[last] ^= 0x10;
    std::fs::write(&open, bytes)?;
    let agent = again(dir, AT_THE_END)?;
    let mut lost = 0;
    for ((vm, range), before) in ranges.iter().zip(before) {
        let after = points(&agent, vm, *range, false)?;
        ensure!(after.is_empty() || after == before, "{vm}: {after:?}, not {before:?}");
        lost += usize::from(after.is_empty());
    }
    assert_eq!(lost, 1, "that which was hit");
    assert_eq!(agent.metrics()?.one("kvmeter_history_damaged_total", &[]), Some(1.0));
    assert_eq!(saved(&agent)?["damaged_parts"], 1);
    assert_eq!(agent.log().matches("files are damaged").count(), 1);
    wait_more(&agent, "d1", 2)
}

/// A file system of its own, unmounted when dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn where_nothing_can_be_written_what_was_is_read_and_it_goes_on_in_memory() -> Result<()> {
    let Some(_host) = host("where_nothing_can_be_written_what_was_is_read_and_it_goes_on_in_memory") else {
        return Ok(());
    };
    // By itself it would leave the ledger more than this file system has.
    let config = format!("{EACH_SECOND}[ledger]\nmin_free = \"1MiB\"\n");
    let dir = TempDir::new()?;
    let history = dir.path().join("data/history");
    std::fs::create_dir_all(&history)?;
    let none = None::<&str>;
    mount(Some("kvmeter-tests"), &history, Some("tmpfs"), MsFlags::empty(), Some("size=64m,mode=0700"))?;
    let _mounted = Mounted(&history);
    let agent = again(dir, &config)?;
    let _vm = TestVm::start(&["--id", "w", "--duty", "30"])?;
    agent.wait_vms(&["w"])?;
    wait_more(&agent, "w", 3)?;
    let range = past(&agent, "w")?;
    let before = points(&agent, "w", range, false)?;
    let (_, _, dir) = agent.stop()?;
    mount(none, &history, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    let agent = again(dir, &config)?;
    assert_eq!(points(&agent, "w", range, false)?, before);
    let failures =
        |agent: &Agent| Ok::<_, anyhow::Error>(agent.metrics()?.one("kvmeter_history_save_failures_total", &[]));
    agent.wait_until("failures", PATIENCE, |agent| Ok(failures(agent)? >= Some(2.0)))?;
    ensure!(saved(&agent)?["trouble"].as_str().is_some_and(|why| why.contains("Read-only")), "{}", saved(&agent)?);
    assert_eq!(agent.log().matches("cannot be saved").count(), 1, "told once");
    wait_more(&agent, "w", 2)?;
    assert_eq!(agent.get("/healthz")?.0, 200, "no bill depends on it");
    mount(none, &history, none, MsFlags::MS_REMOUNT, none)?;
    agent.wait_until("a save", PATIENCE, |agent| Ok(saved(agent)?["trouble"].is_null()))?;
    let (status, _, dir) = agent.stop()?;
    ensure!(status.success());
    drop(dir);
    Ok(())
}

#[test]
fn a_stopped_vms_history_stays_its_time_over_a_restart() -> Result<()> {
    let Some(_host) = host("a_stopped_vms_history_stays_its_time_over_a_restart") else { return Ok(()) };
    let agent = Agent::with(Setup::of(AT_THE_END))?;
    let vm = TestVm::start(&["--id", "g", "--duty", "30"])?;
    agent.wait_vms(&["g"])?;
    wait_more(&agent, "g", 3)?;
    let range = past(&agent, "g")?;
    let before = points(&agent, "g", range, false)?;
    drop(vm);
    agent.stop_line("g")?;
    let (_, _, dir) = agent.stop()?;
    let agent = again(dir, AT_THE_END)?;
    assert_eq!(points(&agent, "g", range, false)?, before);
    let (_, _, dir) = agent.stop()?;
    let agent = again(dir, &format!("{AT_THE_END}keep_stopped = \"0s\"\n"))?;
    agent.wait_until("its end", PATIENCE, |agent| Ok(agent.get("/v1/vms/g/usage/range")?.0 == 404))
}

#[test]
fn what_is_not_to_be_saved_is_in_memory_alone() -> Result<()> {
    let Some(_host) = host("what_is_not_to_be_saved_is_in_memory_alone") else { return Ok(()) };
    let agent = Agent::with(Setup::of("[history]\nsave_interval = \"0s\"\n"))?;
    ensure!(saved(&agent)?.is_null());
    ensure!(!agent.dir().join("data/history").exists());
    assert_eq!(agent.metrics()?.one("kvmeter_history_disk_bytes", &[]), None, "there are no files");
    Ok(())
}
