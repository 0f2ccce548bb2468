//! A VM's slot: made when its first vCPU is seen, left for the agent when its process has ended.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel_buf, generated::bpf_probe_read_user};
use kvmeter_common::{
    event::kind,
    limits, loss,
    thread::role,
    vm::{RoleTime, VmSlot, state},
};

use crate::{
    counter::{lose, wake},
    disk::{leave_io, released_io, thread_io},
    maps::{FREE_VMS, VM_ARGS, VM_OF_TGID, VMS, WALKED},
    name::family_of,
    offsets::{self, at},
    part::leave,
    task::{self, Address, copy, field, or_zero},
    tracked::{settle, track},
};

/// Turns of the walk at a VM's birth.
const WALK: usize = limits::WALK as usize;
/// Looks at the sums of what released threads did, each undone when a thread is released during it.
const LOOKS: u32 = 16;

/// CLOCK_BOOTTIME nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The VM slot of a process, made now if it has none. `with_args` only in the process's own context.
/// Not inlined, as `track`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn birth(task: Address, with_args: u32) -> u32 {
    try_birth(task, with_args != 0).unwrap_or(0)
}

#[inline(always)]
fn try_birth(task: Address, with_args: bool) -> Option<u32> {
    let tgid: u32 = copy(task, &offsets::TASK_TGID)?;
    // SAFETY: the value is copied at once; entries are never updated in place.
    if let Some(number) = unsafe { VM_OF_TGID.get(tgid) } {
        return Some(*number);
    }
    let leader: Address = copy(task, &offsets::TASK_LEADER)?;
    let signal: Address = copy(task, &offsets::TASK_SIGNAL)?;
    let Ok(Some(number)) = FREE_VMS.pop() else {
        lose(loss::VM_SLOTS);
        return None;
    };
    let vm = VMS.get_ptr_mut(number)?;
    // SAFETY: a live map value that nobody else knows yet: it came off the free stack, zeroed by the agent.
    unsafe { fill(vm, leader, tgid) };
    if with_args {
        // SAFETY: as above.
        unsafe { (*vm).args_len = copy_args(task, number).unwrap_or(0) };
    }
    if VM_OF_TGID.insert(tgid, number, 1).is_err() {
        return yield_slot(vm, number, tgid);
    }
    // SAFETY: a live map value.
    unsafe { (&raw mut (*vm).state).write_volatile(state::LIVE) };
    // In the process's own context the running thread is the vCPU that was seen.
    let vcpu = if with_args { task } else { 0 };
    if member(leader, number, vcpu) == 0 {
        // SAFETY: a live map value.
        unsafe { dead_leader(vm, leader, number) };
    }
    walk(signal, number, vcpu);
    take_ended(signal, number);
    wake(kind::VM_SEEN, number);
    Some(number)
}

/// Fills a fresh slot.
///
/// # Safety
/// `vm` must be a live map value that nobody else uses.
#[inline(always)]
unsafe fn fill(vm: *mut VmSlot, leader: Address, tgid: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        (*vm).tgid = tgid;
        (*vm).start_ns = copy(leader, &offsets::TASK_START).unwrap_or(0);
        (*vm).seen_ns = now();
        (*vm).family = family_of(leader);
        let comm = (leader as usize + at(&offsets::TASK_COMM)) as *const u8;
        let _ = bpf_probe_read_kernel_buf(comm, &mut (*vm).comm);
    }
}

/// A leader that has ended before its VM was seen is in no sum until the process is reaped, and is never switched
/// again: its time is taken from itself, now and at each later event of the VM, because its last slice may still be
/// under way. Its memory may be another's by then; the start's nanosecond tells.
///
/// # Safety
/// `vm` must be a live map value.
#[inline(always)]
pub unsafe fn take_leader(vm: *mut VmSlot, leader: Address) {
    // SAFETY: the caller's promise; several CPUs would write the same growing numbers.
    unsafe {
        if copy::<u64>(leader, &offsets::TASK_START) != Some((*vm).start_ns) {
            return;
        }
        if let Some((runtime_ns, run_delay_ns)) = task::times(leader) {
            (*vm).leader = RoleTime { runtime_ns, run_delay_ns };
        }
    }
}

