//! Time inside the guest: between bounds of `/proc`, equal to what the kernel traced, and one part of a whole.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    check::{Bench, Verdict},
    exits,
};
use crate::{
    metrics::{Metrics, Series},
    process::thread_stat,
    trace::Record,
    vmm::{schedstat, spawn::TestVm},
};

const CPU: &str = "kvmeter_vm_cpu_seconds_total";
const GUEST: &str = "kvmeter_vm_guest_cpu_seconds_total";
const MODES: &str = "kvmeter_vm_vcpu_mode_seconds_total";
const HALT_POLL: &str = "kvmeter_vm_halt_poll_seconds_total";
/// Field of a thread's `stat`: guest time in clock ticks.
const GUEST_TIME: usize = 43;
/// KVM's own limits of polling, raised so that a wake-up comes while it polls.
const POLLING: [&str; 2] = ["halt_poll_ns", "halt_poll_ns_grow_start"];
const POLLING_NS: &str = "20000000";
/// How far the agent's clock reading is from the trace's at one entry or exit, on an emulated CPU.
const CLOCK_PAIR_NS: u64 = 100_000;
/// The emulator's host may stop it between the two: 3 % were seen on a busy host, 0.3 % on an idle one.
const STALLED_PERCENT: u64 = 5;
const PROGRAMS: [&str; 2] = ["kvm_entry", "kvm_exit"];

fn absence(bench: &Bench) -> Option<String> {
    PROGRAMS.iter().find_map(|name| bench.programs.absence(name))
}

/// Of a guest that only spins: most of what its thread was on a CPU, about what the scheduler's ticks found, never more
/// than the whole.
pub fn bounds(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = absence(bench) {
        return Ok(Verdict::Absent(why));
    }
    let agent = &bench.agent;
    let vm = TestVm::start(&["--id", "spinner", "--duty", "100"])?;
    agent.wait_vms(&["spinner"])?;
    let tid = *vm.vcpu_tids().first().context("no vCPU")?;
    std::thread::sleep(Duration::from_secs(2));
    let ticks = thread_stat(vm.pid(), tid, GUEST_TIME)? * crate::clock::tick_ns()?;
    let before = schedstat::thread(vm.pid(), tid)?.run_ns;
    agent.wait_samples(1)?;
    let guest = agent.metrics()?.nanos(GUEST, "spinner");
    let after = schedstat::thread(vm.pid(), tid)?.run_ns;
    // The trace of such a guest showed 98 to 99 % inside and ticks 72 to 86 %, for handling a tick is outside.
    let low = (ticks * 9 / 10).max(before * 6 / 10);
    ensure!(ticks > 0, "no tick found it in the guest");
    ensure!(low <= guest && guest <= after, "guest {guest} ns, ticks {ticks} ns, on a CPU {before} to {after} ns");
    Ok(Verdict::Holds(format!("guest {guest} ns, ticks {ticks} ns, on a CPU {before} to {after} ns")))
}

/// From each `kvm_entry` to the `kvm_exit` after it.
pub fn traced(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = absence(bench) {
        return Ok(Verdict::Absent(why));
    }
    let args = ["--duty", "60", "--exit-rate", "50", "--vcpus", "2", "--lifetime", "1500ms"];
    let (records, scrape) = exits::run(bench, "timed", &args, &["kvm_entry", "kvm_exit"])?;
    let (due, entries) = between(&records);
    let told = scrape.nanos(GUEST, "timed");
    let most = entries * CLOCK_PAIR_NS + due * STALLED_PERCENT / 100;
    ensure!(entries > 0, "the kernel traced no entry");
    ensure!(told.abs_diff(due) <= most, "guest {told} ns, the kernel traced {due} ns in {entries} entries");
    Ok(Verdict::Holds(format!("guest {told} ns, traced {due} ns in {entries} entries")))
}

/// Nanoseconds between entries and exits, and the number of entries that have an exit.
fn between(records: &[Record]) -> (u64, u64) {
    let mut inside = BTreeMap::new();
    let (mut sum, mut entries) = (0, 0);
    for record in records {
        if record.event == "kvm_entry" {
            inside.insert(record.tid, record.at_us);
        } else if let Some(began) = inside.remove(&record.tid) {
            sum += (record.at_us - began) * 1000;
            entries += 1;
        }
    }
    (sum, entries)
}

