//! Waiting: how long each wait in a run queue was, and who ran instead.
//!
//! The scheduler adds a wait to `sched_info.run_delay` when the thread is switched in, so what a thread's number has
//! grown by at its next switch-out is one wait. Whose it is was settled before: by who took the CPU, where the thread
//! was preempted; by who had it last, where it woke.

use kvmeter_common::{
    limits::{self, BUCKETS},
    thread::{ThreadSlot, cause},
    vm::VmSlot,
};

use crate::maps::{CLAIMS, VMS};

/// Takes over a thread's run-queue time and charges what it has grown by.
///
/// # Safety
/// `slot` must be a live map value whose one writer is this CPU.
#[inline(always)]
pub unsafe fn charge(slot: *mut ThreadSlot, run_delay_ns: u64) {
    // SAFETY: the caller's promise; both indices are kept below their tables' lengths.
    unsafe {
        let waited = run_delay_ns.wrapping_sub((*slot).run_delay_ns);
        if waited == 0 {
            return;
        }
        (*slot).run_delay_ns = run_delay_ns;
        if waited <= limits::RUN_DELAY_BOUNDS_NS[0] {
            (*slot).waits[0] += 1;
        } else {
            long(slot, waited);
        }
        let cause = (*slot).waits_for;
        let cause = if cause < cause::REST { cause } else { cause::REST };
        *(&raw mut (*slot).waited_ns).cast::<u64>().add(cause as usize) += waited;
    }
}

/// A wait beyond the first bound: out of line, for the code of most switches to stay together.
///
/// # Safety
/// As `charge`.
#[inline(never)]
unsafe fn long(slot: *mut ThreadSlot, waited: u64) -> u32 {
    let length = bucket(waited, limits::RUN_DELAY_BOUNDS_NS[0]);
    // SAFETY: the caller's promise; a bucket is below the table's length.
    unsafe { *(&raw mut (*slot).waits).cast::<u64>().add(length) += 1 };
    0
}

/// The bucket of a length: bounds are `first` × 4ⁿ. Most lie in the first; beyond it there is no branch, each of which
/// would double the verifier's paths.
#[inline(always)]
pub fn bucket(length: u64, first: u64) -> usize {
    if length <= first {
        return 0;
    }
    let (mut bound, mut at) = (first, 0);
    for _ in 0..BUCKETS - 1 {
        // The sign of the difference: 1 if the bound is below the length.
        at += bound.wrapping_sub(length) >> 63;
        bound <<= 2;
    }
    at as usize
}

/// Whom a thread of `vm` waits for while a thread of this VM has the CPU (0 = a task of no VM).
#[inline(always)]
pub fn blame(vm: u32, other: u32) -> u32 {
    match other {
        0 => cause::HOST,
        _ if other == vm => cause::REST,
        _ => offender(vm, other),
    }
}

/// The place of another VM among the offenders, taken now if it has none and one is free.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn offender(vm: u32, other: u32) -> u32 {
    let (Some(mine), Some(theirs)) = (VMS.get_ptr_mut(vm), VMS.get_ptr(other)) else { return cause::REST };
    // SAFETY: live map values.
    let (tgid, start_ns) = unsafe { ((*theirs).tgid, (*theirs).start_ns) };
    for place in 0..cause::OFFENDERS {
        // SAFETY: a live map value; the place is below the table's length.
        unsafe {
            let at = (&raw mut (*mine).offenders).cast::<kvmeter_common::vm::Offender>().add(place);
            let taken = (&raw const (*at).tgid).read_volatile();
            if taken == tgid && (*at).start_ns == start_ns {
                return place as u32;
            }
            if taken == 0 {
                // Another CPU may be taking this very place for somebody else: this once nobody is blamed then.
                return if take(mine, vm, place, tgid, start_ns) { place as u32 } else { cause::REST };
            }
        }
    }
    cause::REST
}

/// # Safety
/// `mine` must be the live map value with number `vm`.
#[inline(always)]
unsafe fn take(mine: *mut VmSlot, vm: u32, place: usize, tgid: u32, start_ns: u64) -> bool {
    let claim = vm * cause::OFFENDERS as u32 + place as u32;
    if tgid == 0 || CLAIMS.insert(claim, tgid, 1).is_err() {
        return false;
    }
    // SAFETY: the caller's promise; this CPU alone has the claim.
    unsafe {
        let at = (&raw mut (*mine).offenders).cast::<kvmeter_common::vm::Offender>().add(place);
        (&raw mut (*at).start_ns).write_volatile(start_ns);
        (&raw mut (*at).tgid).write_volatile(tgid);
    }
    true
}
