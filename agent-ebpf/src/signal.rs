//! Who ended a VM: senders of signals that can end a process, and the OOM killer's choice. Kept by the VM's slot, read by
//! the agent once the process has ended.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_probe_read_kernel_buf,
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};
use kvmeter_common::{
    limits,
    signal::{Sent, VmSignals, can_end, place, place_of},
};

use crate::{
    maps::{THREADS, VM_OF_TGID},
    offsets::{self, at},
    task::{self, Address, TASK_DEAD, copy, direct},
    tracked::{current_ids, slot_of},
};

/// One element a VM slot, under its number.
#[map]
pub static SIGNALS: Array<VmSignals> = Array::with_max_entries(limits::VMS, BPF_F_MMAPABLE);

/// `TRACE_SIGNAL_DELIVERED` and `TRACE_SIGNAL_LOSE_INFO` (include/trace/events/signal.h): it was queued, or only its
/// number was. Anything else changed nothing: ignored, pending already, or the process was ending.
const DELIVERED: [i32; 2] = [0, 4];
/// `SEND_SIG_NOINFO`: of the running process (include/linux/sched/signal.h).
const NO_INFO: Address = 0;
/// `SEND_SIG_PRIV`: of the kernel's own.
const PRIVATE: Address = 1;
/// `SI_USER`, `SI_QUEUE`, `SI_TKILL`: sent by the running process. Timers and I/O have codes below 0 as well, but are sent
/// from wherever the kernel happens to be.
const BY_PROCESS: [i32; 3] = [0, -1, -6];

/// The VM of a process, told by one of its threads; 0 = none. A leader that has ended has no slot any more.
#[inline(always)]
unsafe fn vm_of(task: *const u8) -> u32 {
    // SAFETY: `task` is a typed pointer by the caller's promise; the slot is a live map value.
    unsafe {
        let tgid: u32 = direct(task, &offsets::TASK_TGID);
        let number = slot_of(direct(task, &offsets::TASK_PID));
        if number == 0 {
            let dead = direct::<u32>(task, &offsets::TASK_STATE) & TASK_DEAD != 0;
            return if dead { VM_OF_TGID.get(tgid).copied().unwrap_or(0) } else { 0 };
        }
        match THREADS.get_ptr(number) {
            Some(slot) if (*slot).tgid == tgid => (*slot).vm,
            _ => 0,
        }
    }
}

/// `signal_generate(sig, info, task, group, result)`: in the sender, under the lock of the receiver's signals.
#[btf_tracepoint(function = "signal_generate")]
pub fn signal_generate(ctx: BtfTracePointContext) -> i32 {
    let (signal, result): (u32, i32) = (ctx.arg(0), ctx.arg(4));
    if !can_end(signal) || !DELIVERED.contains(&result) {
        return 0;
    }
    let task: *const u8 = ctx.arg(2);
    // SAFETY: a typed argument.
    let vm = unsafe { vm_of(task) };
    if vm == 0 {
        return 0;
    }
    let Some(signals) = SIGNALS.get_ptr_mut(vm) else { return 0 };
    // As a number: it may be one of the special values, which are no addresses.
    let info = task::number_of(&ctx, 1);
    let by_process = match info {
        NO_INFO => true,
        PRIVATE => false,
        info => copy::<i32>(info, &offsets::SIGINFO_CODE).is_some_and(|code| BY_PROCESS.contains(&code)),
    };
    let sent = if by_process { sender(signal) } else { Sent { signal, tgid: 0, comm: [0; 16] } };
    // SAFETY: a live map value, written under the receiver's lock; the place is below the array's length.
    unsafe { (&raw mut (*signals).sent).cast::<Sent>().add(place_of(signal) % place::COUNT).write_volatile(sent) };
    0
}

/// The running process: a thread of it may have another name.
#[inline(always)]
fn sender(signal: u32) -> Sent {
    let (_, tgid) = current_ids();
    let mut comm = [0; 16];
    if let Some(leader) = copy::<Address>(task::current(), &offsets::TASK_LEADER) {
        let name = (leader as usize + at(&offsets::TASK_COMM)) as *const u8;
        // SAFETY: the helper checks the address.
        let _ = unsafe { bpf_probe_read_kernel_buf(name, &mut comm) };
    }
    Sent { signal, tgid, comm }
}

/// `mark_victim(task, uid)` (mm/oom_kill.c): the process may use the last reserves, because it is to end. One that was
/// ending by itself is marked as well, so this says something only beside a SIGKILL of the kernel's own.
#[btf_tracepoint(function = "mark_victim")]
pub fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a typed argument; a live map value.
    unsafe {
        let vm = vm_of(task);
        if vm != 0
            && let Some(signals) = SIGNALS.get_ptr_mut(vm)
        {
            (&raw mut (*signals).oom).write_volatile(1);
        }
    }
    0
}
