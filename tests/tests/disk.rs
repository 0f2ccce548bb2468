//! Law: the dead are still charged. What a VM reads and writes is told to the byte that the kernel accounts, up to its end.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    disk::{image, on_disk},
    memory::RESIDENT,
    metrics::Metrics,
    orders::OrderedVm,
    skip::host,
    vmm::spawn::{TestFleet, TestVm},
};
use serde_json::Value;

const READ: &str = "kvmeter_vm_disk_read_bytes_total";
const WRITTEN: &str = "kvmeter_vm_disk_written_bytes_total";
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Bytes read and written, as the kernel accounts them to a process.
fn truth(pid: i32) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.parse().ok()).context("no such line");
    Ok((of("read_bytes: ")?, of("write_bytes: ")?))
}

fn told(scrape: &Metrics, vm_id: &str) -> Result<(u64, u64)> {
    let of = |name| scrape.bytes(name, &[("vm_id", vm_id)]).context("no series");
    Ok((of(READ)?, of(WRITTEN)?))
}

/// The ledger's last word on a VM.
fn in_ledger(line: &Value) -> Result<(u64, u64)> {
    let of =
        |key: &str| line["usage"][key].as_str().with_context(|| format!("no {key}: {line}"))?.parse().context("no");
    Ok((of("disk_read_bytes")?, of("disk_written_bytes")?))
}

#[test]
fn bytes_read_and_written_are_those_the_kernel_accounts() -> Result<()> {
    let Some(_host) = host("bytes_read_and_written_are_those_the_kernel_accounts") else { return Ok(()) };
    let dir = on_disk()?;
    let path = image(&dir, "a.img", 8 * MIB)?.display().to_string();
    let agent = Agent::start()?;
    let mut vm = OrderedVm::start(&["--id", "io"])?;
    agent.wait_vms(&["io"])?;
    let shown = |agent: &Agent, expected| {
        agent.wait_until("the bytes", PATIENCE, |a| Ok(told(&a.metrics()?, "io").is_ok_and(|now| now == expected)))
    };
    let start = truth(vm.vm.pid())?;
    shown(&agent, start)?;
    for (order, read, written) in [
        (format!("write {path} {} rw,direct", 5 * MIB), 0, 5 * MIB),
        (format!("read {path} {} ro,direct", 3 * MIB + 4096), 3 * MIB + 4096, 0),
        (format!("write {path} {} rw", 2 * MIB), 0, 2 * MIB),
    ] {
        let before = truth(vm.vm.pid())?;
        vm.order(&order)?;
        let after = truth(vm.vm.pid())?;
        assert_eq!((after.0 - before.0, after.1 - before.1), (read, written), "{order}");
        shown(&agent, after)?;
    }
    // While it runs, what is told lies between two readings.
    for _ in 0..5 {
        let before = truth(vm.vm.pid())?;
        vm.order(&format!("write {path} {MIB} rw,direct"))?;
        agent.wait_samples(1)?;
        let now = told(&agent.metrics()?, "io")?;
        let after = truth(vm.vm.pid())?;
        ensure!(before.1 <= now.1 && now.1 <= after.1, "{before:?} {now:?} {after:?}");
    }
    let api = agent.json("/v1/vms/io")?;
    assert_eq!(api["disk_written_bytes"], truth(vm.vm.pid())?.1.to_string(), "{api}");
    Ok(())
}

#[test]
fn a_vm_that_wrote_just_before_its_end_is_charged_for_all_of_it() -> Result<()> {
    let Some(_host) = host("a_vm_that_wrote_just_before_its_end_is_charged_for_all_of_it") else { return Ok(()) };
    let dir = on_disk()?;
    let path = image(&dir, "a.img", 4 * MIB)?.display().to_string();
    // No sample comes in between: only the reading at the end can tell.
    let agent = Agent::with(Setup::of("sample_interval = \"30s\"\n"))?;
    for round in 0..10 {
        let id = format!("last-{round}");
        let mut vm = OrderedVm::start(&["--id", &id])?;
        let before = truth(vm.vm.pid())?;
        let bytes = 4096 * (u64::try_from(round)? + 1);
        vm.send(&format!("write {path} {bytes} rw,direct\nread {path} 8192 ro,direct\nexit 0\n"))?;
        // Half of them are reaped at once, half stay zombies until their end was told.
        if round % 2 == 0 {
            vm.vm.wait()?;
        }
        let life = agent.ended(&id)?;
        agent.wait_ended(&[&id])?;
        let stop = life.stop.context("no stop")?;
        assert_eq!(in_ledger(&stop)?, (before.0 + 8192, before.1 + bytes), "{stop}");
        assert_eq!(told(&agent.metrics()?, &id)?, (before.0 + 8192, before.1 + bytes));
    }
    assert_eq!(agent.metrics()?.one("kvmeter_events_lost_total", &[("stage", "final_io")]), Some(0.0));
    agent.verify()
}

