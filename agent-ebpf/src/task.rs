//! Reading `task_struct` and its neighbours: by direct load where the verifier knows the pointer, else by copy.

use core::{arch::asm, ffi::c_void, mem::MaybeUninit, ptr::with_exposed_provenance};

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_probe_read_kernel, generated, generated::bpf_get_current_task},
};

use crate::offsets::{self, at};

/// A kernel object's address that the verifier does not track.
pub type Address = u64;

/// `TASK_DEAD`, set before a task's last switch (include/linux/sched.h, same value from 4.14 to 7.2).
pub const TASK_DEAD: u32 = 0x80;
/// `PF_KTHREAD` (include/linux/sched.h, same value from 4.14 to 7.2).
pub const PF_KTHREAD: u32 = 0x0020_0000;
/// `SIGNAL_GROUP_EXIT` (include/linux/sched/signal.h).
pub const SIGNAL_GROUP_EXIT: u32 = 0x4;

/// Loads a field of an object the verifier knows by type.
///
/// # Safety
/// `base` must come from a typed argument, or from [`direct`] on a pointer field of one.
#[inline(always)]
pub unsafe fn direct<T: Copy>(base: *const u8, offset: &'static u32) -> T {
    // SAFETY: the verifier checks the access against the kernel's BTF and makes faults read as zero.
    unsafe { base.add(at(offset)).cast::<T>().read_volatile() }
}

/// As [`direct`], with the place in the code itself (`kvmeter_common::offset`): for the way of every switch.
///
/// # Safety
/// As `direct`.
#[inline(always)]
pub unsafe fn placed<T: Copy, const PLACE: i32>(base: *const u8) -> T {
    let mut at = base.expose_provenance();
    // SAFETY: an addition; then as in `direct`.
    unsafe {
        asm!("{0} += {1}", inout(reg) at, const PLACE, options(pure, nomem, nostack));
        with_exposed_provenance::<T>(at).read_volatile()
    }
}

/// Copies a field of any kernel object; `None` when the address faults.
#[inline(always)]
pub fn copy<T: Copy>(base: Address, offset: &'static u32) -> Option<T> {
    // SAFETY: the helper checks the address and never faults.
    unsafe { bpf_probe_read_kernel((base as usize + at(offset)) as *const T).ok() }
}

/// As [`copy`], but 0 when the address faults: the helper clears what it could not fill (kernel/trace/bpf_trace.c,
/// `bpf_probe_read_kernel_common`), so there is no choice, whose both sides the verifier would follow.
#[inline(always)]
pub fn or_zero<T: Number>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of the value, whatever the address; a number may have any bits.
    unsafe {
        generated::bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void);
        value.assume_init()
    }
}

/// A field of any kernel object; 0 when the address faults.
#[inline(always)]
pub fn field<T: Number>(base: Address, offset: &'static u32) -> T {
    or_zero(base + at(offset) as u64)
}

/// What may have any bits.
pub trait Number: Copy {}
impl Number for u32 {}
impl Number for u64 {}

/// The address in a program's argument word, as a number. The verifier knows the word itself for a typed pointer, which
/// a function that is verified by itself (one that takes numbers only) may not be given.
#[inline(always)]
pub fn number_of(ctx: &impl EbpfContext, word: usize) -> Address {
    // Both kinds of contexts are arrays of words.
    or_zero(ctx.as_ptr() as u64 + (word * size_of::<Address>()) as u64)
}

/// The running task.
#[inline(always)]
pub fn current() -> Address {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_task() }
}

/// On-CPU and run-queue nanoseconds of a task, as the scheduler last wrote them.
#[inline(always)]
pub fn times(task: Address) -> Option<(u64, u64)> {
    Some((copy(task, &offsets::TASK_RUNTIME)?, copy(task, &offsets::TASK_RUN_DELAY)?))
}