/// Guest, kernel, user, polling and the rest.
pub fn modes(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = absence(bench) {
        return Ok(Verdict::Absent(why));
    }
    let args = ["--duty", "40", "--exit-rate", "100", "--vcpus", "2", "--lifetime", "1s"];
    let (_, scrape) = exits::run(bench, "parts", &args, &["kvm_exit"])?;
    let parts: BTreeMap<_, _> = scrape
        .all(MODES, &[("vm_id", "parts")])
        .filter_map(|series| Some((series.labels.get("mode")?.as_str(), series.nanos())))
        .collect();
    let names: Vec<_> = parts.keys().copied().collect();
    ensure!(names == ["guest", "kernel", "other", "poll", "user"], "modes {names:?}");
    let whole: u64 = scrape.all(CPU, &[("vm_id", "parts"), ("role", "vcpu")]).map(Series::nanos).sum();
    let sum: u64 = parts.values().sum();
    ensure!(sum == whole, "{parts:?} sum to {sum} ns, role vcpu is {whole} ns");
    ensure!(parts["guest"] == scrape.nanos(GUEST, "parts"), "guest time is told twice: {parts:?}");
    ensure!(parts["guest"] > 0 && parts["user"] > 0 && parts["kernel"] > 0, "a mode it was in is 0: {parts:?}");
    Ok(Verdict::Holds(format!("{parts:?} ns")))
}

/// What `kvm_vcpu_wakeup` calls polling, with a limit of polling that makes some succeed.
pub fn halt_poll(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = bench.programs.absence("kvm_vcpu_wakeup") {
        return Ok(Verdict::Absent(why));
    }
    for parameter in POLLING {
        let path = format!("/sys/module/kvm/parameters/{parameter}");
        std::fs::write(&path, POLLING_NS).with_context(|| format!("cannot write {path}"))?;
    }
    bench.unskipped("kvm_vcpu_wakeup", |attempt| polled(bench, &format!("polls{attempt}"))).map(Verdict::Holds)
}

fn polled(bench: &Bench, id: &str) -> Result<String> {
    let args = ["--duty", "20", "--halts", "200", "--lifetime", "1s"];
    let (records, scrape) = exits::run(bench, id, &args, &["kvm_vcpu_wakeup"])?;
    let polled: Vec<u64> = records.iter().filter_map(|record| polled_ns(&record.text)).collect();
    let (due, told) = (polled.iter().sum::<u64>(), poll_of(&scrape, id)?);
    ensure!(!polled.is_empty(), "none of {} halts was cut short by polling", records.len());
    ensure!(due == told, "told {told} ns, the kernel traced {due} ns");
    Ok(format!("{due} ns in {} of {} halts", polled.len(), records.len()))
}

fn poll_of(scrape: &Metrics, id: &str) -> Result<u64> {
    scrape.all(HALT_POLL, &[("vm_id", id)]).next().map(Series::nanos).with_context(|| format!("no {HALT_POLL}"))
}

/// `poll time N ns, polling valid`; a halt that had to block is `wait time …`.
fn polled_ns(text: &str) -> Option<u64> {
    text.strip_prefix("poll time ")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_its_exit_is_no_time() {
        let at = |tid, at_us, event: &str| Record { tid, at_us, event: event.to_owned(), text: String::new() };
        let records = [
            at(1, 10, "kvm_exit"),
            at(1, 20, "kvm_entry"),
            at(2, 25, "kvm_entry"),
            at(1, 50, "kvm_exit"),
            at(1, 60, "kvm_entry"),
        ];
        assert_eq!(between(&records), (30_000, 1));
    }

    #[test]
    fn only_polling_that_succeeded_is_polling() {
        assert_eq!(polled_ns("poll time 4100 ns, polling valid"), Some(4100));
        assert_eq!(polled_ns("wait time 4100 ns, polling valid"), None);
    }
}
