//! One slot per VM: what its ended threads left behind, its exits, its end.

use crate::{
    assert_layout,
    disk::IoBytes,
    limits,
    thread::{cause, role},
    vcpu::VcpuTimes,
};

/// States of a slot; only the kernel programs set `LIVE` and `EXITED`, only the agent sets `FREE`.
pub mod state {
    /// Nobody's.
    pub const FREE: u32 = 0;
    /// The process lives.
    pub const LIVE: u32 = 1;
    /// The last thread of the process has passed its exit hook; a last slice may still be charged.
    pub const EXITED: u32 = 2;
}

/// Time of one role.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleTime {
    /// Nanoseconds on a CPU.
    pub runtime_ns: u64,
    /// Nanoseconds runnable but not running.
    pub run_delay_ns: u64,
}

assert_layout!(RoleTime, size 16, { runtime_ns: u64 => 0, run_delay_ns: u64 => 8 });

/// Another VM that ran while this one waited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offender {
    /// Its leader's `start_boottime`; written before `tgid`.
    pub start_ns: u64,
    /// Its process id; 0 = nobody yet. Once taken, a place is kept for the VM's life.
    pub tgid: u32,
    /// Nothing.
    pub reserved: u32,
}

assert_layout!(Offender, size 16, { start_ns: u64 => 0, tgid: u32 => 8, reserved: u32 => 12 });

/// What an agent adds to a slot's numbers so that nothing told before falls, left for the agent after it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Not 0 once the rest is whole; written last.
    pub written: u64,
    /// Nanoseconds inside the guest told before this slot.
    pub guest_ns: u64,
    /// Nanoseconds of successful polling told before it.
    pub halt_poll_ns: u64,
    /// Nanoseconds of its life that were watched before it.
    pub observed_ns: u64,
    /// What is moved to each role, nanoseconds, in two's complement; sums to nothing.
    pub shift_ns: [u64; role::COUNT],
    /// Added to the VMM's on-CPU time, nanoseconds.
    pub runtime_ns: u64,
    /// Added to the VMM's run-queue delay, nanoseconds.
    pub run_delay_ns: u64,
}

assert_layout!(Kept, size 80, {
    written: u64 => 0, guest_ns: u64 => 8, halt_poll_ns: u64 => 16, observed_ns: u64 => 24, shift_ns: [u64; 4] => 32,
    runtime_ns: u64 => 64, run_delay_ns: u64 => 72,
});

/// A VM, as the kernel programs know it. Instants are CLOCK_BOOTTIME nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VmSlot {
    /// One of [`state`].
    pub state: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// The leader's `start_boottime`.
    pub start_ns: u64,
    /// When the kernel programs first saw it.
    pub seen_ns: u64,
    /// First guest entry, or first return from `KVM_RUN` where the back end does not tell entries; 0 = not seen.
    pub first_run_ns: u64,
    /// When the last thread passed `sched_process_exit`; 0 = it lives.
    pub exit_ns: u64,
    /// Wait status of the process as `wait4` would show it.
    pub exit_code: u32,
    /// The last valid user-space exit reason plus one; 0 = none yet.
    pub last_exit: u32,
    /// Valid bytes of the VM's [`VmArgs`].
    pub args_len: u32,
    /// Threads that entered `KVM_RUN` so far.
    pub vcpus: u32,
    /// The leader's `comm` when first seen.
    pub comm: [u8; 16],
    /// Counts folds that began; a reader that saw `fold_end` equal this before and after has a whole reading.
    pub fold_begin: u64,
    /// Counts folds that ended.
    pub fold_end: u64,
    /// Address of the leader's `task_struct` if it had ended before the VM was seen: it is never switched again, so its
    /// time is read from it at each later event; 0 = it lived.
    pub leader_task: u64,
    /// That leader's time; belongs to the VMM.
    pub leader: RoleTime,
    /// What ended threads, and threads that changed their role, left, by role.
    pub ended: [RoleTime; role::COUNT],
    /// What ended threads' waits were charged to.
    pub waited_ns: [u64; cause::COUNT],
    /// Ended threads' waits by length.
    pub waits: [u64; limits::BUCKETS],
    /// Who they waited for; living threads count under the same numbers.
    pub offenders: [Offender; cause::OFFENDERS],
    /// What ended vCPUs did.
    pub vcpu: VcpuTimes,
    /// The VMM's family, by which its threads' names are read: first by the leader's name, then as the agent says.
    pub family: u32,
    /// 1 = the slot was used before: in tables that outlive an agent the next one looks at it.
    pub used: u32,
    /// Returns of `KVM_RUN` to user space by `KVM_EXIT_*` number.
    pub userspace_exits: [u64; limits::EXIT_REASONS],
    /// Events of `rss_stat` on its memory: another number than before means that what `/proc` shows of it may have
    /// changed. Begins a cache line, because every CPU that faults adds to it.
    pub moves: u64,
    /// Faults of its guest that KVM handled (`kvm_page_fault`).
    pub guest_faults: u64,
    /// What its ended threads read from and wrote to storage.
    pub io: IoBytes,
    /// Until when its memory was there for certain: the end of its last thread where the kernel tells of that before it
    /// takes the memory back (6.16), else the end of the thread before; 0 = no thread has ended.
    pub memory_until_ns: u64,
    /// What the agent adds to these numbers; the agent alone writes it, for the next one.
    pub kept: Kept,
    /// Nothing; fills the cache line.
    pub spare: u64,
}

assert_layout!(VmSlot, size 1280, {
    state: u32 => 0, tgid: u32 => 4, start_ns: u64 => 8, seen_ns: u64 => 16, first_run_ns: u64 => 24, exit_ns: u64 => 32,
    exit_code: u32 => 40, last_exit: u32 => 44, args_len: u32 => 48, vcpus: u32 => 52, comm: [u8; 16] => 56,
    fold_begin: u64 => 72, fold_end: u64 => 80, leader_task: u64 => 88, leader: RoleTime => 96,
    ended: [RoleTime; 4] => 112, waited_ns: [u64; 6] => 176, waits: [u64; 9] => 224,
    offenders: [Offender; 4] => 296, vcpu: VcpuTimes => 360, family: u32 => 632, used: u32 => 636,
    userspace_exits: [u64; 64] => 640, moves: u64 => 1152, guest_faults: u64 => 1160, io: IoBytes => 1168,
    memory_until_ns: u64 => 1184, kept: Kept => 1192, spare: u64 => 1272,
});

/// The first bytes of a VMM's command line, NUL-separated as in `/proc/PID/cmdline`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VmArgs {
    /// The bytes; [`VmSlot::args_len`] of them count.
    pub bytes: [u8; limits::ARGS],
}

assert_layout!(VmArgs, size 1024, { bytes: [u8; 1024] => 0 });
