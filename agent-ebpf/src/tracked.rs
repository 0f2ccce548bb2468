//! Which threads are tracked: finding a thread's slot, giving it one, folding it into its VM when it ends.
//!
//! The thread-id table is the truth. A slot that no table entry points to belongs to nobody; the agent returns it.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use kvmeter_common::{
    index, limits, loss,
    thread::{ThreadSlot, cause, role},
};

use crate::{
    counter::{add32, lose},
    disk::leave_io,
    maps::{FREE_THREADS, NEAR, THREADS, TIDS, VMS},
    name::role_of,
    offsets,
    part::{fold, owner, start_vcpu},
    task::{self, Address, copy, direct, field},
};

/// Thread id and process id of the running task, in the initial pid namespace.
#[inline(always)]
pub fn current_ids() -> (u32, u32) {
    let ids = bpf_get_current_pid_tgid();
    (ids as u32, (ids >> 32) as u32)
}

/// The slot number of a thread id; 0 = not a thread of a VM.
#[inline(always)]
pub fn slot_of(tid: u32) -> u32 {
    // SAFETY: a live map value.
    place(tid).map_or(0, |place| unsafe { place.read_volatile() })
}

/// A thread id's entry in [`NEAR`].
#[inline(always)]
pub fn near(tid: u32) -> *mut u32 {
    // SAFETY: the mask keeps the place inside the table.
    unsafe { (&raw mut NEAR).cast::<u32>().add((tid & (limits::NEAR - 1)) as usize) }
}

/// Where the slot number of a thread id lies; `None` beyond the table.
#[inline(always)]
fn place(tid: u32) -> Option<*mut u32> {
    let word = TIDS.get_ptr_mut(index::word(tid))?;
    // SAFETY: `place` is below the array's length; the word is a live map value.
    Some(unsafe { (&raw mut (*word).slots).cast::<u32>().add(index::place(tid)) })
}

/// Points a thread id at a slot; false when the id is beyond the table. The sum grows before the entry is set, so there
/// is no entry that a switch does not see.
#[inline(always)]
fn point(tid: u32, slot: u32) -> bool {
    let Some(place) = place(tid) else { return false };
    // SAFETY: live map values.
    unsafe {
        add32(near(tid), slot);
        place.write_volatile(slot);
    }
    true
}

/// Takes back what [`point`] did for a slot. The entry goes first, for the same reason, and only if it still is this
/// slot's: the id may be another thread's by now. A slot that the agent collects stays in its sum, which costs those
/// with the same bits a look-up each.
#[inline(always)]
pub fn unpoint(tid: u32, slot: u32) {
    let Some(place) = place(tid) else { return };
    // SAFETY: live map values.
    unsafe {
        if place.read_volatile() == slot {
            place.write_volatile(0);
        }
        add32(near(tid), 0u32.wrapping_sub(slot));
    }
}

/// The slot of this very task, with its number, where its id's entry in [`NEAR`] is `near`, which is not 0.
#[inline(always)]
pub fn slot_near(near: u32, task: *const u8) -> Option<(u32, *mut ThreadSlot)> {
    // SAFETY: a live map value.
    match THREADS.get_ptr_mut(near).filter(|slot| unsafe { (**slot).task } == task as Address) {
        Some(slot) => Some((near, slot)),
        None => far(task),
    }
}

/// Several ids share the entry, or the slot is another's: the thread-id table knows.
#[inline(always)]
fn far(task: *const u8) -> Option<(u32, *mut ThreadSlot)> {
    // SAFETY: a typed argument.
    let number = far_number(unsafe { direct(task, &offsets::TASK_PID) });
    let slot = THREADS.get_ptr_mut(number)?;
    // SAFETY: a live map value.
    if number != 0 && unsafe { (*slot).task } == task as Address { Some((number, slot)) } else { None }
}

/// Out of line: hardly ever needed.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn far_number(tid: u32) -> u32 {
    slot_of(tid)
}

/// The slot of a thread id, with its number.
#[inline(always)]
pub fn entry(tid: u32) -> Option<(u32, *mut ThreadSlot)> {
    let number = slot_of(tid);
    if number == 0 { None } else { Some((number, THREADS.get_ptr_mut(number)?)) }
}

/// A task that is none of ours has come to an entry: counts it if its very id has a slot, which is another task's then.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn unowned(tid: u32) -> u32 {
    if slot_of(tid) == 0 { 0 } else { reused() }
}

/// Counts a slot that belongs to another task than the one that runs under its thread id.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reused() -> u32 {
    lose(loss::SLOT_REUSED);
    0
}

