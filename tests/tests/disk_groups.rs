//! Law: what a VM is told is its own. Control groups outlive VMs, and go before them.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    cgroup::Group,
    disk::{image, on_disk},
    orders::OrderedVm,
    skip::{host, skipped},
    vmm::spawn::TestVm,
};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Sets a limit that nobody reaches: without one on the device the kernel may count nothing.
fn have_counted(group: &Group, path: &str) -> Result<()> {
    let device = nix::sys::stat::stat(path)?.st_dev;
    let limit = format!("{}:{} 1000000000", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    Ok(fs::write(group.dir().join("blkio.throttle.write_bps_device"), limit)?)
}

/// Bytes written that a group counts itself.
fn counted(dir: &Path) -> Result<u64> {
    let text = fs::read_to_string(dir.join("blkio.throttle.io_service_bytes"))?;
    let lines = text.lines().filter_map(|line| line.split_once(" Write ")?.1.trim().parse::<u64>().ok());
    Ok(lines.sum())
}

/// What a VM's groups are told to have written.
fn written_in_groups(agent: &Agent, vm_id: &str) -> Result<Option<u64>> {
    let vm = agent.json(&format!("/v1/vms/{vm_id}"))?;
    Ok(vm["disk_cgroup"]["written_bytes"].as_str().map(str::parse).transpose()?)
}

#[test]
fn a_vm_in_a_group_that_another_had_before_is_not_told_the_others_io() -> Result<()> {
    const TEST: &str = "a_vm_in_a_group_that_another_had_before_is_not_told_the_others_io";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(group) = Group::blkio("reused") else {
        skipped(TEST, "needs control groups of version 1 with blkio");
        return Ok(());
    };
    let dir = on_disk()?;
    let path = image(&dir, "a.img", 2 * MIB)?.display().to_string();
    have_counted(&group, &path)?;
    let place = group.dir().to_str().context("no text")?;
    let agent = Agent::start()?;
    for (id, bytes) in [("first", 2 * MIB), ("second", MIB), ("third", 4096)] {
        let mut vm = OrderedVm::start(&["--id", id, "--cgroup", place])?;
        agent.wait_vms(&[id])?;
        // Looked at: nothing has been written yet, and `since` says from when on.
        agent.wait_until("its group", PATIENCE, |a| Ok(written_in_groups(a, id)?.is_some() || id == "first"))?;
        if id == "first" {
            agent.wait_samples(2)?;
        }
        let before = counted(group.dir())?;
        vm.order(&format!("write {path} {bytes} rw,direct"))?;
        let due = counted(group.dir())? - before;
        assert!(due >= bytes, "nothing was tested: {due}");
        agent.wait_until("its bytes", PATIENCE, |a| Ok(written_in_groups(a, id)? == Some(due)))?;
        assert!(agent.json(&format!("/v1/vms/{id}"))?["disk_cgroup"]["since"].is_string());
    }
    Ok(())
}

#[test]
fn a_group_that_is_removed_takes_nothing_away_and_hides_no_growth_of_another() -> Result<()> {
    const TEST: &str = "a_group_that_is_removed_takes_nothing_away_and_hides_no_growth_of_another";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(group) = Group::blkio("parts") else {
        skipped(TEST, "needs control groups of version 1 with blkio");
        return Ok(());
    };
    let dir = on_disk()?;
    let path = image(&dir, "a.img", 2 * MIB)?.display().to_string();
    have_counted(&group, &path)?;
    let part = group.dir().join("part");
    let agent = Agent::with(Setup::of("[discovery]\nscan_interval = \"1s\"\n"))?;
    let mut vm = OrderedVm::start(&["--id", "parts", "--cgroup", group.dir().to_str().context("no text")?])?;
    agent.wait_vms(&["parts"])?;
    // Its group is looked at by then.
    agent.wait_samples(2)?;
    let shown = |due| {
        let told = agent.wait_until("bytes", PATIENCE, |a| Ok(written_in_groups(a, "parts")? == Some(due)));
        told.with_context(|| format!("due {due}, told {:?}", written_in_groups(&agent, "parts")))
    };
    vm.order(&format!("write {path} 4096 rw,direct"))?;
    shown(counted(group.dir())?)?;
    let writer = fs::read_dir(format!("/proc/{}/task", vm.vm.pid()))?
        .filter_map(|thread| Some(thread.ok()?.path()))
        .find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "orders\n"));
    let writer = writer.context("no thread that writes")?;
    let writer = writer.file_name().context("no id")?.to_string_lossy().into_owned();
    let mut removed = 0;
    for _ in 0..2 {
        // A group of the same name each time: a new one, whose count begins at nothing.
        fs::create_dir(&part)?;
        fs::write(part.join("tasks"), &writer)?;
        vm.order(&format!("write {path} {MIB} rw,direct"))?;
        let there = counted(&part)?;
        assert!(there >= MIB, "nothing was tested: {there}");
        shown(removed + there + counted(group.dir())?)?;
        removed += there;
        fs::write(group.dir().join("tasks"), &writer)?;
        fs::remove_dir(&part)?;
        // Less than was counted in the group that is gone.
        vm.order(&format!("write {path} 8192 rw,direct"))?;
        shown(removed + counted(group.dir())?)?;
    }
    Ok(())
}

#[test]
fn own_groups_tell_their_block_io_beside_it() -> Result<()> {
    const TEST: &str = "own_groups_tell_their_block_io_beside_it";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(group) = Group::blkio("io") else {
        skipped(TEST, "needs control groups of version 1 with blkio");
        return Ok(());
    };
    let dir = on_disk()?;
    let path = image(&dir, "a.img", MIB)?.display().to_string();
    let agent = Agent::start()?;
    let mut vm = OrderedVm::start(&["--id", "grouped", "--cgroup", group.dir().to_str().context("no text")?])?;
    let shared = TestVm::start(&["--id", "root"])?;
    agent.wait_vms(&["grouped", "root"])?;
    // Without a limit on the device the kernel may count nothing at all (since 6.10); that is no zero.
    let told = |agent: &Agent| Ok::<_, anyhow::Error>(agent.json("/v1/vms/grouped")?["disk_cgroup"].clone());
    let counted = || fs::read_to_string(group.dir().join("blkio.throttle.io_service_bytes"));
    if !counted()?.contains(':') {
        agent.wait_samples(2)?;
        assert!(told(&agent)?.is_null() && agent.json("/v1/vms/grouped")?["disk_cgroup_why_not"].is_string());
    }
    have_counted(&group, &path)?;
    vm.order(&format!("write {path} {MIB} rw,direct"))?;
    let counted = counted()?;
    let of = |key: &str| -> u64 {
        let lines = counted.lines().filter(|line| line.contains(':'));
        lines.filter_map(|line| line.split_once(key)?.1.trim().parse::<u64>().ok()).sum()
    };
    let expected = (of(" Read "), of(" Write "));
    assert!(expected.1 >= MIB, "{counted}");
    agent.wait_until("the group's count", PATIENCE, |a| {
        let told = told(a)?;
        let of = |key: &str| told[key].as_str().and_then(|bytes| bytes.parse::<u64>().ok());
        let told_now = (of("read_bytes"), of("written_bytes"));
        let right = told_now == (Some(expected.0), Some(expected.1));
        Ok(right && told["source"] == "blkio.throttle.io_service_bytes")
    })?;
    let root = agent.json("/v1/vms/root")?;
    assert!(root["disk_cgroup"].is_null() && root["disk_cgroup_why_not"].is_string(), "{root}");
    drop(shared);
    Ok(())
}
