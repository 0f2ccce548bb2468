//! What is published: every VM and the host at one instant, immutable. Views read it and nothing else.

use std::{collections::BTreeMap, sync::Arc};

use kvmeter_common::{limits::BUCKETS, thread::cause};

use super::{CpuUsage, work::AllWork};
use crate::{bpf::Work, clock::Instant2, history::Sample};

/// Whether a VM's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmState {
    /// It lives.
    Running,
    /// It has ended; kept for a while with its final values.
    Stopped,
}

impl VmState {
    /// The word in metrics and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// What never changes in a VM's life, or only with a line in the ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VmFixed {
    /// Its name to everyone.
    pub vm_id: String,
    /// The process's life.
    pub incarnation: String,
    /// Human name; empty if none.
    pub name: String,
    /// UUID; empty if none.
    pub uuid: String,
    /// VMM family.
    pub hypervisor: String,
    /// The executable's short name, also for a VMM nobody knows.
    pub vmm: String,
    /// Process id.
    pub tgid: u32,
    /// vCPUs; 0 = not known.
    pub vcpus: u32,
    /// Configured memory in bytes; 0 = not known.
    pub mem_bytes: u64,
    /// Control group of the process; empty if not known.
    pub cgroup: String,
    /// The process's start, CLOCK_BOOTTIME nanoseconds.
    pub start_ns: u64,
    /// The process's start, Unix nanoseconds.
    pub started_at: u64,
    /// Found running rather than seen starting.
    pub adopted: bool,
}

/// How a VM ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VmEnd {
    /// Unix nanoseconds.
    pub stopped_at: u64,
    /// CLOCK_BOOTTIME nanoseconds.
    pub stop_ns: u64,
    /// The reason told in the ledger; empty if none.
    pub reason: String,
    /// The cause told in the ledger.
    pub cause: String,
}

/// One VM at the snapshot's instant.
#[derive(Clone, Debug)]
pub struct VmView {
    /// What does not change.
    pub fixed: Arc<VmFixed>,
    /// Its end, once it has one.
    pub end: Option<VmEnd>,
    /// CPU and run-queue time; absent when it could not be measured.
    pub cpu: Option<CpuUsage>,
    /// Where `cpu` comes from.
    pub source: &'static str,
    /// What its threads did and waited for; absent where the kernel programs are.
    pub work: Option<Arc<Work>>,
    /// Time inside the guest; absent where guest entries are not told.
    pub guest_ns: Option<u64>,
    /// Time spent polling while halted, with success; absent where the hook is.
    pub halt_poll_ns: Option<u64>,
    /// Time its control group was throttled; absent where that is not known of this VM alone.
    pub throttled_ns: Option<u64>,
    /// The vm_ids of those it waited for, in the order of the kernel's table.
    pub offenders: [Option<String>; cause::OFFENDERS],
    /// Thread ids of its vCPUs in the order they were seen; the place is the vCPU's number.
    pub vcpu_order: Vec<u32>,
    /// First guest entry, CLOCK_BOOTTIME nanoseconds.
    pub first_run_ns: Option<u64>,
    /// The newest sample, once there are two readings to make one from.
    pub latest: Option<Sample>,
    /// How many samples the ring holds.
    pub samples: usize,
}

impl VmView {
    /// Whether it lives.
    #[must_use]
    pub fn state(&self) -> VmState {
        if self.end.is_some() { VmState::Stopped } else { VmState::Running }
    }
}

/// How much of each VM the metrics show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Histograms of each VM.
    pub histograms: bool,
    /// Series of each vCPU.
    pub per_vcpu: bool,
}

/// Counters of the agent and facts about the host.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Starts seen, by VMM family and reason.
    pub starts: BTreeMap<(String, String), u64>,
    /// Stops seen, by VMM family and reason.
    pub stops: BTreeMap<(String, String), u64>,
    /// Losses by stage, the kernel's and ours.
    pub losses: BTreeMap<&'static str, u64>,
    /// Failed readings by source.
    pub sample_errors: BTreeMap<&'static str, u64>,
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
    /// Process start to first guest entry.
    pub boot: Histogram,
    /// Waits and exits of all VMs.
    pub work: AllWork,
    /// Stopped VMs dropped because too many lingered.
    pub linger_dropped: u64,
    /// The ledger's state.
    pub ledger: LedgerState,
    /// How much of each VM the metrics show.
    pub detail: Detail,
    /// What has become of each kernel program; empty where none is used.
    pub programs: Vec<crate::bpf::Status>,
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
}

/// A histogram with fixed bounds, cumulative as Prometheus wants it.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Upper bounds in seconds and how many observations were at or below.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of observations, seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
}

impl Histogram {
    /// An empty one with these bounds, in seconds, ascending.
    #[must_use]
    pub fn new(bounds: &[f64]) -> Self {
        Self { buckets: bounds.iter().map(|b| (*b, 0)).collect(), sum: 0.0, count: 0 }
    }

    /// From counts by bucket, the last one being beyond all bounds.
    #[must_use]
    pub fn of(bounds_ns: &[u64; BUCKETS - 1], counts: &[u64; BUCKETS], sum_ns: u64) -> Self {
        let mut sum = 0;
        let bucket = |(bound, count): (&u64, &u64)| {
            sum += count;
            (*bound as f64 / 1e9, sum)
        };
        let buckets = bounds_ns.iter().zip(counts).map(bucket).collect();
        Self { buckets, sum: sum_ns as f64 / 1e9, count: counts.iter().sum() }
    }

    /// Adds one observation, in seconds.
    pub fn observe(&mut self, seconds: f64) {
        for (bound, count) in &mut self.buckets {
            *count += u64::from(seconds <= *bound);
        }
        self.sum += seconds;
        self.count += 1;
    }
}

/// Everything, at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the numbers were read.
    pub taken: Instant2,
    /// How many snapshots came before.
    pub serial: u64,
    /// Running VMs and lingering ones, each vm_id once.
    pub vms: Vec<Arc<VmView>>,
    /// The agent and the host.
    pub host: Arc<Host>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_buckets_are_cumulative() {
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        for seconds in [0.05, 0.5, 5.0] {
            histogram.observe(seconds);
        }
        assert_eq!(histogram.buckets, [(0.1, 1), (1.0, 2)]);
        assert_eq!(histogram.count, 3);
    }
}
