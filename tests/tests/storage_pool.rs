//! Laws: a pool that vanishes is no mass deletion; what cannot be watched is told.

use std::{
    fs,
    fs::{File, OpenOptions},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    skip::{host, skipped},
    stored::{PATIENCE, file, kinds, pool, told, wait_told},
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

const AVAILABLE: &str = "kvmeter_feature_available";

/// A mount, gone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path) -> Result<Self> {
        mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        Ok(Self(at.to_owned()))
    }

    fn bind(from: &Path, at: &Path) -> Result<Self> {
        mount(Some(from), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(Self(at.to_owned()))
    }
}

/// A file system that answers nothing, as one whose server is gone.
fn hanging(at: &Path) -> Result<(Mounted, File)> {
    let server = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    mount(Some("none"), at, Some("fuse"), MsFlags::empty(), Some(options.as_str()))?;
    Ok((Mounted(at.to_owned()), server))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn of_pool(agent: &Agent) -> Result<Value> {
    Ok(agent.json("/v1/status")?["storage"]["pools"][0].clone())
}

#[test]
fn an_unmounted_pool_ends_nothing_and_is_told() -> Result<()> {
    let Some(_host) = host("an_unmounted_pool_ends_nothing_and_is_told") else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let mounted = Mounted::tmpfs(dir.path())?;
    for name in ["a.img", "b.img", "a@s.img"] {
        file(&dir.path().join(name), 1 << 20)?;
    }
    let agent = Agent::with(Setup::of(&pool(dir.path())))?;
    for subject in ["a", "b", "s"] {
        wait_told(&agent, subject, "start", None)?;
    }
    assert_eq!(agent.metrics()?.one(AVAILABLE, &[("feature", "storage_pools")]), Some(1.0));
    // Nothing of the agent's keeps it from being unmounted.
    agent.wait_until("the end of a look at it", PATIENCE, |_| match umount2(dir.path(), MntFlags::empty()) {
        Err(nix::Error::EBUSY) => Ok(false),
        done => Ok(done.map(|()| true)?),
    })?;
    drop(mounted);
    agent.wait_until("out of sight", PATIENCE, |a| Ok(of_pool(a)?["unknown"] == 3))?;
    let told_of = of_pool(&agent)?;
    assert_eq!(told_of["state"], "unknown", "{told_of}");
    assert!(told_of["why"].as_str().is_some_and(|why| why.contains("not mounted")), "{told_of}");
    assert_eq!(agent.metrics()?.one(AVAILABLE, &[("feature", "storage_pools")]), Some(0.0));
    let doctor = String::from_utf8(agent.command(&["doctor"])?.stdout)?;
    let row = doctor.lines().find(|line| line.starts_with("storage_pools")).context("no row")?;
    assert!(row.contains("NO") && row.contains("not mounted"), "{row}");
    let (_, _, dir_of) = agent.stop()?;
    let agent = Agent::with(Setup { dir: Some(dir_of), ..Setup::of(&pool(dir.path())) })?;
    agent.wait_until("out of sight still", PATIENCE, |a| Ok(of_pool(a)?["unknown"] == 3))?;
    agent.wait_samples(2)?;
    for subject in ["a", "b", "s"] {
        assert_eq!(kinds(&told(&agent.ledger()?, subject)), ["start"], "{subject}");
    }
    agent.verify()
}

#[test]
fn a_pool_that_comes_back_goes_on_as_if_it_had_never_been_away() -> Result<()> {
    let Some(_host) = host("a_pool_that_comes_back_goes_on_as_if_it_had_never_been_away") else { return Ok(()) };
    let (system, dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let _kept = Mounted::tmpfs(system.path())?;
    let mounted = Mounted::bind(system.path(), dir.path())?;
    file(&dir.path().join("a.img"), 1 << 20)?;
    file(&dir.path().join("b.img"), 1 << 20)?;
    let setup = || Setup::of(&pool(dir.path()));
    let agent = Agent::with(setup())?;
    wait_told(&agent, "a", "start", None)?;
    wait_told(&agent, "b", "start", None)?;
    let dir_of = agent.kill()?;
    drop(mounted);
    let agent = Agent::with(Setup { dir: Some(dir_of), ..setup() })?;
    agent.wait_until("out of sight", PATIENCE, |a| Ok(of_pool(a)?["unknown"] == 2))?;
    fs::remove_file(system.path().join("b.img"))?;
    let _mounted = Mounted::bind(system.path(), dir.path())?;
    let stop = wait_told(&agent, "b", "stop", None)?.pop().context("none")?;
    assert_eq!((&stop["time_quality"], &stop["reason"]), (&json!("bounded"), &json!("vm-rm")), "{stop}");
    agent.wait_until("in sight again", PATIENCE, |a| Ok(of_pool(a)?["state"] == "watched"))?;
    assert_eq!(kinds(&told(&agent.ledger()?, "a")), ["start"]);
    agent.verify()
}

#[test]
fn a_pool_that_is_not_there_is_told_by_doctor_and_keeps_nothing_from_working() -> Result<()> {
    let Some(_host) = host("a_pool_that_is_not_there_is_told_by_doctor_and_keeps_nothing_from_working") else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("missing");
    let agent = Agent::with(Setup::of(&pool(&missing)))?;
    agent.wait_until("the status", PATIENCE, |a| Ok(of_pool(a)?["state"] == "unknown"))?;
    let doctor = String::from_utf8(agent.command(&["doctor"])?.stdout)?;
    assert!(doctor.contains("storage_pools") && doctor.contains("No such file"), "{doctor}");
    // It is looked for again, and found.
    fs::create_dir(&missing)?;
    file(&missing.join("late.img"), 4096)?;
    std::os::unix::fs::symlink("late.img", missing.join("link.img"))?;
    wait_told(&agent, "late", "start", Some(4096))?;
    agent.wait_until("the status", PATIENCE, |a| {
        let told_of = of_pool(a)?;
        Ok((&told_of["state"], &told_of["skipped"]["not_files"]) == (&json!("watched"), &json!(1)))
    })?;
    let doctor = String::from_utf8(agent.command(&["doctor"])?.stdout)?;
    assert!(doctor.contains("1 fit a pattern and are no files"), "{doctor}");
    Ok(())
}

#[test]
fn a_pool_that_hangs_stops_nothing_else_and_is_told() -> Result<()> {
    const TEST: &str = "a_pool_that_hangs_stops_nothing_else_and_is_told";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let (dir, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (mounted, server) = match hanging(dir.path()) {
        Ok(hanging) => hanging,
        Err(error) => {
            skipped(TEST, &format!("needs FUSE: {error}"));
            return Ok(());
        }
    };
    let fine = pool(other.path()).split_once("[[").map(|(_, pool)| format!("[[{pool}")).context("no pool")?;
    let agent = Agent::with(Setup::of(&(pool(dir.path()) + &fine)))?;
    file(&other.path().join("a.img"), 1 << 20)?;
    wait_told(&agent, "a", "start", Some(1 << 20))?;
    fs::remove_file(other.path().join("a.img"))?;
    wait_told(&agent, "a", "stop", None)?;
    agent.wait_until("it is told", PATIENCE, |a| {
        Ok(of_pool(a)?["why"].as_str().is_some_and(|why| why.contains("has not answered")))
    })?;
    assert_eq!(agent.get("/healthz")?.0, 200, "nothing else is wrong");
    let doctor = String::from_utf8(agent.command(&["doctor"])?.stdout)?;
    assert!(doctor.contains("did not answer in") || doctor.contains("has not answered"), "{doctor}");
    agent.verify()?;
    let (status, took, _dir) = agent.stop()?;
    assert!(status.success() && took < PATIENCE, "{status} {took:?}");
    drop(server);
    drop(mounted);
    Ok(())
}
