//! The scheduler's own numbers, kept per thread of a VM: at each switch-out, at birth, and on request.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use kvmeter_common::{event::kind, thread::role, vm::state};

use crate::{
    counter::wake,
    maps::{THREADS, VMS},
    offsets,
    task::{self, Address, TASK_DEAD, copy, direct},
    tracked::{current_ids, fold, owned, promote, slot_of, track},
    vm::take_leader,
};

/// `sched_switch(preempt, prev, next[, prev_state])`: takes over the numbers of the task that is switched out, which
/// are current at this point (kernel/sched/core.c, `__schedule`: `update_curr` came before).
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let prev: *const u8 = ctx.arg(1);
    // SAFETY: `prev` is a typed argument.
    let tid: u32 = unsafe { direct(prev, &offsets::TASK_PID) };
    let number = slot_of(tid);
    if number == 0 {
        return 0;
    }
    let Some(slot) = owned(number, prev as Address) else { return 0 };
    // SAFETY: a live map value whose one writer is this CPU until the switch is done.
    unsafe {
        (*slot).runtime_ns = direct(prev, &offsets::TASK_RUNTIME);
        (*slot).run_delay_ns = direct(prev, &offsets::TASK_RUN_DELAY);
        let state: u32 = direct(prev, &offsets::TASK_STATE);
        if state & TASK_DEAD != 0 {
            ended(number);
        }
    }
    0
}

/// The last switch of a thread: its time goes to its VM, its slot back. Out of line, off the hot path.
#[inline(never)]
fn ended(number: u32) -> u32 {
    let Some(slot) = THREADS.get_ptr_mut(number) else { return 0 };
    // SAFETY: the live map value with this number.
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
        track(child as Address, unsafe { (*slot).vm }, role::VMM);
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
            (*slot).run_delay_ns = delay;
            // A vCPU that never leaves KVM_RUN passes no other hook where the back end tells no guest entries.
            if (*slot).role != role::VCPU && copy::<u64>(task, &offsets::TASK_GUEST_TIME).is_some_and(|t| t > 0) {
                promote(slot);
            }
        }
    }
    0
}
