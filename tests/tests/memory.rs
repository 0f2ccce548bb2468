//! Law: a VM's memory is what the kernel says of it, by type; what was not measured is absent.
//!
//! The VMM takes and frees memory when told to, so that between two orders there is one right answer, held against
//! `/proc` before and after.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    cgroup::Group,
    memory::{MIB, MemoryVm, QUIET, RESIDENT, kilobytes, told},
    process,
    skip::{host, skipped},
    swap::Swap,
    vmm::spawn::TestVm,
};

const FAULTS: &str = "kvmeter_vm_page_faults_total";
const PEAK: &str = "kvmeter_vm_memory_peak_resident_bytes";

/// Each number lies between two readings of `/proc`; the wider the bracket, the less was shown, so it is told.
fn bracketed(agent: &Agent, vm: &MemoryVm, id: &str, what: &str) -> Result<()> {
    const ROWS: [(&str, &str, Option<&str>); 5] = [
        ("RssAnon", RESIDENT, Some("anon")),
        ("RssFile", RESIDENT, Some("file")),
        ("RssShmem", RESIDENT, Some("shmem")),
        ("VmSwap", "kvmeter_vm_memory_swap_bytes", None),
        ("HugetlbPages", "kvmeter_vm_memory_hugetlb_bytes", None),
    ];
    let truth = || ROWS.iter().map(|(key, ..)| vm.status(key)).collect::<Result<Vec<_>>>();
    let before = truth()?;
    agent.wait_samples(1)?;
    let scrape = agent.metrics()?;
    let after = truth()?;
    for (at, (key, name, kind)) in ROWS.iter().enumerate() {
        let value = told(&scrape, name, id, *kind)?;
        let (low, high) = (before[at].min(after[at]), before[at].max(after[at]));
        ensure!(low <= value && value <= high, "{what}: {key}: told {value}, /proc {low} to {high}");
        ensure!(high - low <= MIB, "{what}: {key} moved from {low} to {high} while nothing was asked for");
    }
    // The kernel shows a present level exactly and remembers a past one to some pages a CPU, so that its mark can fall
    // (`task_mem`, `update_hiwater_rss`); ours does not.
    let (peak, mark) = (told(&scrape, PEAK, id, None)?, vm.status("VmHWM")?);
    ensure!(peak + MIB >= mark && peak <= mark + MIB, "{what}: peak {peak}, /proc {mark}");
    Ok(())
}

#[test]
fn memory_of_every_type_lies_between_two_readings_of_proc() -> Result<()> {
    const TEST: &str = "memory_of_every_type_lies_between_two_readings_of_proc";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::with(Setup::of(QUIET))?;
    let mut vm = MemoryVm::start("kinds", &["--touch", "8M"])?;
    agent.wait_vms(&["kinds"])?;
    bracketed(&agent, &vm, "kinds", "at rest")?;
    for (kind, key) in [("anon", "RssAnon"), ("shared", "RssShmem"), ("memfd", "RssShmem"), ("locked", "RssAnon")] {
        let rest = vm.status(key)?;
        vm.orders.give(&format!("hold {kind} {}", 48 * MIB))?;
        ensure!(vm.status(key)? >= rest + 47 * MIB, "{kind} did not grow {key}: nothing was tested");
        bracketed(&agent, &vm, "kinds", kind)?;
        vm.orders.give(&format!("hold {kind} {}", 16 * MIB))?;
        bracketed(&agent, &vm, "kinds", &format!("less {kind}"))?;
        vm.orders.give(&format!("hold {kind} 0"))?;
        ensure!(vm.status(key)? <= rest + MIB, "{kind} was not freed: nothing was tested");
        bracketed(&agent, &vm, "kinds", &format!("no {kind}"))?;
    }
    let peak = told(&agent.metrics()?, PEAK, "kinds", None)?;
    ensure!(peak >= 48 * MIB, "the peak {peak} is below what was held");
    Ok(())
}

/// Pages of hugetlb for a test, given back when dropped.
struct HugePages(String);

