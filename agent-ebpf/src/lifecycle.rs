//! The end of a VM's process, and the walk over all tasks that adopts processes the agent found by itself.

use aya_ebpf::{EbpfContext as _, macros::btf_tracepoint, programs::BtfTracePointContext};
use kvmeter_common::{
    event::kind,
    thread::role,
    vm::{VmSlot, state},
};

use crate::{
    counter::wake,
    maps::{ADOPT, VM_OF_TGID, VMS},
    name, offsets,
    task::{self, Address, PF_KTHREAD, SIGNAL_GROUP_EXIT, copy, direct},
    tracked::{entry, slot_of, track},
    vm::{birth, now, take_leader},
};

/// `sched_process_exit(task[, group_dead])`: the process has ended when no thread of it is live any more. Two threads
/// that end together can both see that, so all below is idempotent. Last slices are still charged after this.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // SAFETY: `task` is a typed argument, `signal` a typed field of it.
    unsafe {
        let signal: *const u8 = direct(task, &offsets::TASK_SIGNAL);
        if direct::<i32>(signal, &offsets::SIGNAL_LIVE) != 0 {
            thread_gone(task as Address, direct(task, &offsets::TASK_PID));
            return 0;
        }
        let tgid: u32 = direct(task, &offsets::TASK_TGID);
        let Some(number) = VM_OF_TGID.get(tgid).copied() else { return 0 };
        let Some(vm) = VMS.get_ptr_mut(number) else { return 0 };
        let code = exit_code(task, signal);
        if (*vm).leader_task != 0 {
            take_leader(vm, (*vm).leader_task);
        }
        // Up to 6.15 the hook comes after the memory went, which takes seconds of a large VM.
        if (*vm).exit_ns == 0 && direct::<u64>(task, &offsets::TASK_MM) != 0 {
            (*vm).memory_until_ns = now();
        }
        end(vm, code);
        let _ = VM_OF_TGID.remove(tgid);
        wake(kind::VM_EXITED, number);
    }
    0
}

/// A thread has ended and others live: the process has its memory still.
#[inline(always)]
fn thread_gone(task: Address, tid: u32) {
    let Some((_, thread)) = entry(tid) else { return };
    // SAFETY: live map values; of several instants close together any will do.
    unsafe {
        if (*thread).task == task
            && let Some(vm) = VMS.get_ptr_mut((*thread).vm)
        {
            (*vm).memory_until_ns = now();
        }
    }
}

/// The wait status, as `wait_task_zombie` (kernel/exit.c) takes it.
///
/// # Safety
/// Both pointers must be typed.
#[inline(always)]
unsafe fn exit_code(task: *const u8, signal: *const u8) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        if direct::<u32>(signal, &offsets::SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0 {
            return direct(signal, &offsets::SIGNAL_EXIT_CODE);
        }
        let leader: *const u8 = direct(task, &offsets::TASK_LEADER);
        direct(leader, &offsets::TASK_EXIT_CODE)
    }
}

/// # Safety
/// `vm` must be a live map value.
#[inline(always)]
unsafe fn end(vm: *mut VmSlot, code: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*vm).exit_ns == 0 {
            (*vm).exit_code = code;
            (*vm).exit_ns = now();
        }
        (&raw mut (*vm).state).write_volatile(state::EXITED);
    }
}

/// `bpf_iter/task`: for each task of the host. Makes VMs of the processes in `ADOPT`, tracks threads of VMs that have
/// no slot yet, and knows a vCPU by the guest time it has had.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn walk_tasks(ctx: *mut core::ffi::c_void) -> i32 {
    let ctx = BtfTracePointContext::new(ctx);
    // SAFETY: the second word of `struct bpf_iter__task` is the task, null at the end of the walk.
    let task: *const u8 = unsafe { ctx.as_ptr().cast::<*const u8>().add(1).read_volatile() };
    if task.is_null() {
        return 0;
    }
    // SAFETY: a typed pointer, checked for null.
    let (tgid, tid, flags): (u32, u32, u32) = unsafe {
        (direct(task, &offsets::TASK_TGID), direct(task, &offsets::TASK_PID), direct(task, &offsets::TASK_FLAGS))
    };
    if flags & PF_KTHREAD != 0 {
        if slot_of(tid) == 0 {
            name::kernel_thread(task::number_of(&ctx, 1));
        }
        return 0;
    }
    let address = task::number_of(&ctx, 1);
    let number = adopt(address, tgid);
    if number != 0 {
        name::look(address, number);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn adopt(task: Address, tgid: u32) -> u32 {
    try_adopt(task, tgid).unwrap_or(0)
}

#[inline(always)]
fn try_adopt(task: Address, tgid: u32) -> Option<u32> {
    let signal: Address = copy(task, &offsets::TASK_SIGNAL)?;
    let live: i32 = copy(signal, &offsets::SIGNAL_LIVE)?;
    if live == 0 {
        // It has passed its exit hook: nothing would ever end a VM made of it now.
        return None;
    }
    // SAFETY: values are copied at once.
    let known = unsafe { VM_OF_TGID.get(tgid).copied() };
    let vm = match known {
        Some(number) => number,
        None => {
            // SAFETY: as above.
            unsafe { ADOPT.get(tgid) }?;
            birth(task, 0)
        }
    };
    if vm == 0 {
        return None;
    }
    let guest: u64 = copy(task, &offsets::TASK_GUEST_TIME)?;
    Some(track(task, vm, if guest > 0 { role::VCPU } else { role::VMM }))
}
