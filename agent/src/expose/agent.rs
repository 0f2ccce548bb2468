//! The agent's own series and the host's.

use std::collections::BTreeMap;

use super::{
    Status, catalog,
    family::{Family, MetricFamily, seconds},
    network,
};
use crate::{
    account::{
        Host, Snapshot,
        host::LedgerState,
        past::{Kept, Saving},
    },
    expose::catalog::Metric,
    host::ProgramStats,
};

/// A family of one number.
#[must_use]
pub fn single(metric: &'static Metric, value: f64) -> MetricFamily {
    let mut family = Family::new(metric);
    family.push(&[], value);
    family.done()
}

fn by_one<'a>(metric: &'static Metric, counts: impl Iterator<Item = (&'a str, u64)>) -> MetricFamily {
    let mut family = Family::new(metric);
    for (label, count) in counts {
        family.push(&[label], count as f64);
    }
    family.done()
}

fn by_two(metric: &'static Metric, counts: &BTreeMap<(String, String), u64>) -> MetricFamily {
    let mut family = Family::new(metric);
    for ((first, second), count) in counts {
        family.push(&[first, second], *count as f64);
    }
    family.done()
}

/// Families from the snapshot that are not about one VM.
#[must_use]
pub fn host(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let host = &snapshot.host;
    let objects = [("uevent", host.kvm.count), ("held", host.kvm.held)];
    let histograms = [
        (&catalog::SAMPLE_DURATION, &host.sample_durations),
        (&catalog::RUN_DELAY, &host.work.waits()),
        (&catalog::EXIT_HANDLING, &host.work.handling()),
    ];
    let histograms = histograms.map(|(metric, histogram)| {
        let mut family = Family::new(metric);
        family.push_histogram(&[], histogram);
        family.done()
    });
    let mut all = vec![
        by_two(&catalog::VM_STARTS, &host.starts),
        by_two(&catalog::VM_STOPS, &host.stops),
        by_one(&catalog::EVENTS_LOST, host.losses.iter().map(|(stage, count)| (*stage, *count))),
        by_one(&catalog::SAMPLE_ERRORS, host.sample_errors.iter().map(|(source, count)| (*source, *count))),
        by_one(&catalog::KVM_VMS, objects.into_iter().filter_map(|(source, count)| Some((source, count?)))),
        single(&catalog::VM_ID_CONFLICTS, host.vm_id_conflicts as f64),
        single(&catalog::UNRUN_VMS, host.unrun_vms as f64),
        single(&catalog::VMS_UNSHOWN, host.linger_dropped as f64),
        single(&catalog::CLOCK_STEPS, host.clock_steps as f64),
    ];
    all.extend(histograms);
    all.extend(programs(host));
    all.extend(network::unowned(snapshot));
    all
}

/// A number the kernel may have told about a program.
type Told = fn(&ProgramStats) -> Option<f64>;

/// What the kernel counts about our programs.
fn programs(host: &Host) -> [MetricFamily; 3] {
    let rows: [(_, Told); 3] = [
        (&catalog::PROGRAM_RUNS, |stats| Some(stats.runs? as f64)),
        (&catalog::PROGRAM_RUN_TIME, |stats| Some(seconds(stats.run_ns?))),
        (&catalog::PROGRAM_MISSES, |stats| Some(stats.misses? as f64)),
    ];
    rows.map(|(metric, of)| {
        let mut family = Family::new(metric);
        for (name, value) in host.program_stats.iter().filter_map(|(name, stats)| Some((name, of(stats)?))) {
            family.push(&[name], value);
        }
        family.done()
    })
}

/// Families about this agent: what it was built from, what it can measure, its ledger, its memory of the past.
#[must_use]
pub fn own(status: &Status, ledger: &LedgerState, free_bytes: Option<u64>, kept: Kept) -> Vec<MetricFamily> {
    let mut build = Family::new(&catalog::BUILD_INFO);
    build.push(&[env!("CARGO_PKG_VERSION"), env!("KVMETER_GIT_COMMIT")], 1.0);
    let features = status.features.iter().map(|feature| (feature.name.as_str(), u64::from(feature.available)));
    let mut all = vec![
        build.done(),
        by_one(&catalog::FEATURE, features),
        by_one(&catalog::LEDGER_RECORDS, ledger.records.iter().copied()),
        by_one(&catalog::LEDGER_FAILURES, ledger.failures.iter().copied()),
        single(&catalog::LEDGER_SEQUENCE, ledger.sequence as f64),
        single(&catalog::LEDGER_SPOOLED, ledger.spooled as f64),
        single(&catalog::HISTORY_EVICTED, kept.evicted as f64),
    ];
    all.extend(ledger.space_low().map(|low| single(&catalog::LEDGER_SPACE_LOW, f64::from(u8::from(low)))));
    if let Some(free) = free_bytes {
        all.push(single(&catalog::LEDGER_FREE, free as f64));
    }
    all
}

/// Families about the files that the past is kept in; none where there are none.
#[must_use]
pub fn saving(saving: Option<&Saving>) -> Vec<MetricFamily> {
    let Some(saving) = saving else { return Vec::new() };
    vec![
        single(&catalog::HISTORY_SAVE_FAILURES, saving.failures as f64),
        single(&catalog::HISTORY_DAMAGED, saving.damaged as f64),
        single(&catalog::HISTORY_FILES, saving.bytes as f64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_let_go_for_the_bound_of_memory_is_told() {
        let status =
            Status { version: String::new(), kernel: String::new(), cpu_source: String::new(), features: Vec::new() };
        let all = own(&status, &LedgerState::default(), None, Kept { evicted: 7, ..Kept::default() });
        let told = [catalog::HISTORY_EVICTED.name, " 7\n"].concat();
        assert!(all.iter().any(|family| family.0.ends_with(told.as_bytes())));
    }
}
