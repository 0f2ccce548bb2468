//! A VM as the kernel programs know it at one instant. Cumulative numbers; instants in CLOCK_BOOTTIME nanoseconds.

use std::sync::Arc;

use kvmeter_common::{
    disk::IoBytes,
    limits::{BUCKETS, EXIT_REASONS},
    thread::{cause, role},
    vcpu::VcpuTimes,
    vm::{Offender, RoleTime},
};

/// The end of a VM's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// When its last thread passed the exit hook.
    pub at_ns: u64,
    /// Its wait status.
    pub code: u32,
}

/// What a VM's threads did and waited for, since the kernel programs first saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// All its vCPUs, the ended ones included.
    pub vcpu: VcpuTimes,
    /// Waits in a run queue by length.
    pub waits: [u64; BUCKETS],
    /// Nanoseconds waited, by [`cause`].
    pub waited_ns: [u64; cause::COUNT],
    /// Who the first of those causes are.
    pub offenders: [Offender; cause::OFFENDERS],
    /// Exits to user space by reason.
    pub userspace_exits: [u64; EXIT_REASONS],
    /// Whether halts are told at all.
    pub halts_told: bool,
    /// The living vCPUs, in the order of their thread ids.
    pub vcpus: Vec<VcpuReading>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            vcpu: VcpuTimes::default(),
            waits: [0; BUCKETS],
            waited_ns: [0; cause::COUNT],
            offenders: [Offender::default(); cause::OFFENDERS],
            userspace_exits: [0; EXIT_REASONS],
            halts_told: false,
            vcpus: Vec::new(),
        }
    }
}

/// One living vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuReading {
    /// Its thread.
    pub tid: u32,
    /// Nanoseconds on a CPU and waiting for one, as a vCPU.
    pub time: RoleTime,
    /// What it did.
    pub times: VcpuTimes,
}

/// What has happened to a VM's memory since the kernel programs first saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryMarks {
    /// Events on its memory (`rss_stat`).
    pub moves: u64,
    /// Faults of its guest that KVM handled.
    pub guest_faults: u64,
}

/// One VM's numbers.
#[derive(Clone, Debug)]
pub struct VmReading {
    /// The slot it is kept in, until released.
    pub slot: u32,
    /// Process id.
    pub tgid: u32,
    /// The process's start.
    pub start_ns: u64,
    /// When the kernel programs first saw it.
    pub seen_ns: u64,
    /// First guest entry seen.
    pub first_run_ns: Option<u64>,
    /// Its end, if it has ended.
    pub exit: Option<Exit>,
    /// Last valid `KVM_EXIT_*` reason.
    pub last_exit: Option<u32>,
    /// Threads that entered `KVM_RUN`.
    pub vcpus: u32,
    /// Threads that hold a slot now.
    pub threads: u32,
    /// Time by role, index as [`role`].
    pub roles: [RoleTime; role::COUNT],
    /// What it did and waited for.
    pub work: Arc<Work>,
    /// The family the kernel side reads its threads' names by.
    pub family: u32,
    /// The leader's name when first seen.
    pub comm: [u8; 16],
    /// What its ended threads read from and wrote to storage; `None` where that is not told.
    pub ended_io: Option<IoBytes>,
    /// False when threads ended during every attempt to read: keep the previous numbers.
    pub consistent: bool,
}
