//! Law: health is bad while the ledger cannot be written, and good again after it; no line is lost and none is shown
//! that is not durable.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::lives,
    skip::{host, skipped},
    vmm::spawn::TestVm,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A small disk of its own, which a test can fill; unmounted when dropped.
struct Disk(TempDir);

impl Disk {
    fn mount(bytes: u32) -> Result<Self> {
        let dir = TempDir::new()?;
        let size = format!("size={bytes},mode=0700");
        nix::mount::mount(
            Some("kvmeter-tests"),
            dir.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(size.as_str()),
        )?;
        Ok(Self(dir))
    }

    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.0.path().join("ballast"))?;
        let full = loop {
            match file.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
        Ok(())
    }

    /// Takes so many bytes of it.
    fn take(&self, bytes: usize) -> Result<()> {
        Ok(std::fs::write(self.0.path().join("ballast"), vec![0; bytes])?)
    }

    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.0.path().join("ballast"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// An agent whose ledger is on this disk.
fn agent_on(disk: &Disk, config: &str) -> Result<Agent> {
    let dir = TempDir::new()?;
    std::os::unix::fs::symlink(disk.0.path(), dir.path().join("data"))?;
    Agent::with(Setup { dir: Some(dir), ..Setup::of(config) })
}

#[test]
fn a_full_disk_makes_health_bad_and_loses_no_line() -> Result<()> {
    let Some(_host) = host("a_full_disk_makes_health_bad_and_loses_no_line") else { return Ok(()) };
    let disk = Disk::mount(256 << 10)?;
    let agent = agent_on(&disk, "[ledger]\nheartbeat = \"1s\"\n")?;
    let early = TestVm::start(&["--id", "early", "--duty", "10"])?;
    agent.wait_vms(&["early"])?;
    assert_eq!(agent.get("/healthz")?, (200, "ok\n".to_owned()));
    disk.fill()?;
    // More lines than the rest of the file's last page holds.
    let mut late = (0..8).map(|n| TestVm::start(&["--id", &format!("late{n}")])).collect::<Result<Vec<_>>>()?;
    agent.wait_until("bad health", PATIENCE, |a| Ok(a.get("/healthz")?.0 == 503))?;
    let said = agent.request("GET", "/healthz")?.problem(503)?;
    assert!(said["detail"].as_str().unwrap_or("").contains("ledger"), "{said}");
    drop(late.pop());
    drop(early);
    agent.wait_samples(3)?;
    let metrics = agent.metrics()?;
    let spooled = metrics.one("kvmeter_ledger_spooled_records", &[]).unwrap_or(0.0);
    let failures = metrics.sum("kvmeter_ledger_write_failures_total", &[]);
    assert!(spooled > 0.0 && failures > 0.0, "{spooled} spooled, {failures} failures");
    let status = agent.json("/v1/status")?;
    assert_eq!(status["ledger"]["degraded"], true, "{status}");
    let doctor = agent.command(&["doctor"])?;
    assert_eq!(doctor.status.code(), Some(3), "doctor asks the agent: {}", String::from_utf8_lossy(&doctor.stdout));
    disk.free()?;
    agent.wait_until("good health", PATIENCE, |a| Ok(a.get("/healthz")?.0 == 200))?;
    agent.wait_until("an empty spool", PATIENCE, |a| {
        Ok(a.metrics()?.one("kvmeter_ledger_spooled_records", &[]) == Some(0.0))
    })?;
    eprintln!("{spooled} lines waited, {failures} failed attempts");
    drop(late);
    for id in ["early", "late0", "late7"] {
        agent.stop_line(id)?;
    }
    let lines = agent.ledger()?;
    let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap_or(0)).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "no hole and in order");
    lives(&lines)?;
    assert_eq!(agent.lines("vm.compute.start", "late7")?.len(), 1);
    assert_eq!(agent.json("/v1/status")?["ledger"]["dropped_heartbeats"], 0);
    agent.verify()
}

