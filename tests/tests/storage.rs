//! Laws: a VM that stops keeps its disks, and they are billed until they are deleted; what is deleted but open is not
//! gone yet; each fact is told once, also where no agent saw it.

use std::{fs, os::unix::fs::MetadataExt as _, time::Duration};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    clock::{CLOCK_PAIR_NS, boot_ns},
    ledger::number,
    orders::OrderedVm,
    skip::{host, installed, skipped},
    stored::{PATIENCE, file, kinds, pool, qemu_img, told, wait_told},
};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

const MIB: usize = 1 << 20;

/// A directory on a disk: a raw file on a tmpfs counts as memory.
fn on_disk() -> Result<TempDir> {
    Ok(TempDir::new_in("/var/tmp")?)
}

#[test]
fn a_stopped_vms_disks_are_billed_until_they_are_deleted_whoever_watches() -> Result<()> {
    const TEST: &str = "a_stopped_vms_disks_are_billed_until_they_are_deleted_whoever_watches";
    if !installed("qemu-img") {
        skipped(TEST, "needs qemu-img (Debian package qemu-utils)");
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let (dir, pools) = (on_disk()?, on_disk()?);
    let raw = file(&dir.path().join("data.img"), 8 * MIB)?;
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "root.qcow2", "64M"])?;
    let root = dir.path().join("root.qcow2");
    let setup = || Setup::of(&pool(pools.path()));
    let agent = Agent::with(setup())?;
    let mut vm = OrderedVm::start(&["--id", "keeper"])?;
    vm.order(&format!("open {} rw", raw.display()))?;
    vm.order(&format!("open {} rw", root.display()))?;
    agent.wait_vms(&["keeper"])?;
    let both = (72 * MIB) as u64;
    let lines = wait_told(&agent, "keeper", "", Some(both))?;
    assert_eq!((&lines[0]["kind"], &lines[0]["storage_id"]), (&json!("vm.storage.start"), &json!("keeper")));
    agent.wait_until("the shape", PATIENCE, |a| {
        let shape = &a.json("/v1/vms/keeper")?["shape"];
        Ok(shape["storage_bytes"] == both)
    })?;
    vm.vm.signal(Signal::SIGKILL)?;
    vm.vm.wait()?;
    let stop = agent.stop_line("keeper")?;
    assert_eq!(stop["shape"]["storage_bytes"], both);
    agent.wait_samples(2)?;
    assert!(!kinds(&told(&agent.ledger()?, "keeper")).contains(&"stop".into()), "its disks are still there");

    // Nothing of it depends on this agent.
    let dir_of = agent.kill()?;
    let agent = Agent::with(Setup { dir: Some(dir_of), ..setup() })?;
    agent.wait_samples(2)?;
    let before = told(&agent.ledger()?, "keeper").len();
    assert_eq!(before, lines.len(), "nothing is opened twice");
    fs::remove_file(&raw)?;
    let lines = wait_told(&agent, "keeper", "resize", Some((64 * MIB) as u64))?;
    let shrunk = lines.last().context("none")?;
    assert_eq!((&shrunk["time_quality"], &shrunk["cause"]), (&json!("exact"), &json!("deleted")), "{shrunk}");
    let deleting = boot_ns()?;
    fs::remove_file(&root)?;
    let deleted = boot_ns()?;
    let stop = wait_told(&agent, "keeper", "stop", None)?.pop().context("none")?;
    let read = boot_ns()?;
    assert_eq!((&stop["reason"], &stop["time_quality"]), (&json!("vm-rm"), &json!("exact")), "{stop}");
    let at = number(&stop["mono_ns"])?;
    eprintln!(
        "the stop is told {} ns after the deletion had begun, which took {} ns",
        at - deleting,
        deleted - deleting
    );
    assert!(deleting <= at && at <= read, "{deleting} {at} {read}");
    agent.verify()
}

