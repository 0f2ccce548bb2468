//! `/v1/status`: how the agent itself is, what it can measure, and what it lost.

use std::collections::BTreeMap;

use super::{
    answer::{At, Nullable, answers},
    network::{self, NetworkStatus},
    status::{Feature, Status},
    storage::{self, StorageStatus},
};
use crate::account::{
    Snapshot,
    past::{Past, Saving},
};

answers! {
    /// How the agent is.
    struct AgentStatus {
        version: String = "Its version.";
        git_commit: &'static str = "What it was built from.";
        kernel: String = "The kernel's release.";
        health: String = "ok, or what is wrong.";
        cpu_source: String = "Where CPU time comes from: bpf or proc.";
        snapshot: SnapshotStatus = "The newest state.";
        samples: SamplesStatus = "The samples of all VMs so far.";
        features: Vec<FeatureStatus> = "What can be measured.";
        kvm: KvmStatus = "What KVM says of itself, and what was found.";
        network: Nullable<NetworkStatus> = "Interfaces; null where none are counted.";
        storage: StorageStatus = "What is stored for VMs.";
        history: HistoryStatus = "The recent past that is kept.";
        unrun_vms: u64 = "KVM VMs destroyed without having run.";
        losses: BTreeMap<&'static str, u64> = "What bounds cost, by stage.";
        wake_ups: WakeUps = "Wake-ups by the kernel programs.";
        sample_errors: BTreeMap<&'static str, u64> = "Failed readings by source.";
        hung: BTreeMap<&'static str, At> = "Threads that read and hang, and since when.";
        ledger: LedgerStatus = "The ledger.";
    }

    /// A state of all VMs.
    struct SnapshotStatus {
        serial: u64 = "How many came before.";
        taken_at: At = "When its numbers were read.";
    }

    /// Samples of all VMs.
    struct SamplesStatus {
        taken: u64 = "How many were taken.";
        last_ns: u64 = "How long the newest took, nanoseconds; 0 before the first.";
    }

    /// One thing that may or may not work.
    struct FeatureStatus {
        name: String = "Its name.";
        available: bool = "Whether it is at work.";
        gives: String = "What it gives.";
        why: String = "Why it is not at work; empty if it is.";
        advice: String = "What to do about it; empty if nothing.";
    }

    /// VM objects of KVM.
    struct KvmStatus {
        created: Nullable<u64> = "Made since KVM was loaded.";
        count: Nullable<u64> = "Those that exist.";
        held: Nullable<u64> = "Descriptors found by the last full search.";
        processes_denied: Nullable<u64> = "Processes it was not allowed to look into.";
    }

    /// The recent past that is kept.
    struct HistoryStatus {
        vms: usize = "VMs with samples.";
        bytes: u64 = "Bytes of all samples.";
        evicted_samples: u64 = "Samples let go for the bound of memory.";
        saved: Nullable<SavingStatus> = "The files it is kept in; null where it is kept in memory alone.";
    }

    /// The files that the recent past is kept in.
    struct SavingStatus {
        bytes: u64 = "Bytes of the files.";
        written_bytes: u64 = "Bytes written since the start.";
        failures: u64 = "Saves that failed since the start.";
        damaged_parts: u64 = "Parts of the files that were not as they had been written, at the start.";
        trouble: Nullable<String> = "Why it is not saved now.";
        saved_at: Nullable<At> = "When it was saved last; null if it never was.";
    }

    /// Wake-ups by the kernel programs.
    struct WakeUps {
        produced: u64 = "Those that were due.";
        received: u64 = "Those that came.";
    }

    /// The ledger.
    struct LedgerStatus {
        sequence: u64 = "Number of the last durable line.";
        spooled: usize = "Lines that wait in memory.";
        degraded: bool = "Whether lines cannot be made durable.";
        refused: u64 = "Lines refused because memory was full.";
        dropped_heartbeats: u64 = "Heartbeats dropped because memory was full.";
        last_error: Nullable<String> = "The newest failure.";
        hurt: Nullable<String> = "What others did to files that are no more written.";
        free_bytes: Nullable<u64> = "Space left where it is kept.";
        space_low: Nullable<bool> = "Whether that is less than ledger.min_free.";
    }
}

/// The answer.
#[must_use]
pub fn answer(snapshot: &Snapshot, status: &Status, health: String, history: &dyn Past) -> AgentStatus {
    let host = &snapshot.host;
    let instant = |boot_ns| At::unix(snapshot.taken.unix_of(boot_ns));
    let kept = history.kept();
    let feature = |feature: Feature| FeatureStatus {
        name: feature.name,
        available: feature.available,
        gives: feature.gives,
        why: feature.why,
        advice: feature.advice,
    };
    AgentStatus {
        version: status.version.clone(),
        git_commit: env!("KVMETER_GIT_COMMIT"),
        kernel: status.kernel.clone(),
        health,
        cpu_source: status.cpu_source.clone(),
        snapshot: SnapshotStatus { serial: snapshot.serial, taken_at: At::unix(snapshot.taken.unix_ns) },
        samples: SamplesStatus { taken: host.sample_durations.count, last_ns: host.last_sample_ns },
        features: status.as_of(host).features.into_iter().map(feature).collect(),
        kvm: KvmStatus {
            created: Nullable(host.kvm.created),
            count: Nullable(host.kvm.count),
            held: Nullable(host.kvm.held),
            processes_denied: Nullable(host.kvm.denied),
        },
        network: Nullable(network::status(snapshot)),
        storage: storage::status(&host.storage),
        history: HistoryStatus {
            vms: kept.lines,
            bytes: kept.bytes,
            evicted_samples: kept.evicted,
            saved: Nullable(history.saving().map(saving)),
        },
        unrun_vms: host.unrun_vms,
        losses: host.losses.clone(),
        wake_ups: WakeUps { produced: host.wake_ups.0, received: host.wake_ups.1 },
        sample_errors: host.sample_errors.clone(),
        hung: host.hung.iter().map(|(thread, since)| (*thread, instant(*since))).collect(),
        ledger: ledger(&host.ledger),
    }
}

fn saving(saving: Saving) -> SavingStatus {
    SavingStatus {
        bytes: saving.bytes,
        written_bytes: saving.written,
        failures: saving.failures,
        damaged_parts: saving.damaged,
        trouble: Nullable(saving.trouble),
        saved_at: Nullable((saving.saved_unix_ns > 0).then(|| At::unix(saving.saved_unix_ns))),
    }
}

fn ledger(ledger: &crate::account::host::LedgerState) -> LedgerStatus {
    LedgerStatus {
        sequence: ledger.sequence,
        spooled: ledger.spooled,
        degraded: ledger.degraded,
        refused: ledger.refused,
        dropped_heartbeats: ledger.dropped_heartbeats,
        last_error: Nullable(ledger.last_error.clone()),
        hurt: Nullable(ledger.hurt.clone()),
        free_bytes: Nullable(ledger.space.map(|space| space.0)),
        space_low: Nullable(ledger.space_low()),
    }
}
