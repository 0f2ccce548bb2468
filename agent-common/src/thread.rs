//! One slot per thread of a VM; the kernel writes it, the agent reads it through a mapping.

use crate::assert_layout;

/// Roles a thread can have; the index into [`crate::vm::VmSlot::ended`].
pub mod role {
    /// A thread that entered `KVM_RUN`.
    pub const VCPU: u32 = 0;
    /// Any other thread of the VMM.
    pub const VMM: u32 = 1;
    /// Disk and network threads of the VMM.
    pub const IO: u32 = 2;
    /// Kernel threads working for the VM.
    pub const VHOST: u32 = 3;
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// What the scheduler has accounted to one thread. One cache line, one writer at a time: the CPU that runs or
/// switches out the thread.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadSlot {
    /// Address of the `task_struct`, which tells two users of one thread id apart; 0 = free slot.
    pub task: u64,
    /// `task->se.sum_exec_runtime`: nanoseconds on a CPU since the thread's birth.
    pub runtime_ns: u64,
    /// `task->sched_info.run_delay`: nanoseconds runnable but not running since the thread's birth.
    pub run_delay_ns: u64,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Index of the VM's slot.
    pub vm: u32,
    /// One of [`role`].
    pub role: u32,
    /// Guest entries (`kvm_entry`); stays 0 where the KVM back end does not fire it.
    pub entries: u64,
    /// Part of `runtime_ns` already told under an earlier role, in [`crate::vm::VmSlot::ended`].
    pub base_runtime_ns: u64,
    /// Part of `run_delay_ns` already told under an earlier role.
    pub base_run_delay_ns: u64,
}

assert_layout!(ThreadSlot, size 64, {
    task: u64 => 0, runtime_ns: u64 => 8, run_delay_ns: u64 => 16, tid: u32 => 24, tgid: u32 => 28, vm: u32 => 32,
    role: u32 => 36, entries: u64 => 40, base_runtime_ns: u64 => 48, base_run_delay_ns: u64 => 56,
});
