//! One slot per vCPU thread, beside its thread slot and under the same number: where its time went, why it came out.
//!
//! Wall time on a CPU, CLOCK_MONOTONIC: a switch stops the clock, so the modes add up to what the scheduler accounted,
//! up to a remainder. Only the thread itself and the CPU that switches it write here.

use crate::{assert_layout, limits};

/// Where a vCPU thread is; the index into [`VcpuTimes::mode_ns`].
pub mod mode {
    /// Inside the guest: `kvm_entry` to `kvm_exit`.
    pub const GUEST: u32 = 0;
    /// Handling an exit in the kernel: `kvm_exit` to `kvm_entry` or `kvm_userspace_exit`.
    pub const KERNEL: u32 = 1;
    /// In the VMM: `kvm_userspace_exit` to the next `kvm_entry`.
    pub const USER: u32 = 2;
    /// Polling for an interrupt while halted, with success.
    pub const POLL: u32 = 3;
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// Hooks whose events are counted one by one, so that two generations of programs must not both do it; the index into
/// [`VcpuSlot::served`].
pub mod hook {
    /// `kvm_entry`.
    pub const ENTRY: usize = 0;
    /// `kvm_userspace_exit`.
    pub const USERSPACE_EXIT: usize = 1;
    /// The record of `kvm_exit`.
    pub const EXIT_REASON: usize = 2;
    /// `kvm_vcpu_wakeup`.
    pub const WAKEUP: usize = 3;
    /// `kvm_page_fault`.
    pub const PAGE_FAULT: usize = 4;
}

/// What is added up over a VM's vCPUs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuTimes {
    /// Guest entries.
    pub entries: u64,
    /// Nanoseconds by [`mode`].
    pub mode_ns: [u64; mode::COUNT],
    /// Halts that ended (`kvm_vcpu_wakeup`).
    pub halts: u64,
    /// Nanoseconds halted, polling included.
    pub halted_ns: u64,
    /// Nanoseconds from an exit to the next entry, of exits that did not halt.
    pub handling_ns: u64,
    /// The same exits by length: [`limits::HANDLING_BOUNDS_NS`], then longer ones.
    pub handling: [u64; limits::BUCKETS],
    /// Exits by class ([`crate::exit`]).
    pub exits: [u64; crate::exit::CLASSES],
}

assert_layout!(VcpuTimes, size 272, {
    entries: u64 => 0, mode_ns: [u64; 4] => 8, halts: u64 => 40, halted_ns: u64 => 48, handling_ns: u64 => 56,
    handling: [u64; 9] => 64, exits: [u64; 17] => 136,
});

/// One vCPU thread.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct VcpuSlot {
    /// The thread, as `bpf_get_current_pid_tgid` gives it: its process in the upper half; 0 = not a vCPU. The thread slot
    /// of the same number tells two users of one thread id apart, and this one is emptied with it.
    pub owner: u64,
    /// When the stretch under way began; 0 = the thread is off its CPU, or its clock never ran.
    pub since_ns: u64,
    /// When the guest was last left; 0 = never.
    pub exit_ns: u64,
    /// What the stretch under way is, or will be when the thread is switched in again: one of [`mode`].
    pub mode: u32,
    /// 1 = it has halted since it left the guest.
    pub halted: u32,
    /// The sums.
    pub times: VcpuTimes,
    /// By [`hook`]: the generation of programs that counted this thread's newest event; 0 = none, or it is settled.
    pub served: [u16; 8],
}

assert_layout!(VcpuSlot, size 320, {
    owner: u64 => 0, since_ns: u64 => 8, exit_ns: u64 => 16, mode: u32 => 24, halted: u32 => 28,
    times: VcpuTimes => 32, served: [u16; 8] => 304,
});
