//! How long handling exits took, against the kernel's own trace: each exit has a lower and an upper bound.
//!
//! Probes of a hook are called in the order in which they came (kernel/tracepoint.c, `func_add`). One trace was there
//! before the agent and one comes after it, so of each event the first has a time that is not later than the agent's
//! reading of the clock and the other one that is not earlier. What lies between two events is bounded by that, however
//! slow the machine is.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::{
    check::{Bench, Verdict},
    exits,
};
use crate::{
    metrics::{Metrics, Series},
    trace::Record,
};

const HANDLING: &str = "kvmeter_vm_exit_handling_seconds";
/// Events that the agent's clock goes by, and that end a halt.
pub const EVENTS: [&str; 3] = ["kvm_entry", "kvm_exit", "kvm_vcpu_wakeup"];
/// A trace prints its times rounded to the microsecond, so two are apart by up to this more or less than they say.
const ROUNDED_NS: u64 = 1_000;
const NS_PER_US: u64 = 1_000;

/// Guests whose exits go to the kernel and to the VMM, and some that halt, before the first entry too; each ends by itself, so that both sides see
/// the same run: from before its first entry to after its last exit.
const RUNS: [(&str, &[&str], bool); 2] = [
    ("handled", &["--duty", "50", "--exit-rate", "100", "--vcpus", "2", "--touch", "1M", "--lifetime", "1s"], false),
    ("halted", &["--duty", "20", "--halts", "100", "--vcpus", "2", "--first-halts", "3", "--lifetime", "1s"], true),
];

/// Count, sum and buckets.
pub fn histogram(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = EVENTS.iter().find_map(|name| bench.programs.absence(name)) {
        return Ok(Verdict::Absent(why));
    }
    // Of the three this is the one whose program can be preempted.
    let told: Vec<_> = bench.unskipped("kvm_vcpu_wakeup", |attempt| {
        let runs = RUNS.iter().map(|(id, args, halts)| {
            let id = format!("{id}{attempt}");
            bench.ahead.go_on()?;
            let (after, scrape) = exits::run(bench, &id, args, &EVENTS)?;
            compare(&id, &bench.ahead.so_far()?, &after, &scrape, *halts).with_context(|| id.clone())
        });
        runs.collect()
    })?;
    Ok(Verdict::Holds(told.join("; ")))
}

fn compare(id: &str, before: &[Record], after: &[Record], scrape: &Metrics, halts: bool) -> Result<String> {
    let due = bounds(before, after)?;
    let labels = [("vm_id", id)];
    let count = scrape.one(&format!("{HANDLING}_count"), &labels).context("no histogram")?;
    ensure!(!due.handled.is_empty(), "the kernel traced nothing");
    ensure!(halts == (due.halted > 0), "{} exits halted", due.halted);
    ensure!(same(count, due.handled.len()), "{count} exits told, {} traced", due.handled.len());
    let name = format!("{HANDLING}_sum");
    let sum = scrape.all(&name, &labels).next().map(Series::nanos).context("no sum")?;
    let (least, most) = due.handled.iter().fold((0, 0), |(low, high), exit| (low + exit.least_ns, high + exit.most_ns));
    ensure!(least <= sum && sum <= most, "{sum} ns told, traced {least} to {most} ns");
    let name = format!("{HANDLING}_bucket");
    let mut sides = 0;
    for bucket in scrape.all(&name, &labels).filter(|bucket| bucket.labels["le"] != "+Inf") {
        let bound = bound_ns(&bucket.labels["le"])?;
        let surely = due.handled.iter().filter(|exit| exit.most_ns <= bound).count();
        let perhaps = due.handled.iter().filter(|exit| exit.least_ns <= bound).count();
        ensure!(
            (surely..=perhaps).any(|count| same(bucket.value, count)),
            "{} exits of up to {bound} ns told, {surely} to {perhaps} traced",
            bucket.value
        );
        sides += perhaps - surely;
    }
    Ok(format!(
        "{id}: {count} exits in {sum} ns, traced {least} to {most}; {sides} near a bound, {} halted",
        due.halted
    ))
}

/// Whether a counter has this value.
fn same(told: f64, count: usize) -> bool {
    u32::try_from(count).is_ok_and(|count| (told - f64::from(count)).abs() < 0.5)
}