#[test]
fn what_threads_did_that_ended_before_and_after_a_vm_was_found_is_told_at_its_end() -> Result<()> {
    const TEST: &str = "what_threads_did_that_ended_before_and_after_a_vm_was_found_is_told_at_its_end";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let dir = on_disk()?;
    let path = image(&dir, "a.img", 4 * MIB)?.display().to_string();
    let write = |bytes: u64| format!("write {path} {bytes} rw,direct");
    let mut vm = OrderedVm::start(&["--id", "many"])?;
    for _ in 0..20 {
        vm.order(&format!("thread {}", write(4096)))?;
    }
    // Nothing but a first reading comes before the end.
    let agent = Agent::with(Setup::of("sample_interval = \"30s\"\n"))?;
    agent.wait_vms(&["many"])?;
    let before = truth(vm.vm.pid())?;
    assert!(before.1 >= 20 * 4096, "nothing was tested: {before:?}");
    for _ in 0..20 {
        vm.order(&format!("thread {}", write(8192)))?;
    }
    vm.order(&write(MIB))?;
    vm.order(&format!("thread read {path} 8192 ro,direct"))?;
    // All of it; the file system may have dirtied blocks of its own in the process's name.
    let all = truth(vm.vm.pid())?;
    assert!(all.0 == before.0 + 8192 && all.1 >= before.1 + 20 * 8192 + MIB, "{before:?} {all:?}");
    vm.send("exit 0\n")?;
    vm.vm.wait()?;
    let stop = agent.ended("many")?.stop.context("no stop")?;
    assert_eq!(in_ledger(&stop)?, all, "{stop}");
    assert_eq!(agent.metrics()?.one("kvmeter_events_lost_total", &[("stage", "final_io")]), Some(0.0));
    agent.verify()
}

#[test]
fn a_returning_agent_goes_on_from_what_was_told() -> Result<()> {
    let Some(_host) = host("a_returning_agent_goes_on_from_what_was_told") else { return Ok(()) };
    let dir = on_disk()?;
    let path = image(&dir, "a.img", MIB)?.display().to_string();
    let agent = Agent::with(Setup::of("[ledger]\nheartbeat = \"1s\"\n"))?;
    let mut vm = OrderedVm::start(&["--id", "stays"])?;
    agent.wait_vms(&["stays"])?;
    vm.order(&format!("write {path} {MIB} rw,direct"))?;
    agent.wait_samples(1)?;
    let dir = agent.kill()?;
    vm.order(&format!("write {path} {MIB} rw,direct"))?;
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::default() })?;
    agent.wait_vms(&["stays"])?;
    let expected = truth(vm.vm.pid())?;
    agent.wait_until("all", PATIENCE, |a| Ok(told(&a.metrics()?, "stays").is_ok_and(|now| now == expected)))?;
    agent.verify()
}

#[test]
fn a_thousand_idle_vms_cost_no_read_of_a_file() -> Result<()> {
    let Some(_host) = host("a_thousand_idle_vms_cost_no_read_of_a_file") else { return Ok(()) };
    let agent = Agent::with(Setup::of("sample_interval = \"100ms\"\n[discovery]\nscan_interval = \"1h\"\n"))?;
    let _fleet = TestFleet::start(1_000, &["--id", "idle", "--memory", "1M"])?;
    // Both have been read for the first time.
    agent.wait_until("their series", PATIENCE, |a| {
        let scrape = a.metrics()?;
        Ok(scrape.all(READ, &[]).count() == 1_000 && scrape.all(RESIDENT, &[("type", "anon")]).count() == 1_000)
    })?;
    // The one thread that samples; views read sockets in others.
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid()))?;
    let threads = threads.map(|thread| Ok(thread?.path())).collect::<Result<Vec<_>>>()?;
    let is_engine = |path: &&PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "engine\n");
    let engine =
        threads.iter().find(is_engine).and_then(|path| path.file_name()).context("no engine")?.to_string_lossy();
    let reads = || -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/task/{engine}/io", agent.pid()))?;
        text.lines().find_map(|line| line.strip_prefix("syscr: ")?.parse().ok()).context("no syscr")
    };
    // Once births are over: names, groups, and the last of the looks for taps, 5 s after a birth.
    agent.wait_until("20 ticks with less than 400 reads for 1,000 idle VMs", PATIENCE, |a| {
        let before = reads()?;
        a.wait_samples(20)?;
        let idle = reads()? - before;
        eprintln!("{idle} reads of the sampling thread in 20 ticks for 1,000 idle VMs");
        Ok(idle < 20 * 20)
    })?;
    // The count is one that sees a VM that runs.
    let _busy = TestVm::start(&["--id", "busy", "--duty", "50"])?;
    agent.wait_vms(&["busy"])?;
    agent.wait_until("20 ticks with 20 reads for a busy VM", PATIENCE, |a| {
        let before = reads()?;
        a.wait_samples(20)?;
        Ok(reads()? - before >= 20)
    })
}
