//! The scheduler's own numbers, kept per thread of a VM: at each switch-out, at birth, and on request.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use kvmeter_common::{
    event::kind,
    offset,
    thread::{ThreadSlot, cause, role},
    vm::state,
};

use crate::{
    counter::wake,
    disk::leave_io,
    guest,
    maps::{THREADS, VMS},
    offsets,
    part::{fold, promote, take_wanted},
    task::{self, TASK_DEAD, copy, direct, placed},
    tracked::{current_ids, entry, near, owned, slot_near, slot_of, track, unowned},
    vm::take_leader,
    waiting::{blame, charge},
};

/// `sched_switch(preempt, prev, next[, prev_state])`: takes over the numbers of the task that is switched out, which
/// are current at this point (kernel/sched/core.c, `__schedule`: `update_curr` came before), and settles whom either of
/// the two waits for.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let (prev, next): (*const u8, *const u8) = (ctx.arg(1), ctx.arg(2));
    // SAFETY: both are typed arguments.
    unsafe {
        let (prev, next) = (placed::<u32, { offset::TASK_PID }>(prev), placed::<u32, { offset::TASK_PID }>(next));
        let (out, into) = (near(prev).read_volatile(), near(next).read_volatile());
        if out | into == 0 {
            return 0;
        }
        switched(ctx.as_ptr(), out, into)
    }
}

/// A switch from or to a thread that may have a slot: `out` and `into` are what [`NEAR`](crate::maps::NEAR) has for them.
/// Not a call: where the CPU's returns are guarded it costs more than the registers that a stranger saves for it.
///
/// # Safety
/// `ctx` must be the hook's.
#[inline(always)]
unsafe fn switched(ctx: *mut c_void, out: u32, into: u32) -> i32 {
    let ctx = BtfTracePointContext::new(ctx);
    let mut vm = 0;
    if out != 0 {
        match slot_near(out, ctx.arg(1)) {
            // SAFETY: a live map value of this task. Its VM is read first: afterwards the slot may be given back.
            Some((number, slot)) => unsafe {
                vm = (*slot).vm;
                switched_out(number, slot, &ctx);
            },
            None => {
                // SAFETY: a typed argument.
                unowned(unsafe { placed::<u32, { offset::TASK_PID }>(ctx.arg(1)) });
            }
        }
    }
    if into != 0
        && let Some((number, slot)) = slot_near(into, ctx.arg(2))
    {
        // SAFETY: a live map value of this task.
        unsafe { switched_in(number, slot, ctx.arg(1), vm) };
    }
    0
}

/// # Safety
/// `slot` must be the live map value with this number, of the task that is switched in; `from` a typed argument.
#[inline(always)]
unsafe fn switched_in(number: u32, slot: *mut ThreadSlot, from: *const u8, from_vm: u32) {
    // SAFETY: the caller's promise; its one writer is this CPU from here on.
    unsafe {
        if (*slot).waits_for == cause::ASLEEP {
            // The CPU was idle where thread 0 had it: waking it took a while, and nobody is to blame.
            (*slot).waits_for = if from_vm != 0 {
                blame((*slot).vm, from_vm)
            } else if placed::<u32, { offset::TASK_PID }>(from) == 0 {
                cause::REST
            } else {
                cause::HOST
            };
        }
        if (*slot).timed != 0 {
            guest::on(number);
        }
    }
}

/// # Safety
/// `slot` must be the live map value with this number, of the task that is switched out; `ctx` must be the hook's.
#[inline(always)]
unsafe fn switched_out(number: u32, slot: *mut ThreadSlot, ctx: &BtfTracePointContext) {
    let prev: *const u8 = ctx.arg(1);
    // SAFETY: the caller's promise, and `prev` is a typed argument; its one writer is this CPU until the switch is done.
    unsafe {
        (*slot).runtime_ns = placed::<u64, { offset::TASK_RUNTIME }>(prev);
        charge(slot, placed::<u64, { offset::TASK_RUN_DELAY }>(prev));
        if (*slot).timed != 0 {
            guest::off(number);
        }
        if (*slot).wanted != 0 {
            found(slot);
        }
        let state = placed::<u32, { offset::TASK_STATE }>(prev);
        if state & TASK_DEAD != 0 {
            ended(number);
        } else if state == 0 || ctx.arg::<u8>(0) != 0 {
            (*slot).waits_for = taken((*slot).vm, placed::<u32, { offset::TASK_PID }>(ctx.arg(2)));
        } else {
            (*slot).waits_for = cause::ASLEEP;
        }
    }
}