/// `le` in whole nanoseconds.
fn bound_ns(le: &str) -> Result<u64> {
    let seconds: f64 = le.parse().with_context(|| format!("no bound: {le}"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, never negative")]
    let ns = (seconds * 1e9).round() as u64;
    Ok(ns)
}

/// How long an exit was handled, at least and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Handled {
    least_ns: u64,
    most_ns: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    handled: Vec<Handled>,
    /// Exits that halted before the next entry.
    halted: usize,
}

/// From each `kvm_exit` to the `kvm_entry` after it in the same thread, by a trace that is ahead of the agent and one
/// that is behind it.
fn bounds(ahead: &[Record], behind: &[Record]) -> Result<Due> {
    let mut due = Due::default();
    let (ahead, behind) = (by_thread(ahead), by_thread(behind));
    ensure!(ahead.keys().eq(behind.keys()), "the two traces are of different threads");
    for (tid, ahead) in ahead {
        let behind = &behind[&tid];
        let events = |records: &[&Record]| records.iter().map(|record| record.event.clone()).collect::<Vec<_>>();
        ensure!(events(&ahead) == events(behind), "the two traces differ in thread {tid}");
        let (mut left, mut halted) = (None, false);
        for (ahead, behind) in ahead.iter().zip(behind) {
            ensure!(ahead.at_us <= behind.at_us, "the trace ahead is behind: {ahead:?}, {behind:?}");
            match ahead.event.as_str() {
                "kvm_exit" => {
                    ensure!(left.is_none(), "two exits without an entry in thread {tid}");
                    (left, halted) = (Some((ahead.at_us, behind.at_us)), false);
                }
                "kvm_vcpu_wakeup" => halted = true,
                _entry => match left.take() {
                    Some(_) if halted => due.halted += 1,
                    Some((early_us, late_us)) => due.handled.push(Handled {
                        least_ns: (ahead.at_us.saturating_sub(late_us) * NS_PER_US).saturating_sub(ROUNDED_NS),
                        most_ns: (behind.at_us - early_us) * NS_PER_US + ROUNDED_NS,
                    }),
                    None => {}
                },
            }
        }
    }
    Ok(due)
}

fn by_thread(records: &[Record]) -> BTreeMap<i32, Vec<&Record>> {
    let mut threads: BTreeMap<i32, Vec<&Record>> = BTreeMap::new();
    for record in records {
        threads.entry(record.tid).or_default().push(record);
    }
    threads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at_us: u64, event: &str) -> Record {
        Record { tid: 1, at_us, event: event.to_owned(), text: String::new() }
    }

    #[test]
    fn handling_is_bounded_by_what_came_before_and_after_the_agents_clock() {
        let ahead = [at(5, "kvm_entry"), at(10, "kvm_exit"), at(20, "kvm_entry"), at(30, "kvm_exit")];
        let behind = [at(6, "kvm_entry"), at(12, "kvm_exit"), at(23, "kvm_entry"), at(30, "kvm_exit")];
        let handled = vec![Handled { least_ns: 7_000, most_ns: 14_000 }];
        assert_eq!(bounds(&ahead, &behind).unwrap(), Due { handled, halted: 0 });
        assert!(bounds(&behind, &ahead).is_err(), "the one is not ahead of the other");
        assert!(bounds(&ahead, &behind[1..]).is_err(), "one event is missing");
    }

    #[test]
    fn an_exit_that_halted_is_left_out_and_the_next_is_not() {
        let events =
            ["kvm_exit", "kvm_vcpu_wakeup", "kvm_entry", "kvm_exit", "kvm_entry", "kvm_vcpu_wakeup", "kvm_exit"];
        let trace: Vec<_> = events.iter().zip((0..).step_by(10)).map(|(event, us)| at(us, event)).collect();
        let due = bounds(&trace, &trace).unwrap();
        assert_eq!((due.handled.len(), due.halted), (1, 1));
    }

    #[test]
    fn a_bound_is_whole_nanoseconds() {
        assert_eq!(bound_ns("0.000001").unwrap(), 1_000);
        assert_eq!(bound_ns("0.016384").unwrap(), 16_384_000);
    }
}