impl HugePages {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";

    fn reserve(count: u64) -> Option<Self> {
        let before = std::fs::read_to_string(Self::FILE).ok()?;
        std::fs::write(Self::FILE, count.to_string()).ok()?;
        let pages = Self(before.trim().to_owned());
        let have: u64 = std::fs::read_to_string(Self::FILE).ok()?.trim().parse().ok()?;
        (have >= count).then_some(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // What was there before; nobody is worse off if that fails.
        let _ = std::fs::write(Self::FILE, &self.0);
    }
}

#[test]
fn pages_of_hugetlb_count_as_used_and_are_no_resident_memory() -> Result<()> {
    const TEST: &str = "pages_of_hugetlb_count_as_used_and_are_no_resident_memory";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(_pages) = HugePages::reserve(16) else {
        skipped(TEST, "the kernel gives no 16 pages of hugetlb");
        return Ok(());
    };
    let agent = Agent::with(Setup::of(QUIET))?;
    let mut vm = MemoryVm::start("huge", &[])?;
    agent.wait_vms(&["huge"])?;
    vm.orders.give(&format!("hold huge {}", 32 * MIB))?;
    ensure!(vm.status("HugetlbPages")? == 32 * MIB, "nothing was tested");
    // Hugetlb passes no hook: any other move has it read, as a VM that starts makes many.
    vm.orders.give(&format!("hold anon {MIB}"))?;
    bracketed(&agent, &vm, "huge", "huge")?;
    let memory = agent.json("/v1/vms/huge")?["memory"].clone();
    let resident: u64 = ["anon", "file", "shmem"].iter().filter_map(|t| memory["resident_bytes"][t].as_u64()).sum();
    assert_eq!(memory["used_bytes"].as_u64(), Some(resident + 32 * MIB), "{memory}");
    Ok(())
}

#[test]
fn memory_that_is_swapped_out_is_told_as_such() -> Result<()> {
    const TEST: &str = "memory_that_is_swapped_out_is_told_as_such";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let _swap = match Swap::ensure() {
        Ok(swap) => swap,
        Err(why) => {
            skipped(TEST, &format!("swap cannot be made here: {why:#}"));
            return Ok(());
        }
    };
    let agent = Agent::with(Setup::of(QUIET))?;
    let mut vm = MemoryVm::start("swapped", &[])?;
    agent.wait_vms(&["swapped"])?;
    vm.orders.give(&format!("hold anon {}", 16 * MIB))?;
    vm.orders.give("swap anon 0")?;
    ensure!(vm.status("VmSwap")? > 0, "nothing was swapped out");
    bracketed(&agent, &vm, "swapped", "swapped")
}

#[test]
fn the_proportional_size_and_the_own_groups_charge_lie_between_two_readings() -> Result<()> {
    const TEST: &str = "the_proportional_size_and_the_own_groups_charge_lie_between_two_readings";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let Some(group) = Group::memory("mem") else {
        skipped(TEST, "needs control groups of version 1 with the memory controller");
        return Ok(());
    };
    let agent = Agent::with(Setup::of("sample_interval = \"200ms\"\n[memory]\npss_interval = \"1s\"\n"))?;
    let mut own = MemoryVm::start("own", &["--cgroup", group.dir().to_str().context("no text")?])?;
    let other = TestVm::start(&["--id", "other"])?;
    agent.wait_vms(&["own", "other"])?;
    own.orders.give(&format!("hold memfd {}", 32 * MIB))?;
    let (pss, charge) = ("kvmeter_vm_memory_pss_bytes", "kvmeter_vm_memory_cgroup_bytes");
    let truth = || kilobytes(&format!("/proc/{}/smaps_rollup", own.vm.pid()), "Pss");
    // Shared pages of the binary count by how many map them, which the agent's own doings do not change by much.
    let close = |a: u64, b: u64| a.abs_diff(b) <= MIB;
    let due = (truth()?, group.memory_bytes()?);
    agent.wait_until("both", Duration::from_secs(60), |agent| {
        let scrape = agent.metrics()?;
        let (Ok(pss), Ok(charge)) = (told(&scrape, pss, "own", None), told(&scrape, charge, "own", None)) else {
            return Ok(false);
        };
        Ok(close(pss, due.0) && close(charge, due.1))
    })?;
    ensure!(due.0 >= 32 * MIB && due.1 >= 32 * MIB, "{due:?}: nothing was tested");
    ensure!(close(truth()?, due.0) && close(group.memory_bytes()?, due.1), "it moved meanwhile");
    let scrape = agent.metrics()?;
    ensure!(scrape.one(charge, &[("vm_id", "other")]).is_none(), "another's group is not told");
    drop(other);
    Ok(())
}

#[test]
fn page_faults_lie_between_two_readings_of_proc_and_never_fall() -> Result<()> {
    let Some(_host) = host("page_faults_lie_between_two_readings_of_proc_and_never_fall") else { return Ok(()) };
    let agent = Agent::with(Setup::of(QUIET))?;
    let mut vm = MemoryVm::start("faults", &[])?;
    agent.wait_vms(&["faults"])?;
    let mut last = 0;
    for size in [8, 32, 16] {
        vm.orders.give(&format!("hold anon {}", size * MIB))?;
        let before = process::stat(vm.vm.pid(), 10)?;
        agent.wait_samples(1)?;
        let minor = told(&agent.metrics()?, FAULTS, "faults", Some("minor"))?;
        let after = process::stat(vm.vm.pid(), 10)?;
        ensure!(before <= minor && minor <= after, "told {minor}, /proc {before} to {after}");
        ensure!(minor >= last + size * MIB / 4096, "{minor} after {last}: nothing was tested");
        last = minor;
    }
    // A verdict may come between two questions, not between all.
    agent.wait_until("faults of guests where the hook tells them, and only there", Duration::from_secs(60), |agent| {
        let status = agent.json("/v1/status")?;
        let mut features = status["features"].as_array().into_iter().flatten();
        let silent = features.any(|f| f["name"] == "kvm_page_fault" && f["available"] == false);
        let shown = agent.metrics()?.all("kvmeter_vm_guest_page_faults_total", &[]).next().is_some();
        Ok(silent != shown)
    })
}

#[test]
fn memory_is_told_also_of_a_vm_whose_first_thread_has_ended() -> Result<()> {
    let Some(_host) = host("memory_is_told_also_of_a_vm_whose_first_thread_has_ended") else { return Ok(()) };
    let agent = Agent::with(Setup::of(QUIET))?;
    let vm = TestVm::start(&["--id", "headless", "--leader-exits", "--touch", "24M", "--memory", "32M"])?;
    agent.wait_vms(&["headless"])?;
    agent.wait_samples(2)?;
    let tid = vm.vcpu_tids().first().copied().unwrap_or_default();
    let due = kilobytes(&format!("/proc/{}/task/{tid}/status", vm.pid()), "RssAnon")?;
    let scrape = agent.metrics()?;
    let anon = told(&scrape, RESIDENT, "headless", Some("anon"))?;
    ensure!(due >= 24 * MIB && anon.abs_diff(due) <= MIB, "told {anon}, /proc {due}");
    Ok(())
}

#[test]
fn without_kernel_programs_memory_is_read_at_every_sample_and_says_so() -> Result<()> {
    let Some(_host) = host("without_kernel_programs_memory_is_read_at_every_sample_and_says_so") else { return Ok(()) };
    let agent = Agent::with(Setup::of(&format!("{QUIET}[bpf]\nenabled = \"off\"\n").replace("1h", "1s")))?;
    let mut vm = MemoryVm::start("plain", &["--duty", "20"])?;
    agent.wait_vms(&["plain"])?;
    vm.orders.give(&format!("hold anon {}", 32 * MIB))?;
    bracketed(&agent, &vm, "plain", "without kernel programs")?;
    assert_eq!(agent.json("/v1/vms/plain")?["memory"]["read"], "at every sample");
    Ok(())
}
