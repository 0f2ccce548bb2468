//! Law: what other processes call themselves, and which process ids they had, changes nothing of any VM.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{File, read_to_string},
    os::unix::{ffi::OsStringExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::{Life, lives},
    process::{LAST_SLICES_NS, process_cpu_ns, wait_zombie},
    skip::{host, skipped},
    tiny,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// What ten thousand strangers may cost the agent.
const MOST_GROWTH: u64 = 16 << 20;

/// Processes that are ended when dropped.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
        }
        for child in &mut self.0 {
            drop(child.wait());
        }
    }
}

/// Bytes without NUL that differ by seed.
fn garbage(seed: u32, length: usize) -> OsString {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state % 255 + 1).unwrap_or(1)
    };
    OsString::from_vec((0..length).map(byte).collect())
}

/// Programs of one code under names of VMMs and others.
fn programs(dir: &Path, code: &[u8]) -> Result<Vec<PathBuf>> {
    let names =
        ["qemu-system-x86_64", "kvm", "firecracker", "cloud-hypervisor", "lkvm", "a) R 1 (b", "kvm\n0 \u{202e}"];
    names
        .iter()
        .map(|name| (dir.join(name), tiny::write(&dir.join(name), code)))
        .map(|(path, done)| done.map(|()| path))
        .collect()
}

