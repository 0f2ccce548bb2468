//! One slot per thread of a VM; the kernel writes it, the agent reads it through a mapping.

use crate::{assert_layout, limits};

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

/// Whom a wait is charged to; the index into [`ThreadSlot::waited_ns`].
pub mod cause {
    /// The VM's offenders ([`crate::vm::VmSlot::offenders`]) come first: 0 … 3.
    pub const OFFENDERS: usize = 4;
    /// A task of no VM.
    pub const HOST: u32 = 4;
    /// Nobody in particular: an idle CPU that had to wake, the VM's own threads, a VM that found no offender's place.
    pub const REST: u32 = 5;
    /// How many there are.
    pub const COUNT: usize = 6;
    /// The thread sleeps: who runs when it is switched in again will tell. Never an index.
    pub const ASLEEP: u32 = 6;
}

/// What the scheduler has accounted to one thread. One writer at a time: the CPU that runs or switches the thread.
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
    /// Part of `runtime_ns` already told under an earlier role, in [`crate::vm::VmSlot::ended`].
    pub base_runtime_ns: u64,
    /// Part of `run_delay_ns` already told under an earlier role.
    pub base_run_delay_ns: u64,
    /// Whom the wait under way, or the one that is still to be charged, is charged to: one of [`cause`].
    pub waits_for: u32,
    /// 1 = its vCPU clock runs ([`crate::vcpu::VcpuSlot`]), so a switch stops and starts it.
    pub timed: u16,
    /// A role found by another than the thread itself, plus one; the CPU that switches the thread takes it over. 0 = none.
    pub wanted: u16,
    /// Waits by length: [`crate::limits::RUN_DELAY_BOUNDS_NS`], then longer ones.
    pub waits: [u64; limits::BUCKETS],
    /// Nanoseconds waited, by [`cause`].
    pub waited_ns: [u64; cause::COUNT],
    /// Nothing; fills the third cache line.
    pub reserved: u64,
}

assert_layout!(ThreadSlot, size 192, {
    task: u64 => 0, runtime_ns: u64 => 8, run_delay_ns: u64 => 16, tid: u32 => 24, tgid: u32 => 28, vm: u32 => 32,
    role: u32 => 36, base_runtime_ns: u64 => 40, base_run_delay_ns: u64 => 48, waits_for: u32 => 56, timed: u16 => 60,
    wanted: u16 => 62, waits: [u64; 9] => 64, waited_ns: [u64; 6] => 136, reserved: u64 => 184,
});
