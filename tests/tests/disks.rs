//! Law: what was not measured is absent. Disks have the sizes that `qemu-img` tells; what cannot be seen is told as that.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    orders::OrderedVm,
    skip::{host, installed, skipped},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const CAPACITY: &str = "kvmeter_vm_disk_capacity_bytes";
const PATIENCE: Duration = Duration::from_secs(60);
const SCAN: &str = "[discovery]\nscan_interval = \"1s\"\n";

/// A directory on a disk: a raw file on a tmpfs counts as memory.
fn on_disk() -> Result<TempDir> {
    Ok(TempDir::new_in("/var/tmp")?)
}

/// What `qemu-img` says of an image.
fn info(path: &Path) -> Result<Value> {
    let output = Command::new("qemu-img").args(["info", "--output=json"]).arg(path).output()?;
    ensure!(output.status.success(), "qemu-img info {}", path.display());
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn create(dir: &Path, format: &str, more: &[&str], name: &str, size: &str) -> Result<PathBuf> {
    let mut command = Command::new("qemu-img");
    command.current_dir(dir).args(["create", "-q", "-f", format]).args(more).args([name, size]);
    ensure!(command.status()?.success(), "qemu-img create {format} {name}");
    Ok(dir.join(name))
}

#[test]
fn disks_have_the_sizes_that_qemu_img_tells() -> Result<()> {
    const TEST: &str = "disks_have_the_sizes_that_qemu_img_tells";
    if !installed("qemu-img") {
        skipped(TEST, "needs qemu-img (Debian package qemu-utils)");
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let dir = on_disk()?;
    let mut paths = Vec::new();
    for (number, format) in ["raw", "qcow2", "vmdk", "vhdx", "vdi"].into_iter().enumerate() {
        paths.push(create(dir.path(), format, &[], &format!("{format}.disk"), &format!("{}M", 64 * (number + 1)))?);
    }
    create(dir.path(), "raw", &[], "base", "1G")?;
    let top = create(dir.path(), "qcow2", &["-b", "base", "-F", "raw"], "top", "2G")?;
    let agent = Agent::with(Setup::of(SCAN))?;
    let mut vm = OrderedVm::start(&["--id", "disks"])?;
    agent.wait_vms(&["disks"])?;
    // Twice the same file, and one without a name: one disk each.
    vm.order(&format!("open {} ro", paths[0].display()))?;
    for path in paths.iter().chain([&top]) {
        vm.order(&format!("open {} rw", path.display()))?;
    }
    vm.order(&format!("open {} ro", dir.path().join("base").display()))?;
    let mut expected: Vec<(String, u64, u64)> = Vec::new();
    for path in paths.iter().chain([&top]) {
        let info = info(path)?;
        let number = |key: &str| info[key].as_u64().context("no number");
        let format = info["format"].as_str().context("no format")?.to_owned();
        expected.push((format, number("virtual-size")?, number("actual-size")?));
    }
    fs::remove_file(&top)?;
    agent.wait_until("the disks", PATIENCE, |a| {
        Ok(a.json("/v1/vms/disks")?["disks"].as_array().is_some_and(|disks| disks.len() == 7))
    })?;
    let api = agent.json("/v1/vms/disks")?;
    let disks = api["disks"].as_array().context("no disks")?;
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
    for (path, (format, virtual_size, actual_size)) in paths.iter().chain([&top]).zip(&expected) {
        let disk = disks.iter().find(|disk| disk["path"] == path.display().to_string()).context("not listed")?;
        assert_eq!(disk["format"], format.as_str(), "{disk}");
        assert_eq!(
            (number(&disk["capacity_bytes"]), number(&disk["allocated_bytes"])),
            (Some(*virtual_size), Some(*actual_size)),
            "{disk}"
        );
        assert_eq!((&disk["role"], &disk["read_only"]), (&"disk".into(), &false.into()), "{disk}");
        assert_eq!(disk["deleted"].as_bool().unwrap_or(false), path == &top);
    }
    let base = disks.iter().find(|disk| disk["role"] == "backing").context("no backing file")?;
    assert_eq!(base["path"], dir.path().join("base").display().to_string());
    let sum = expected.iter().map(|(_, virtual_size, _)| virtual_size).sum::<u64>();
    assert_eq!(agent.metrics()?.one(CAPACITY, &[("vm_id", "disks")]), Some(sum as f64));
    let allocated = paths.iter().map(|path| Ok(path.metadata()?.blocks() * 512)).sum::<Result<u64>>()?;
    let scrape = agent.metrics()?;
    let shown = scrape.one("kvmeter_vm_disk_allocated_bytes", &[("vm_id", "disks")]);
    assert_eq!(shown, Some((allocated + expected.last().context("none")?.2) as f64));
    // A disk that is let go is none any more.
    vm.order(&format!("close {}", top.display()))?;
    agent.wait_until("one less", PATIENCE, |a| {
        Ok(a.json("/v1/vms/disks")?["disks"].as_array().is_some_and(|disks| disks.len() == 5))
    })
}

/// A process, killed and reaped when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn network_storage_is_told_as_unobserved_and_never_as_nothing() -> Result<()> {
    const TEST: &str = "network_storage_is_told_as_unobserved_and_never_as_nothing";
    if !["qemu-img", "qemu-nbd", "qemu-system-x86_64"].into_iter().all(installed) {
        skipped(TEST, "needs QEMU, qemu-img and qemu-nbd");
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let dir = on_disk()?;
    create(dir.path(), "raw", &[], "far.img", "32M")?;
    create(dir.path(), "qcow2", &[], "base.qcow2", "48M")?;
    create(dir.path(), "qcow2", &["-b", "base.qcow2", "-F", "qcow2"], "near.qcow2", "64M")?;
    let socket = dir.path().join("nbd");
    let mut nbd = Command::new("qemu-nbd");
    nbd.args(["-t", "-e", "8", "-f", "raw", "-k"]).arg(&socket).arg(dir.path().join("far.img"));
    let _nbd = Killed(nbd.stdin(Stdio::null()).spawn()?);
    let agent = Agent::with(Setup::of(SCAN))?;
    agent.wait_until("qemu-nbd", PATIENCE, |_| Ok(UnixStream::connect(&socket).is_ok()))?;
    let start = |name: &str, drives: &[String]| -> Result<Killed> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-accel",
            "kvm",
            "-cpu",
            "qemu64,-cx16,-pni",
            "-m",
            "64",
            "-nographic",
            "-nodefaults",
            "-name",
            name,
        ]);
        for drive in drives {
            qemu.args(["-drive", drive]);
        }
        Ok(Killed(qemu.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    };
    let far = format!("file=nbd:unix:{},format=raw,if=ide", socket.display());
    let near = format!("file={},if=ide", dir.path().join("near.qcow2").display());
    let _vms = [start("far", std::slice::from_ref(&far))?, start("both", &[far, near])?];
    agent.wait_vms(&["far", "both"])?;
    let api = |id: &str| agent.json(&format!("/v1/vms/{id}"));
    agent.wait_until("their disks", PATIENCE, |_| {
        Ok(api("far")?["disks"].is_array() && api("both")?["disks"].as_array().is_some_and(|disks| disks.len() == 2))
    })?;
    let (far, both) = (api("far")?, api("both")?);
    assert_eq!((&far["disks"], &far["disks_unobserved"]), (&json!([]), &json!(["nbd"])), "{far}");
    assert_eq!(both["disks_unobserved"], json!(["nbd"]), "{both}");
    let roles: Vec<_> = both["disks"].as_array().context("none")?.iter().map(|disk| disk["role"].as_str()).collect();
    assert!(roles.contains(&Some("disk")) && roles.contains(&Some("backing")), "{both}");
    let scrape = agent.metrics()?;
    assert_eq!(scrape.all(CAPACITY, &[("vm_id", "far")]).count(), 0, "what is not seen is no zero");
    assert_eq!(scrape.one(CAPACITY, &[("vm_id", "both")]), Some(f64::from(64 << 20)));
    let shown = String::from_utf8(agent.command(&["vm", "both"])?.stdout)?;
    assert!(shown.contains("near.qcow2") && shown.contains("disks_unobserved.0"), "{shown}");
    Ok(())
}