/// A stranger that calls itself what a VM is called, or worse.
fn hostile(programs: &[PathBuf], dir: &Path, seed: u32) -> Result<Command> {
    let at = usize::try_from(seed)?;
    let mut command = Command::new(&programs[at % programs.len()]);
    let real = format!("guest=real-{},debug-threads=on", seed % 10);
    command.args(["-name", &real, "--id", &format!("real-{}", seed % 10)]);
    match seed % 5 {
        0 => drop(command.arg(garbage(seed, 16_000))),
        1 => drop(command.arg0(garbage(seed, 200))),
        2 => drop(command.args(["-uuid", "6f1c2d3e-0000-4000-8000-0123456789ab", "-smp", "9999", "-m", "1E"])),
        3 => drop(command.args(["\"} 1\nkvmeter_vm_running{vm_id=\"x\"} 1", "", "\u{202e}", "--", "-incoming"])),
        _ => {}
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if seed.is_multiple_of(7) {
        // A file that is named as KVM's are.
        let file = dir.join("anon_inode:kvm-vcpu:0");
        command.stdin(File::create(file)?);
    }
    Ok(command)
}

fn resident_bytes(pid: i32) -> Result<u64> {
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// The ten are right, and no stranger is a VM. (Another test's may be there: unit tests take no turns.)
fn assert_the_ten(agent: &Agent, vms: &[TestVm], used: &[u64], crowd: &Crowd) -> Result<()> {
    let list = agent.json("/v1/vms?detail=true")?;
    let strangers: BTreeSet<u64> = crowd.0.iter().map(|child| child.id().into()).collect();
    for vm in list["vms"].as_array().context("a list")? {
        assert!(vm["pid"].as_u64().is_some_and(|pid| !strangers.contains(&pid)), "a stranger became a VM: {vm}");
    }
    for (number, (vm, used)) in vms.iter().zip(used).enumerate() {
        let id = format!("real-{number}");
        let told = agent.json(&format!("/v1/vms/{id}"))?;
        assert_eq!(
            (&told["name"], &told["pid"], &told["state"]),
            (&id.as_str().into(), &vm.pid().into(), &"running".into())
        );
        assert_eq!((&told["shape"]["cpu"], &told["hypervisor"]), (&2.into(), &"unknown".into()));
        assert!(agent.metrics()?.nanos("kvmeter_vm_cpu_seconds_total", &id) >= *used, "{id}");
    }
    assert_eq!(agent.metrics()?.one("kvmeter_vm_id_conflicts_total", &[]), Some(0.0));
    Ok(())
}

#[test]
fn ten_vms_among_ten_thousand_that_pretend_to_be_vms_are_told_right() -> Result<()> {
    const TEST: &str = "ten_vms_among_ten_thousand_that_pretend_to_be_vms_are_told_right";
    if cfg!(not(target_arch = "x86_64")) {
        skipped(TEST, "its smallest program is one for x86-64");
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let dir = TempDir::new()?;
    let programs = programs(dir.path(), tiny::SLEEPS)?;
    let agent = Agent::with(Setup::of("[discovery]\nscan_interval = \"10s\"\n"))?;
    let start = |number: u32| TestVm::start(&["--id", &format!("real-{number}"), "--duty", "2", "--vcpus", "2"]);
    let mut vms = (0..5).map(start).collect::<Result<Vec<_>>>()?;
    agent.wait_samples(3)?;
    let before = (resident_bytes(agent.pid())?, agent.scrape()?.len());
    let mut crowd = Crowd(Vec::new());
    for seed in 0..10_000 {
        let child = hostile(&programs, dir.path(), seed)?.spawn();
        crowd.0.push(child.with_context(|| format!("stranger {seed} cannot be started"))?);
    }
    // Five more come while the crowd is there.
    vms.extend((5..10).map(start).collect::<Result<Vec<_>>>()?);
    // All processes were looked through since.
    agent.wait_until("a scan", 3 * PATIENCE, |agent| {
        let held = agent.metrics()?.one("kvmeter_kvm_vm_objects", &[("source", "held")]);
        Ok(held.is_some_and(|count| count >= 10.0))
    })?;
    let used = vms.iter().map(|vm| process_cpu_ns(vm.pid())).collect::<Result<Vec<_>>>()?;
    agent.wait_samples(1)?;
    assert_the_ten(&agent, &vms, &used, &crowd)?;
    let after = (resident_bytes(agent.pid())?, agent.scrape()?.len());
    eprintln!(
        "agent {} KiB before, {} KiB after; metrics {} bytes, {}",
        before.0 >> 10,
        after.0 >> 10,
        before.1,
        after.1
    );
    assert!(after.0 <= before.0 + MOST_GROWTH, "{before:?} {after:?}");
    assert!(after.1 <= 2 * before.1, "twice the VMs, and nothing of the strangers: {before:?} {after:?}");
    assert_eq!(crowd.0.iter_mut().filter_map(|child| child.try_wait().ok().flatten()).count(), 0, "all strangers live");
    drop(crowd);
    drop(vms);
    for number in 0..10 {
        agent.stop_line(&format!("real-{number}"))?;
    }
    let started = agent.ledger()?.into_iter().filter(|line| line["kind"] == "vm.compute.start");
    let ours = started.filter(|line| line["name"].as_str().is_some_and(|name| name.starts_with("real-")));
    assert_eq!(ours.count(), 10);
    agent.verify()
}

/// A VM that was, with what its process used.
struct Was {
    id: String,
    pid: i32,
    cpu_ns: u64,
}

/// Sends `count` processes through the same few ids: one `every` so many is a VM, a place further every second round, so
/// that ids have had a VM, a stranger and another VM.
fn reuse(dir: &Path, count: u32, every: u32) -> Result<Vec<Was>> {
    const ROUND: u32 = 250;
    let programs = programs(dir, tiny::ENDS)?;
    let base = std::process::id().saturating_add(2_000) % 20_000 + 5_000;
    let mut vms = Vec::new();
    for number in 0..count {
        if number % ROUND == 0 {
            std::fs::write("/proc/sys/kernel/ns_last_pid", base.to_string())?;
        }
        if !(number + number / (2 * ROUND)).is_multiple_of(every) {
            hostile(&programs, dir, number)?.spawn()?.wait()?;
            continue;
        }
        let id = format!("reused-{number}");
        let mut vm = TestVm::start(&["--id", &id, "--duty", "100"])?;
        let pid = vm.pid();
        // Killed at once: a vCPU that has not left the guest yet is first seen now, while all threads end.
        vm.signal(Signal::SIGKILL)?;
        wait_zombie(pid)?;
        vms.push(Was { id, pid, cpu_ns: process_cpu_ns(pid)? });
        vm.wait()?;
    }
    Ok(vms)
}

fn check(agent: &Agent, vms: &[Was]) -> Result<()> {
    // Another test's VM may be among them: unit tests take no turns.
    let ours = |life: &Life| ["reused-", "real-"].iter().any(|id| life.start["name"].to_string().contains(id));
    let ended = |agent: &Agent| -> Result<usize> {
        Ok(lives(&agent.ledger()?)?.values().filter(|life| ours(life) && life.stop.is_some()).count())
    };
    agent.wait_until("all stops", PATIENCE, |agent| Ok(ended(agent)? >= vms.len()))?;
    let mut all = lives(&agent.ledger()?)?;
    all.retain(|_, life| ours(life));
    assert_eq!(all.len(), vms.len(), "as many lives as VMs, none of a stranger");
    let mut pids = std::collections::BTreeMap::<i32, u32>::new();
    for was in vms {
        let own: Vec<(&String, &Life)> =
            all.iter().filter(|(_, life)| life.start["vm_id"] == was.id.as_str()).collect();
        assert_eq!(own.len(), 1, "{}", was.id);
        let (incarnation, life) = own[0];
        assert!(incarnation.contains(&format!("-{}-", was.pid)), "{incarnation} is not of process {}", was.pid);
        assert_eq!(life.start["name"], was.id.as_str());
        let cpu = life.cpu_ns()?;
        let most = was.cpu_ns + LAST_SLICES_NS;
        assert!(was.cpu_ns <= cpu && cpu <= most, "{}: {} <= {cpu} <= {most}", was.id, was.cpu_ns);
        *pids.entry(was.pid).or_default() += 1;
    }
    let missed = agent.metrics()?.one("kvmeter_events_lost_total", &[("stage", "thread_walk")]);
    assert_eq!(missed, Some(0.0), "births that could not tell who had ended");
    let often = pids.values().filter(|count| **count > 1).count();
    eprintln!("{} VMs in {} process ids, {often} of them with several VMs", vms.len(), pids.len());
    assert!(often > 0, "no process id had two VMs: nothing was tested");
    agent.verify()
}

fn forced_through_reuse(test: &str, count: u32, every: u32) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        skipped(test, "its smallest program is one for x86-64");
        return Ok(());
    }
    let Some(_host) = host(test) else { return Ok(()) };
    let dir = TempDir::new()?;
    let agent = Agent::start()?;
    let vms = reuse(dir.path(), count, every)?;
    check(&agent, &vms)
}

#[test]
fn no_usage_or_identity_lands_on_another_life_of_a_process_id() -> Result<()> {
    forced_through_reuse("no_usage_or_identity_lands_on_another_life_of_a_process_id", 5_000, 25)
}

#[test]
#[ignore = "takes minutes; cargo test -p kvmeter-tests --test strangers -- --ignored --nocapture"]
fn no_usage_or_identity_lands_on_another_life_in_a_hundred_thousand() -> Result<()> {
    forced_through_reuse("no_usage_or_identity_lands_on_another_life_in_a_hundred_thousand", 100_000, 100)
}
