//! The vCPU clock: which of its modes each stretch of a vCPU thread's time on a CPU belongs to.
//!
//! Four events move it: entry, exit, return to user space, switch. Each ends the stretch under way and begins the next.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use kvmeter_common::{
    limits,
    vcpu::{VcpuSlot, mode},
};

use crate::{maps::VCPUS, tracked::slot_of, waiting::bucket};

/// CLOCK_MONOTONIC nanoseconds.
#[inline(always)]
pub fn clock() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// The vCPU slot of the running thread, if it is known as a vCPU.
#[inline(always)]
pub fn running() -> Option<*mut VcpuSlot> {
    let me = bpf_get_current_pid_tgid();
    let vcpu = slot(slot_of(me as u32))?;
    // SAFETY: a live map value.
    (unsafe { (*vcpu).owner } == me).then_some(vcpu)
}

/// The vCPU slot with a thread slot's number.
#[inline(always)]
pub fn slot(number: u32) -> Option<*mut VcpuSlot> {
    if number == 0 { None } else { VCPUS.get_ptr_mut(number) }
}

/// Ends the stretch under way at `now`, if one is. The start is wiped first: where the kernel lets a program be
/// interrupted by a switch, that switch must not count the same stretch.
///
/// # Safety
/// `vcpu` must be a live map value that the running thread owns.
#[inline(always)]
unsafe fn stop(vcpu: *mut VcpuSlot, now: u64) {
    // SAFETY: the caller's promise; the mask keeps the mode inside the table.
    unsafe {
        let since = (&raw const (*vcpu).since_ns).read_volatile();
        (&raw mut (*vcpu).since_ns).write_volatile(0);
        // A poll that is told of moves the start forward, by another reading of the clock.
        if since != 0 && now > since {
            let mode = (*vcpu).mode as usize & (mode::COUNT - 1);
            *(&raw mut (*vcpu).times.mode_ns).cast::<u64>().add(mode) += now - since;
        }
    }
}

/// `kvm_entry`.
///
/// # Safety
/// `vcpu` must be a live map value that the running thread owns.
#[inline(always)]
pub unsafe fn enter(vcpu: *mut VcpuSlot, now: u64) {
    // SAFETY: the caller's promise; a bucket is below the table's length.
    unsafe {
        let left = (*vcpu).exit_ns;
        // An entry whose exit was missed, or the first one, ends no handling.
        if (*vcpu).mode != mode::GUEST && left != 0 {
            if (*vcpu).halted == 0 {
                let took = now - left;
                (*vcpu).times.handling_ns += took;
                let at = bucket(took, limits::HANDLING_BOUNDS_NS[0]);
                *(&raw mut (*vcpu).times.handling).cast::<u64>().add(at) += 1;
            } else {
                (*vcpu).halted = 0;
            }
        }
        stop(vcpu, now);
        (*vcpu).times.entries += 1;
        (*vcpu).mode = mode::GUEST;
        (&raw mut (*vcpu).since_ns).write_volatile(now);
    }
}

/// `kvm_exit`.
///
/// # Safety
/// `vcpu` must be a live map value that the running thread owns.
#[inline(always)]
pub unsafe fn leave(vcpu: *mut VcpuSlot, now: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*vcpu).mode != mode::GUEST {
            return;
        }
        let since = (&raw const (*vcpu).since_ns).read_volatile();
        (&raw mut (*vcpu).since_ns).write_volatile(0);
        if since != 0 {
            (*vcpu).times.mode_ns[mode::GUEST as usize] += now - since;
        }
        (*vcpu).exit_ns = now;
        (*vcpu).mode = mode::KERNEL;
        (&raw mut (*vcpu).since_ns).write_volatile(now);
    }
}

/// `kvm_userspace_exit`: what follows is the VMM's, until the next entry.
///
/// # Safety
/// `vcpu` must be a live map value that the running thread owns.
#[inline(always)]
pub unsafe fn to_user(vcpu: *mut VcpuSlot) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*vcpu).times.entries == 0 {
            return;
        }
        let now = clock();
        stop(vcpu, now);
        (*vcpu).mode = mode::USER;
        (&raw mut (*vcpu).since_ns).write_volatile(now);
    }
}

/// `kvm_vcpu_wakeup`: a halt of `halted_ns` is over; without a wait it was all spent polling, on the CPU.
///
/// # Safety
/// `vcpu` must be a live map value that the running thread owns.
#[inline(always)]
pub unsafe fn woke(vcpu: *mut VcpuSlot, halted_ns: u64, waited: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        // A halt before the first entry is part of no exit, and must not be taken for one of the first exit's.
        (*vcpu).halted = u32::from((*vcpu).exit_ns != 0);
        (*vcpu).times.halts += 1;
        (*vcpu).times.halted_ns += halted_ns;
        if waited {
            return;
        }
        (*vcpu).times.mode_ns[mode::POLL as usize] += halted_ns;
        let since = (&raw const (*vcpu).since_ns).read_volatile();
        if since != 0 {
            // The poll is part of the stretch under way; it is told now, so the stretch begins later by as much.
            (&raw mut (*vcpu).since_ns).write_volatile(since + halted_ns);
        }
    }
}

/// The thread with this slot, a vCPU whose clock runs, is switched out: its clock stands.
#[inline(always)]
pub fn off(number: u32, now: u64) {
    if let Some(vcpu) = slot(number) {
        // SAFETY: a live map value; the switching CPU is its one writer.
        unsafe { stop(vcpu, now) };
    }
}

/// The thread is switched in: its clock goes on.
#[inline(always)]
pub fn on(number: u32, now: u64) {
    if let Some(vcpu) = slot(number) {
        // SAFETY: as in `off`.
        unsafe { (&raw mut (*vcpu).since_ns).write_volatile(now) };
    }
}

/// The thread is on its CPU and stays there: what has passed is counted.
#[inline(always)]
pub fn level(number: u32, now: u64) {
    if let Some(vcpu) = slot(number) {
        // SAFETY: as in `off`: this CPU interrupted the thread.
        unsafe {
            if (*vcpu).since_ns != 0 && now > (*vcpu).since_ns {
                stop(vcpu, now);
                (&raw mut (*vcpu).since_ns).write_volatile(now);
            }
        }
    }
}