/// Another CPU was first: give the slot back, clean, and use theirs.
#[inline(always)]
fn yield_slot(vm: *mut VmSlot, number: u32, tgid: u32) -> Option<u32> {
    // SAFETY: a live map value that nobody else knows.
    unsafe {
        (*vm).tgid = 0;
        (*vm).start_ns = 0;
        (*vm).seen_ns = 0;
        (*vm).args_len = 0;
        (*vm).family = 0;
        (*vm).ended = [Default::default(); role::COUNT];
    }
    if FREE_VMS.push(number, 0).is_err() {
        lose(loss::SLOT_RETURN);
    }
    // SAFETY: the value is copied at once.
    let first = unsafe { VM_OF_TGID.get(tgid) };
    if first.is_none() {
        lose(loss::VM_TABLE);
    }
    first.copied()
}

/// The head of the command line of a VM that was made by the walk, taken when a vCPU of it first comes by: it may be gone
/// before anyone can open its `/proc`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_args(task: Address, number: u32) -> u32 {
    let Some(vm) = VMS.get_ptr_mut(number) else { return 0 };
    // SAFETY: a live map value; vCPUs that do this at once write the same.
    unsafe {
        if (*vm).args_len == 0 {
            (*vm).args_len = copy_args(task, number).unwrap_or(0);
        }
    }
    0
}

/// Keeps the head of the command line: a VM of a few milliseconds is gone before anyone can open its `/proc`.
#[inline(always)]
fn copy_args(task: Address, number: u32) -> Option<u32> {
    let mm: Address = copy(task, &offsets::TASK_MM)?;
    let start: u64 = copy(mm, &offsets::MM_ARG_START)?;
    let end: u64 = copy(mm, &offsets::MM_ARG_END)?;
    let args = VM_ARGS.get_ptr_mut(number)?;
    // Exactly what there is: the helper takes all or nothing, and the stack may end right behind a short line. The mask
    // shows the verifier the bound.
    let length = (end - start).min(limits::ARGS as u64 - 1) as u32 & (limits::ARGS as u32 - 1);
    // SAFETY: a live map value longer than `length`; the helper fails softly on unmapped user memory.
    let failed = unsafe { bpf_probe_read_user((&raw mut (*args).bytes).cast(), length, start as *const c_void) };
    (failed == 0).then_some(length)
}

/// Marks the leader as one to be read from its own memory, if that is why it has no slot. Only asked when it was found
/// so: one that was tracked and ended since is folded.
///
/// # Safety
/// `vm` must be a live map value.
#[inline(always)]
unsafe fn dead_leader(vm: *mut VmSlot, leader: Address, number: u32) {
    if copy::<u32>(leader, &offsets::TASK_STATE).is_some_and(|state| state & task::TASK_DEAD != 0) {
        // SAFETY: the caller's promise.
        unsafe {
            (*vm).leader_task = leader;
            take_leader(vm, leader);
            leave_io(leader, number);
        }
    }
}

/// Tracks one thread of a new VM: `vcpu` (0 if none) and those with guest time as vCPUs. The slot's number, or 0.
#[inline(always)]
fn member(thread: Address, number: u32, vcpu: Address) -> u32 {
    let guest: u64 = field(thread, &offsets::TASK_GUEST_TIME);
    track(thread, number, if guest > 0 || thread == vcpu { role::VCPU } else { role::VMM })
}