#[test]
fn little_space_for_the_ledger_is_an_alarm_before_it_is_a_failure() -> Result<()> {
    const MIB: usize = 1 << 20;
    let Some(_host) = host("little_space_for_the_ledger_is_an_alarm_before_it_is_a_failure") else { return Ok(()) };
    let disk = Disk::mount(8 << 20)?;
    let agent = agent_on(&disk, "[ledger]\nheartbeat = \"1s\"\nmin_free = \"4MiB\"\n")?;
    let _vm = TestVm::start(&["--id", "vm"])?;
    agent.wait_vms(&["vm"])?;
    let low = |a: &Agent| Ok::<_, anyhow::Error>(a.metrics()?.one("kvmeter_ledger_space_low", &[]));
    let row = |a: &Agent| -> Result<bool> {
        let told: serde_json::Value = serde_json::from_slice(&a.command(&["doctor", "--json"])?.stdout)?;
        let row = told["features"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "ledger_space"));
        row.and_then(|row| row["available"].as_bool()).with_context(|| format!("no row: {told}"))
    };
    agent.wait_until("a look at the space", PATIENCE, |a| Ok(low(a)? == Some(0.0)))?;
    assert!(row(&agent)?);
    disk.take(5 * MIB)?;
    agent.wait_until("the alarm", PATIENCE, |a| Ok(low(a)? == Some(1.0)))?;
    assert!(!row(&agent)?);
    // Nothing has failed.
    assert_eq!(agent.get("/healthz")?, (200, "ok\n".to_owned()));
    let ledger = agent.json("/v1/status")?["ledger"].clone();
    assert_eq!((&ledger["space_low"], &ledger["degraded"]), (&true.into(), &false.into()), "{ledger}");
    assert!(ledger["free_bytes"].as_u64().is_some_and(|free| free < 4 * MIB as u64), "{ledger}");
    disk.free()?;
    agent.wait_until("its end", PATIENCE, |a| Ok(low(a)? == Some(0.0)))?;
    assert!(row(&agent)?);
    agent.verify()
}

#[test]
fn a_ledger_that_hangs_shows_no_new_vm_and_makes_health_bad() -> Result<()> {
    let Some(_host) = host("a_ledger_that_hangs_shows_no_new_vm_and_makes_health_bad") else { return Ok(()) };
    let Some(disk) = Frozen::mount()? else {
        skipped(
            "a_ledger_that_hangs_shows_no_new_vm_and_makes_health_bad",
            "needs a loop device with ext4 and fsfreeze",
        );
        return Ok(());
    };
    let agent = agent_on(&disk.disk, "")?;
    let ice = disk.freeze()?;
    let vm = TestVm::start(&["--id", "unwritten", "--duty", "10"])?;
    agent.wait_samples(3)?;
    assert!(
        agent.metrics()?.all("kvmeter_vm_info", &[("vm_id", "unwritten")]).next().is_none(),
        "shown, and not durable"
    );
    assert_eq!(agent.get("/v1/vms/unwritten")?.0, 404);
    let bad = agent.wait_until("bad health", PATIENCE, |a| Ok(a.get("/healthz")?.0 == 503));
    drop(ice);
    bad.context("a ledger whose sync hangs is stuck")?;
    agent.wait_vms(&["unwritten"])?;
    drop(vm);
    agent.stop_line("unwritten")?;
    agent.wait_until("good health", PATIENCE, |a| Ok(a.get("/healthz")?.0 == 200))?;
    agent.verify()
}

/// An ext4 file system that can be frozen: then writing to it hangs.
struct Frozen {
    disk: Disk,
    _image: tempfile::NamedTempFile,
}

impl Frozen {
    fn mount() -> Result<Option<Self>> {
        let (image, dir) = (tempfile::NamedTempFile::new()?, TempDir::new()?);
        image.as_file().set_len(32 << 20)?;
        let ok = |program: &str, args: &[&std::ffi::OsStr]| {
            let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let (file, folder) = (image.path().as_os_str(), dir.path().as_os_str());
        if !ok("mkfs.ext4", &["-q".as_ref(), file]) || !ok("mount", &["-o".as_ref(), "loop".as_ref(), file, folder]) {
            return Ok(None);
        }
        let frozen = Self { disk: Disk(dir), _image: image };
        let works = frozen.freeze().is_ok();
        Ok(works.then_some(frozen))
    }

    fn freeze(&self) -> Result<Ice<'_>> {
        let status = Command::new("fsfreeze").arg("-f").arg(self.disk.0.path()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "fsfreeze: {status}");
        Ok(Ice(self.disk.0.path()))
    }
}

/// A frozen file system, thawed when dropped: before the agent is, which could not be reaped while it hangs.
struct Ice<'a>(&'a std::path::Path);

impl Drop for Ice<'_> {
    fn drop(&mut self) {
        drop(Command::new("fsfreeze").arg("-u").arg(self.0).stderr(Stdio::null()).status());
    }
}
