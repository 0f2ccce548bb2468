//! A VM as the kernel programs know it at one instant. Cumulative numbers; instants in CLOCK_BOOTTIME nanoseconds.

use kvmeter_common::{limits::EXIT_REASONS, thread::role, vm::RoleTime};

/// The end of a VM's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// When its last thread passed the exit hook.
    pub at_ns: u64,
    /// Its wait status.
    pub code: u32,
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
    /// Exits to user space by reason.
    pub userspace_exits: [u64; EXIT_REASONS],
    /// The leader's name when first seen.
    pub comm: [u8; 16],
    /// False when threads ended during every attempt to read: keep the previous numbers.
    pub consistent: bool,
}