/// Tracks the threads the process has so far. New ones are added at the list's tail before `task_newtask` fires, so
/// none slips between this walk and that hook. Keeps nothing from turn to turn but in a map: the verifier follows each
/// value kept down every path.
#[inline(always)]
fn walk(signal: Address, number: u32, vcpu: Address) {
    let Some(walked) = WALKED.get_ptr_mut(0) else { return };
    let head = signal + at(&offsets::SIGNAL_THREADS) as u64;
    let mut node: u64 = copy(signal, &offsets::SIGNAL_THREADS).unwrap_or(head);
    for turn in 0..WALK {
        // SAFETY: a live map value; the turn is below its length.
        unsafe { walked.cast::<u64>().add(turn).write_volatile(0) };
    }
    for turn in 0..WALK {
        if node == head || node == 0 {
            return;
        }
        let thread = node - at(&offsets::TASK_THREAD_NODE) as u64;
        let slot = member(thread, number, vcpu);
        // SAFETY: as above. Written without a choice: a branch here would double what the verifier follows.
        unsafe {
            walked.cast::<u64>().add(turn).write_volatile(thread);
            walked.cast::<u64>().add(WALK + turn).write_volatile(u64::from(slot));
        }
        node = next(node);
    }
    if node != head {
        lose(loss::THREAD_WALK);
    }
}

/// Adds what threads ran, read and wrote that ended before they could be taken in. The run-queue delay of ended threads
/// is kept nowhere.
#[inline(always)]
fn take_ended(signal: Address, number: u32) {
    let Some(walked) = WALKED.get_ptr(0) else { return };
    // SAFETY: a live map value; the turn is below the array's length.
    unsafe {
        for turn in 0..WALK {
            let slot = walked.cast::<u64>().add(WALK + turn).read_volatile();
            if slot != 0 {
                // Once more, now that whoever was on its way out is out.
                settle(walked.cast::<u64>().add(turn).read_volatile(), slot as u32);
            }
        }
    }
    for _ in 0..LOOKS {
        if leave_released(signal, number) != 0 {
            return;
        }
    }
    lose(loss::THREAD_WALK);
}

/// Leaves what a process's released threads ran, read and wrote to its VM, less what those of them did that the walk
/// took in: they leave it themselves, at their last switch. 1, or 0 if a thread was released meanwhile: then nothing is
/// left.
///
/// `__exit_signal` (kernel/exit.c) adds a thread to the process's sums and takes it off the process's list inside one
/// `write_seqlock(&sig->stats_lock)`. So while that sequence stands at an even number, a thread is either in the sums
/// or on the list. Its neighbour on the list tells: one that is off it has a poisoned neighbour.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_released(signal: Address, number: u32) -> u32 {
    let (Some(walked), Some(vm)) = (WALKED.get_ptr(0), VMS.get_ptr_mut(number)) else { return 0 };
    let sequence: u32 = copy(signal, &offsets::SIGNAL_SEQUENCE).unwrap_or(1);
    let mut ran_ns: u64 = field(signal, &offsets::SIGNAL_RUNTIME);
    let mut io = released_io(signal);
    for turn in 0..WALK {
        // SAFETY: live map values; the turn is below the array's length.
        let (thread, slot, tgid) = unsafe {
            let thread = walked.cast::<u64>().add(turn).read_volatile();
            (thread, walked.cast::<u64>().add(WALK + turn).read_volatile(), (*vm).tgid)
        };
        // Where the kernel lets a program be preempted, another birth on this CPU may have written over the walk.
        if slot != 0 && !listed(thread) && field::<u32>(thread, &offsets::TASK_TGID) == tgid {
            ran_ns = ran_ns.wrapping_sub(field(thread, &offsets::TASK_RUNTIME));
            io = io.less(thread_io(thread));
        }
    }
    if sequence & 1 != 0 || copy::<u32>(signal, &offsets::SIGNAL_SEQUENCE) != Some(sequence) {
        return 0;
    }
    // SAFETY: a live map value.
    unsafe {
        leave(vm, role::VMM, ran_ns, 0);
        io.leave(vm);
    }
    1
}

/// Is a thread on its process's list? Its predecessor points to it then; `list_del_rcu` poisons the way back.
#[inline(always)]
fn listed(thread: Address) -> bool {
    let node = thread + at(&offsets::TASK_THREAD_NODE) as u64;
    // `prev` is the second field of `struct list_head`; a poisoned address fails softly, as null.
    next(next(node + 8)) == node
}

#[inline(always)]
fn next(node: u64) -> u64 {
    // `next` is the first field of `struct list_head`.
    or_zero(node)
}