/// Another has found a role for the thread. Out of line, as it happens once in a thread's life.
///
/// # Safety
/// As [`take_wanted`].
#[inline(never)]
unsafe fn found(slot: *mut ThreadSlot) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { take_wanted(slot) };
    0
}

/// Whom a thread of `vm` waits for that could have gone on, when this thread takes its CPU.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn taken(vm: u32, tid: u32) -> u32 {
    if tid == 0 {
        // Idle though it could run: its group has used up its quota, and nobody else has the CPU.
        return cause::REST;
    }
    // SAFETY: a live map value.
    blame(vm, entry(tid).map_or(0, |(_, slot)| unsafe { (*slot).vm }))
}

/// The last switch of a thread: its time goes to its VM, its slot back. Out of line, off the hot path.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ended(number: u32) -> u32 {
    let Some(slot) = THREADS.get_ptr_mut(number) else { return 0 };
    // SAFETY: the live map value with this number.
    unsafe { leave_io((*slot).task, (*slot).vm) };
    // SAFETY: as above.
    let Some(vm_number) = (unsafe { fold(number, slot) }) else { return 0 };
    if let Some(vm) = VMS.get_ptr_mut(vm_number) {
        // SAFETY: a live map value.
        unsafe {
            if (*vm).leader_task != 0 {
                take_leader(vm, (*vm).leader_task);
            }
            if (&raw const (*vm).state).read_volatile() == state::EXITED {
                wake(kind::THREAD_ENDED, vm_number);
            }
        }
    }
    0
}

/// `task_newtask(task, clone_flags)`: a new thread of a tracked process, whoever made it: also the kernel's own
/// (vhost tasks, io_uring workers), which `sched_process_fork` misses.
#[btf_tracepoint(function = "task_newtask")]
pub fn task_newtask(ctx: BtfTracePointContext) -> i32 {
    let (tid, tgid) = current_ids();
    let number = slot_of(tid);
    if number == 0 {
        return 0;
    }
    let child: *const u8 = ctx.arg(0);
    // SAFETY: `child` is a typed argument.
    let child_tgid: u32 = unsafe { direct(child, &offsets::TASK_TGID) };
    if child_tgid != tgid {
        return 0;
    }
    if let Some(slot) = THREADS.get_ptr(number) {
        // SAFETY: a live map value.
        track(task::number_of(&ctx, 0), unsafe { (*slot).vm }, role::VMM);
    }
    0
}

/// Run by the agent on each CPU before a sample (`BPF_PROG_TEST_RUN`): a thread that spins is never switched out, so
/// its slot is brought level with what the scheduler knows now, which moves with its tick.
#[raw_tracepoint(tracepoint = "kvmeter_refresh")]
pub fn refresh(_ctx: RawTracePointContext) -> i32 {
    let (tid, _) = current_ids();
    let number = slot_of(tid);
    if number == 0 {
        return 0;
    }
    let task = task::current();
    let Some(slot) = owned(number, task) else { return 0 };
    if let Some((runtime, delay)) = task::times(task) {
        // SAFETY: a live map value; the interrupted thread's CPU is its one writer, and that is this CPU.
        unsafe {
            (*slot).runtime_ns = runtime;
            charge(slot, delay);
            if (*slot).timed != 0 {
                guest::level(number, guest::clock());
            }
            if (*slot).wanted != 0 {
                take_wanted(slot);
            }
            // A vCPU that never leaves KVM_RUN passes no other hook where the back end tells no guest entries.
            if (*slot).role != role::VCPU && copy::<u64>(task, &offsets::TASK_GUEST_TIME).is_some_and(|t| t > 0) {
                promote(number, slot);
            }
        }
    }
    0
}