/// The slot itself, if it belongs to this very task.
#[inline(always)]
pub fn owned(number: u32, task: Address) -> Option<*mut ThreadSlot> {
    let slot = THREADS.get_ptr_mut(number)?;
    // SAFETY: a live map value.
    if unsafe { (*slot).task } == task {
        Some(slot)
    } else {
        reused();
        None
    }
}

/// Gives a thread a slot, unless it has one. Returns the slot's number, or 0.
///
/// Not inlined: the verifier walks it once instead of once a caller's path.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn track(task: Address, vm: u32, role: u32) -> u32 {
    try_track(task, vm, role).unwrap_or(0)
}

#[inline(always)]
fn try_track(task: Address, vm: u32, role: u32) -> Option<u32> {
    let tid: u32 = copy(task, &offsets::TASK_PID)?;
    let has = slot_of(tid);
    if has != 0 {
        let slot = THREADS.get_ptr_mut(has)?;
        // SAFETY: the live map value with this number.
        unsafe {
            // The address alone does not tell: a new task can lie where a dead one lay.
            if (*slot).task == task && (*slot).vm == vm {
                return Some(has);
            }
            // The id's last user was released before its last switch: that slice is lost, the rest is kept.
            lose(loss::SLOT_REUSED);
            fold(has, slot);
        }
    }
    let (runtime_ns, run_delay_ns) = task::times(task)?;
    let state: u32 = copy(task, &offsets::TASK_STATE)?;
    if state & task::TASK_DEAD != 0 {
        // Never switched again, so it would keep the slot for ever; `birth` has counted it (see `vm::birth`).
        return None;
    }
    // SAFETY: the value is read at once.
    let family = unsafe { VMS.get_ptr(vm).map_or(0, |vm| (*vm).family) };
    let role = if role == role::VMM { role_of(task, family) } else { role };
    let number = pop_thread()?;
    let slot = THREADS.get_ptr_mut(number)?;
    let tgid: u32 = copy(task, &offsets::TASK_TGID)?;
    // SAFETY: a live map value that nobody else knows yet: it came off the free stack.
    unsafe {
        (*slot).runtime_ns = runtime_ns;
        (*slot).run_delay_ns = run_delay_ns;
        (*slot).tid = tid;
        (*slot).tgid = tgid;
        (*slot).vm = vm;
        (*slot).role = role;
        (*slot).base_runtime_ns = 0;
        (*slot).base_run_delay_ns = 0;
        (*slot).waits_for = cause::REST;
        (*slot).timed = 0;
        (*slot).wanted = 0;
        (*slot).waits = [0; limits::BUCKETS];
        (*slot).waited_ns = [0; cause::COUNT];
        (&raw mut (*slot).task).write_volatile(task);
    }
    if role == role::VCPU
        && let Some(vm) = VMS.get_ptr_mut(vm)
    {
        // SAFETY: still nobody else's.
        start_vcpu(number, unsafe { owner(slot) });
        // SAFETY: a live map value.
        unsafe { add32(&raw mut (*vm).vcpus, 1) };
    }
    if point(tid, number) {
        settle(task, number);
        return Some(number);
    }
    lose(loss::TID_RANGE);
    // SAFETY: still nobody else's.
    unsafe { (&raw mut (*slot).task).write_volatile(0) };
    give_back(number);
    None
}

/// A thread that made its last switch between the look at its state and its entry into the table would keep the slot
/// for ever. Dead and off its CPU (`task->on_cpu`, cleared after the switch hook) it is never switched again: if the
/// slot is still its, the hook has missed it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn settle(task: Address, number: u32) -> u32 {
    let dead = field::<u32>(task, &offsets::TASK_STATE) & task::TASK_DEAD != 0;
    if !dead || copy::<u8>(task, &offsets::TASK_ON_CPU) != Some(0) {
        return 0;
    }
    let Some(slot) = THREADS.get_ptr_mut(number) else { return 0 };
    // SAFETY: the live map value with this number; nobody else writes a slot whose thread is never switched again.
    unsafe {
        if (*slot).task == task {
            if let Some((runtime_ns, run_delay_ns)) = task::times(task) {
                (*slot).runtime_ns = runtime_ns;
                (*slot).run_delay_ns = run_delay_ns;
            }
            leave_io(task, (*slot).vm);
            fold(number, slot);
        }
    }
    0
}

/// Returns a slot.
#[inline(always)]
pub fn give_back(number: u32) {
    if FREE_THREADS.push(number, 0).is_err() {
        lose(loss::SLOT_RETURN);
    }
}

#[inline(always)]
fn pop_thread() -> Option<u32> {
    match FREE_THREADS.pop() {
        Ok(Some(number)) => Some(number),
        _ => {
            lose(loss::THREAD_SLOTS);
            None
        }
    }
}
