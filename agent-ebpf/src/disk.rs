//! What a VM's process read and wrote in all, for those that are reaped before anybody could look.
//!
//! `/proc/PID/io` answers for a zombie and for nobody after it. When the leader is reaped (`__exit_signal`,
//! kernel/exit.c), the threads' numbers have all been added up in `signal->ioac`; the task itself, and with it the
//! signal structure, goes after an RCU grace period, and `sched_process_free` is told of that.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::HashMap,
    programs::BtfTracePointContext,
};
use kvmeter_common::{disk::Final, event::kind, limits};

use crate::{counter::wake, offsets, task::direct};

/// Processes of VMs that have passed their exit hook, until the agent has taken their numbers: by start and process id,
/// because a later life of the id may end before the earlier one is let go.
#[map]
pub static FINALS: HashMap<[u64; 2], Final> = HashMap::with_max_entries(limits::VMS, 0);

/// Has the numbers of a process kept when it goes.
#[inline(always)]
pub fn keep(tgid: u32, start_ns: u64, slot: u32) {
    let wanted = Final { start_ns, read_bytes: 0, written_bytes: 0, slot: u64::from(slot), done: 0 };
    // Full: the agent waits in vain and counts it.
    let _ = FINALS.insert([start_ns, u64::from(tgid)], wanted, 0);
}

/// `sched_process_free(task)`: the task is let go; of a process, the leader is the last.
#[btf_tracepoint(function = "sched_process_free")]
pub fn sched_process_free(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // SAFETY: `task` is a typed argument, `signal` a typed field of it that lives until after this hook
    // (`__put_task_struct`).
    unsafe {
        let (tgid, tid): (u32, u32) = (direct(task, &offsets::TASK_TGID), direct(task, &offsets::TASK_PID));
        if tgid != tid {
            return 0;
        }
        let start_ns: u64 = direct(task, &offsets::TASK_START);
        let Some(kept) = FINALS.get_ptr_mut([start_ns, u64::from(tgid)]) else { return 0 };
        let signal: *const u8 = direct(task, &offsets::TASK_SIGNAL);
        (*kept).read_bytes = direct(signal, &offsets::SIGNAL_READ_BYTES);
        (*kept).written_bytes = direct(signal, &offsets::SIGNAL_WRITE_BYTES);
        (&raw mut (*kept).done).write_volatile(1);
        wake(kind::VM_EXITED, (*kept).slot as u32);
    }
    0
}
