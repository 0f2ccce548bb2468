//! Counters of the agent and facts about the host, as the views show them.

use std::collections::BTreeMap;

use crate::{host::ProgramStats, sample::network::NetworkTally};

use super::{Histogram, snapshot::Detail, work::AllWork};

/// Counters of the agent and facts about the host.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Starts seen, by VMM family and reason.
    pub starts: BTreeMap<(String, String), u64>,
    /// Stops seen, by VMM family and reason.
    pub stops: BTreeMap<(String, String), u64>,
    /// Losses by stage, the kernel's and ours.
    pub losses: BTreeMap<&'static str, u64>,
    /// Wake-ups by the kernel programs: how many there were to send, and how many came.
    pub wake_ups: (u64, u64),
    /// Failed readings by source.
    pub sample_errors: BTreeMap<&'static str, u64>,
    /// Threads that read beside the sampling one and hang, and since when, CLOCK_BOOTTIME nanoseconds.
    pub hung: BTreeMap<&'static str, u64>,
    /// KVM VMs that were destroyed without having run.
    pub unrun_vms: u64,
    /// VMs that had to take their fallback id.
    pub vm_id_conflicts: u64,
    /// Steps of the wall clock noticed.
    pub clock_steps: u64,
    /// KVM's own count of VM objects, from the last uevent.
    pub kvm: KvmCount,
    /// Sample durations.
    pub sample_durations: Histogram,
    /// How long the newest sample took, nanoseconds; 0 before the first.
    pub last_sample_ns: u64,
    /// Waits and exits of all VMs.
    pub work: AllWork,
    /// Stopped VMs dropped because too many lingered.
    pub linger_dropped: u64,
    /// The ledger's state.
    pub ledger: LedgerState,
    /// The operator's inventory, where one is configured.
    pub inventory: Option<InventoryState>,
    /// How much of each VM the metrics show.
    pub detail: Detail,
    /// What has become of each kernel program; empty where none is used.
    pub programs: Vec<crate::bpf::Status>,
    /// What is known of interfaces beyond each VM's; absent where none are counted.
    pub network: Option<NetworkTally>,
    /// When the reading of interfaces that is shown was asked for, CLOCK_BOOTTIME nanoseconds; 0 before the first.
    pub network_read_ns: u64,
    /// Why the figures of interfaces are absent though they are counted: the thread that reads them does not.
    pub network_stalled: Option<String>,
    /// What is stored for VMs.
    pub storage: crate::storage::tally::Tally,
    /// What the kernel counts about each that is loaded.
    pub program_stats: Vec<(&'static str, ProgramStats)>,
}

/// What KVM says of itself, and what we found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvmCount {
    /// VM objects made since KVM was loaded (uevent `CREATED`).
    pub created: Option<u64>,
    /// VM objects that exist (uevent `COUNT`).
    pub count: Option<u64>,
    /// KVM VM descriptors found in `/proc` by the last full scan.
    pub held: Option<u64>,
    /// Processes whose descriptors that scan was not allowed to see.
    pub denied: Option<u64>,
}

/// The ledger's state, as the views show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerState {
    /// Durable lines by kind.
    pub records: Vec<(&'static str, u64)>,
    /// Failed attempts by operation.
    pub failures: Vec<(&'static str, u64)>,
    /// Number of the last durable line.
    pub sequence: u64,
    /// Lines that wait in memory.
    pub spooled: usize,
    /// Lines refused because memory was full.
    pub refused: u64,
    /// Heartbeats dropped because memory was full.
    pub dropped_heartbeats: u64,
    /// How long the write under way has taken, nanoseconds.
    pub busy_ns: u64,
    /// Whether the last attempt to write failed.
    pub degraded: bool,
    /// The newest failure.
    pub last_error: Option<String>,
    /// What others did to files that are no more written.
    pub hurt: Option<String>,
    /// Space left where it is kept, bytes, and what it should not fall below; as of its newest look at the files.
    pub space: Option<(u64, u64)>,
}

impl LedgerState {
    /// Whether less space is left than there should be; `None` where nobody can tell.
    #[must_use]
    pub fn space_low(&self) -> Option<bool> {
        self.space.map(|(free, least)| free < least)
    }
}

/// The operator's inventory, as the views show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryState {
    /// The file.
    pub path: String,
    /// VMs that the last good one names; absent before there was one.
    pub vms: Option<usize>,
    /// When it was read, RFC 3339; empty before.
    pub read_at: String,
    /// Why the file as it is now is not taken; empty if it is.
    pub error: String,
}

impl InventoryState {
    /// Of a file that was not read yet.
    #[must_use]
    pub fn new(path: &std::path::Path) -> Self {
        Self { path: path.display().to_string(), error: "it was not read yet".to_owned(), ..Self::default() }
    }

    /// It was read whole.
    pub fn read(&mut self, vms: usize, read_at: String) {
        (self.vms, self.read_at) = (Some(vms), read_at);
        self.error.clear();
    }

    /// It is not taken as it is now; what was read before stands.
    pub fn failed(&mut self, error: String) {
        self.error = error;
    }
}
