//! A VM's memory against `/proc`, read only where the kernel says that it moved; and faults of the guest that KVM
//! handled, against the kernel's own trace of the same run.

use anyhow::{Result, ensure};

use super::{
    check::{Bench, Verdict},
    exits,
};
use crate::memory::{MIB, MemoryVm, RESIDENT, told};

const FAULTS: &str = "kvmeter_vm_guest_page_faults_total";
const EVENT: &str = "kvm_page_fault";

/// A guest that writes to 4 MiB page by page, and ends by itself so that both sides count the same run.
pub fn guest_faults(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = bench.programs.absence(EVENT) {
        return Ok(Verdict::Absent(why));
    }
    let before = bench.skipped(EVENT)?;
    let args = ["--touch", "4M", "--vcpus", "2", "--duty", "20", "--lifetime", "800ms"];
    let (records, scrape) = exits::run(bench, "pages", &args, &[EVENT])?;
    let due = records.iter().filter(|record| record.event == EVENT).count();
    ensure!(due >= 1024, "only {due} faults were traced, for 1,024 pages");
    let told = scrape.one(FAULTS, &[("vm_id", "pages")]);
    let skipped = bench.skipped(EVENT)? - before;
    let seen = due as u64 - skipped;
    ensure!(told == Some(seen as f64), "told {told:?}, the kernel traced {due} and skipped {skipped}");
    Ok(Verdict::Holds(format!(
        "{due} faults of 1,024 pages and what lies below, of which the kernel skipped {skipped}"
    )))
}

/// Memory that comes and goes: each time what the agent tells lies between two readings of `/proc`.
pub fn moved(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = bench.programs.absence("rss_stat") {
        return Ok(Verdict::Absent(why));
    }
    let agent = &bench.agent;
    let mut vm = MemoryVm::start("moved", &[])?;
    agent.wait_vms(&["moved"])?;
    let sizes = [16, 48, 4, 0];
    for size in sizes {
        vm.orders.give(&format!("hold anon {}", size * MIB))?;
        let before = vm.status("RssAnon")?;
        agent.wait_samples(1)?;
        let anon = told(&agent.metrics()?, RESIDENT, "moved", Some("anon"))?;
        let after = vm.status("RssAnon")?;
        let (low, high) = (before.min(after), before.max(after));
        // Up to 6.1 a thread's last faults, and from 6.2 to 6.15 a CPU's, are not yet in what /proc shows.
        ensure!(low + MIB >= size * MIB, "{size} MiB are held, /proc shows {low}: nothing was tested");
        ensure!(low <= anon && anon <= high, "{size} MiB: told {anon}, /proc {low} to {high}");
    }
    let read = agent.json("/v1/vms/moved")?["memory"]["read"].clone();
    ensure!(read == "when it moved", "it is read {read}");
    Ok(Verdict::Holds(format!("{} readings, {read}", sizes.len())))
}
