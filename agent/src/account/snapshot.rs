//! What is published: every VM and the host at one instant, immutable. Views read it and nothing else.

use std::sync::Arc;

use kvmeter_common::thread::cause;

use super::{CpuUsage, DiskUsage, Host, MemoryUsage, NetworkUsage, Workload};
use crate::{
    bpf::{SocketBytes, Work},
    clock::Instant2,
    vm::Owner,
};

pub use crate::history::Sample;

/// Whether a VM's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmState {
    /// It lives.
    Running,
    /// It lives and is held: none of its vCPUs may run.
    Paused,
    /// It has ended; kept for a while with its final values.
    Stopped,
}

impl VmState {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Running, Self::Paused, Self::Stopped];

    /// The word in metrics and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
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
    /// Its disks together in bytes; 0 = not known, or none.
    pub storage_bytes: u64,
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
#[derive(Clone, Debug, Default)]
pub struct VmView {
    /// What does not change.
    pub fixed: Arc<VmFixed>,
    /// Whose it is.
    pub owner: Arc<Owner>,
    /// Its end, once it has one.
    pub end: Option<VmEnd>,
    /// It lives, and none of its vCPUs may run.
    pub paused: bool,
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
    /// Why that is not known.
    pub unthrottled: Option<Arc<str>>,
    /// What passed through its interfaces; absent where that is not known at all.
    pub network: Option<Arc<NetworkUsage>>,
    /// Its storage; absent until somebody has looked.
    pub disk: Option<Arc<DiskUsage>>,
    /// Bytes of its VMM's own sockets; absent where it has no group of its own to count them in.
    pub sockets: Option<SocketBytes>,
    /// Why they are not counted.
    pub unsocketed: Option<Arc<str>>,
    /// Its memory; absent before anything of it was read.
    pub memory: Option<Arc<MemoryUsage>>,
    /// The vm_ids of those it waited for, in the order of the kernel's table.
    pub offenders: Arc<[Option<String>; cause::OFFENDERS]>,
    /// Thread ids of its vCPUs in the order they were seen; the place is the vCPU's number.
    pub vcpu_order: Arc<Vec<u32>>,
    /// `work` has its vCPUs in that order, and none is missing: their places there are their numbers.
    pub vcpus_in_order: bool,
    /// When its numbers were read last before this view was made, CLOCK_BOOTTIME nanoseconds.
    pub read_ns: u64,
    /// First guest entry, CLOCK_BOOTTIME nanoseconds.
    pub first_run_ns: Option<u64>,
    /// The newest sample, once there are two readings to make one from.
    pub latest: Option<Arc<Sample>>,
    /// Where its workload is asked, and what was found there; absent where it is not asked.
    pub workload: Option<Arc<Workload>>,
}

impl VmView {
    /// Its name: as learned last, else as its start line told it. Series keep the latter for life.
    #[must_use]
    pub fn name(&self) -> &str {
        self.owner.name.as_deref().unwrap_or(&self.fixed.name)
    }

    /// Its UUID, likewise.
    #[must_use]
    pub fn uuid(&self) -> &str {
        self.owner.uuid.as_deref().unwrap_or(&self.fixed.uuid)
    }

    /// Whom it belongs to; empty if nobody says.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.owner.tenant.as_deref().unwrap_or_default()
    }

    /// The number of the vCPU that is at this place of what its threads did. `None` beyond the bound of those that have one.
    #[must_use]
    pub fn vcpu_number(&self, place: usize, tid: u32) -> Option<usize> {
        if self.vcpus_in_order { Some(place) } else { self.vcpu_order.iter().position(|known| *known == tid) }
    }

    /// Whether it lives, and may run.
    #[must_use]
    pub fn state(&self) -> VmState {
        match (&self.end, self.paused) {
            (Some(_), _) => VmState::Stopped,
            (None, true) => VmState::Paused,
            (None, false) => VmState::Running,
        }
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

/// Everything, at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the numbers were read.
    pub taken: Instant2,
    /// When the newest sample was taken, CLOCK_BOOTTIME nanoseconds: memory that stands still has held up to here.
    pub sampled_ns: u64,
    /// How many snapshots came before.
    pub serial: u64,
    /// Running VMs and lingering ones, each vm_id once.
    pub vms: Vec<Arc<VmView>>,
    /// The agent and the host.
    pub host: Arc<Host>,
}

impl Snapshot {
    /// When a VM's numbers were read, CLOCK_BOOTTIME nanoseconds: a snapshot is published at each event, and between two
    /// samples only the VMs that begin or end are read for it.
    #[must_use]
    pub fn read_ns(&self, vm: &VmView) -> u64 {
        // One that lives and was not made anew stood still at the sample.
        if vm.end.is_some() { vm.read_ns } else { vm.read_ns.max(self.sampled_ns) }
    }
}