#[test]
fn a_pools_images_and_snapshots_are_told_from_their_birth_to_their_end() -> Result<()> {
    const TEST: &str = "a_pools_images_and_snapshots_are_told_from_their_birth_to_their_end";
    if !installed("qemu-img") {
        skipped(TEST, "needs qemu-img (Debian package qemu-utils)");
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let dir = on_disk()?;
    let at = |name: &str| dir.path().join(name);
    let agent = Agent::with(Setup::of(&pool(dir.path())))?;
    let began = boot_ns()?;
    qemu_img(dir.path(), &["create", "-q", "-f", "qcow2", "gold@base.qcow2", "32M"])?;
    qemu_img(
        dir.path(),
        &["create", "-q", "-f", "qcow2", "-b", "gold@base.qcow2", "-F", "qcow2", "clone.qcow2", "48M"],
    )?;
    let snap = wait_told(&agent, "base", "", Some(at("gold@base.qcow2").metadata()?.blocks() * 512))?.remove(0);
    let clone = wait_told(&agent, "clone", "start", Some((48 * MIB) as u64))?.remove(0);
    assert_eq!((&snap["kind"], &snap["vm_id"]), (&json!("snap.storage.start"), &json!("gold")));
    assert_eq!(clone["source_snapshot_id"], "base", "{clone}");
    for line in [&snap, &clone] {
        assert_eq!(line["time_quality"], "exact", "born while it was watched: {line}");
        // A birth is told in the kernel's coarse clock.
        assert!(number(&line["mono_ns"])? + 20_000_000 + CLOCK_PAIR_NS >= began, "{line}");
    }
    let inode = at("gold@base.qcow2").metadata()?.ino().to_string();
    let storage_id = snap["storage_id"].as_str().context("no id")?.to_owned();
    assert_eq!(storage_id.split(':').nth(1), Some(inode.as_str()));

    // Growth past a step, told while the file grows and exactly once it rests.
    file(&at("vm@grows.img"), 4096)?;
    wait_told(&agent, "grows", "", Some(4096))?;
    file(&at("vm@grows.img"), 3 * MIB)?;
    wait_told(&agent, "grows", "resize", Some((3 * MIB) as u64))?;
    file(&at("vm@grows.img"), 3 * MIB + 8192)?;
    wait_told(&agent, "grows", "resize", Some((3 * MIB + 8192) as u64))?;

    // The same name, another file.
    fs::rename(file(&at("new"), 5 * MIB)?, at("vm@grows.img"))?;
    agent.wait_until("two of them", PATIENCE, |a| {
        let lines = told(&a.ledger()?, "grows");
        Ok(kinds(&lines).iter().filter(|kind| *kind == "start").count() == 2 && kinds(&lines).contains(&"stop".into()))
    })?;
    let lines = told(&agent.ledger()?, "grows");
    let stop = lines.iter().find(|line| line["kind"] == "snap.storage.stop").context("no stop")?;
    assert_eq!((&stop["reason"], &stop["time_quality"]), (&json!("snap-rm"), &json!("exact")));
    let starts: Vec<_> = lines.iter().filter(|line| line["kind"] == "snap.storage.start").collect();
    assert!(starts[0]["storage_id"] != starts[1]["storage_id"], "{lines:#?}");

    // An image that a VM runs from is its disk, once.
    let mut vm = OrderedVm::start(&["--id", "clone"])?;
    vm.order(&format!("open {} rw", at("clone.qcow2").display()))?;
    agent.wait_until("its shape", PATIENCE, |a| {
        Ok(a.json("/v1/vms/clone").is_ok_and(|vm| vm["shape"]["storage_bytes"] == 48 * MIB))
    })?;
    assert_eq!(told(&agent.ledger()?, "clone").len(), 1, "{:#?}", told(&agent.ledger()?, "clone"));
    let status = agent.json("/v1/status")?;
    assert_eq!(status["storage"]["pools"][0]["state"], "watched", "{}", status["storage"]);
    assert_eq!(status["storage"]["snapshots_and_images"], 2, "{}", status["storage"]);
    agent.verify()
}

#[test]
fn what_is_deleted_but_held_by_a_vm_is_billed_until_it_is_let_go() -> Result<()> {
    let Some(_host) = host("what_is_deleted_but_held_by_a_vm_is_billed_until_it_is_let_go") else { return Ok(()) };
    let dir = on_disk()?;
    let path = file(&dir.path().join("held.img"), 4 * MIB)?;
    let setup = || Setup::of(&pool(dir.path()));
    let agent = Agent::with(setup())?;
    let mut vm = OrderedVm::start(&["--id", "held"])?;
    vm.order(&format!("open {} rw", path.display()))?;
    agent.wait_until("its disk", PATIENCE, |a| {
        Ok(a.json("/v1/vms/held").is_ok_and(|vm| vm["disks"].as_array().is_some_and(|disks| disks.len() == 1)))
    })?;
    wait_told(&agent, "held", "start", Some((4 * MIB) as u64))?;
    fs::remove_file(&path)?;
    agent.wait_until("no name", PATIENCE, |a| Ok(a.json("/v1/status")?["storage"]["pools"][0]["nameless"] == 1))?;
    // Another agent has nothing but the ledger and the VM's descriptor.
    let dir_of = agent.kill()?;
    let agent = Agent::with(Setup { dir: Some(dir_of), ..setup() })?;
    agent.wait_until("all is asked", PATIENCE, |a| Ok(a.json("/v1/status")?["storage"]["unsettled"] == false))?;
    agent.wait_samples(3)?;
    assert_eq!(kinds(&told(&agent.ledger()?, "held")), ["start"]);
    let letting_go = boot_ns()?;
    vm.vm.signal(Signal::SIGKILL)?;
    vm.vm.wait()?;
    let stop = wait_told(&agent, "held", "stop", None)?.pop().context("none")?;
    assert_eq!((&stop["reason"], &stop["time_quality"]), (&json!("vm-rm"), &json!("exact")), "{stop}");
    assert!(number(&stop["mono_ns"])? >= letting_go, "{stop}");
    agent.verify()
}

#[test]
fn what_came_and_went_while_no_agent_ran_is_bounded_and_told_once() -> Result<()> {
    let Some(_host) = host("what_came_and_went_while_no_agent_ran_is_bounded_and_told_once") else { return Ok(()) };
    let dir = on_disk()?;
    let at = |name: &str| dir.path().join(name);
    for name in ["stays.img", "goes.img", "vm@lost.img", "replaced.img", "renamed.img"] {
        file(&at(name), 2 * MIB)?;
    }
    let setup = || Setup::of(&pool(dir.path()));
    let agent = Agent::with(setup())?;
    for subject in ["stays", "goes", "replaced", "renamed"] {
        wait_told(&agent, subject, "start", Some((2 * MIB) as u64))?;
    }
    let (status, _, dir_of) = agent.stop()?;
    assert!(status.success());
    let down = kvmeter_tests::ledger::ledger_in(dir_of.path())?.pop().context("no line")?;
    assert_eq!(down["kind"], "agent.down");
    std::thread::sleep(Duration::from_millis(300));
    for name in ["goes.img", "vm@lost.img"] {
        fs::remove_file(at(name))?;
    }
    fs::rename(file(&at("new"), 3 * MIB)?, at("replaced.img"))?;
    fs::rename(at("renamed.img"), at("other.img"))?;
    let making = boot_ns()?;
    file(&at("comes.img"), MIB)?;
    std::thread::sleep(Duration::from_millis(300));
    let back = boot_ns()?;
    let agent = Agent::with(Setup { dir: Some(dir_of), ..setup() })?;
    let comes = wait_told(&agent, "comes", "start", Some(MIB as u64))?.remove(0);
    let born = number(&comes["mono_ns"])?;
    assert!(comes["time_quality"] == "exact" && born + 20_000_000 >= making && born < back, "{comes}");
    for (subject, reason) in [("goes", "vm-rm"), ("lost", "snap-rm")] {
        let stop = wait_told(&agent, subject, "stop", None)?.pop().context("none")?;
        assert_eq!(stop["time_quality"], "bounded", "{stop}");
        assert_eq!((&stop["emitted_at"], &stop["mono_ns"]), (&down["recorded_at"].clone(), &down["mono_ns"]), "{stop}");
        assert_eq!(stop["reason"], reason, "{stop}");
    }
    wait_told(&agent, "replaced", "", Some((3 * MIB) as u64))?;
    wait_told(&agent, "other", "start", Some((2 * MIB) as u64))?;
    let renamed = wait_told(&agent, "renamed", "stop", None)?.pop().context("none")?;
    assert_eq!((&renamed["cause"], renamed.get("reason")), (&json!("moved"), None), "it was not deleted");
    assert_eq!(kinds(&told(&agent.ledger()?, "stays")), ["start"]);
    agent.verify()
}
