//! Counting from several CPUs, and counting what was lost.

use core::arch::asm;

use kvmeter_common::event::Wake;

use crate::maps::{LOSSES, WAKES, WOKEN};

/// Adds to a counter that other CPUs add to as well.
///
/// Written as the instruction itself (`BPF_ATOMIC | BPF_ADD` without fetch, known to every kernel): the Rust target has
/// no read-modify-write atomics, and forms that return the old value need 5.12.
///
/// # Safety
/// `counter` must point into a map value, aligned to 8.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, by: u64) {
    // SAFETY: the caller's promise; map values live as long as the program runs.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) by) }
}

/// As [`add`], for a 32-bit counter.
///
/// # Safety
/// `counter` must point into a map value, aligned to 4.
#[inline(always)]
pub unsafe fn add32(counter: *mut u32, by: u32) {
    // SAFETY: the caller's promise; map values live as long as the program runs.
    unsafe { asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) counter, in(reg) u64::from(by)) }
}

/// Counts a loss where it happened.
#[inline(always)]
pub fn lose(stage: u32) {
    if let Some(counter) = LOSSES.get_ptr_mut(stage) {
        // SAFETY: a map value of type u64.
        unsafe { add(counter, 1) }
    }
}

/// Wakes the agent; a wake-up that finds no room is counted and costs only latency.
#[inline(always)]
pub fn wake(kind: u32, vm: u32) {
    if let Some(counter) = WOKEN.get_ptr_mut(0) {
        // SAFETY: a map value of type u64.
        unsafe { add(counter, 1) }
    }
    if WAKES.output::<Wake>(Wake { kind, vm }, 0).is_err() {
        lose(kvmeter_common::loss::WAKE);
    }
}
