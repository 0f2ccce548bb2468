//! Whose memory moved, and the faults of guests. The numbers themselves are read by the agent, where they moved.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use kvmeter_common::{vcpu::hook, vm::VmSlot};

use crate::{
    counter::add,
    generation::counts,
    maps::{THREADS, VCPUS, VMS},
    offsets,
    task::direct,
    tracked::{current_ids, slot_of},
};

/// The VM of a thread slot.
#[inline(always)]
fn vm_of(number: u32) -> Option<*mut VmSlot> {
    let slot = THREADS.get_ptr(number)?;
    // SAFETY: a live map value.
    VMS.get_ptr_mut(unsafe { (*slot).vm })
}

/// `rss_stat(mm, member[, count])` (mm/memory.c, `mm_trace_rss_stat`): a counter of `mm` has just changed, whoever
/// changed it: a thread of its own, kswapd, khugepaged, KSM. So the VM is told by `mm->owner`, a living thread of the
/// process (`mm_update_next_owner`), and a stranger is rejected by two loads and one of the thread-id table. At the
/// end of a process the owner is null. Up to 6.1 faults reach the counter, and with it this hook and `/proc`, by 64.
#[btf_tracepoint(function = "rss_stat")]
pub fn rss_stat(ctx: BtfTracePointContext) -> i32 {
    let mm: *const u8 = ctx.arg(0);
    // SAFETY: `mm` is a typed argument, `owner` a typed field of it.
    let number = unsafe {
        let owner: *const u8 = direct(mm, &offsets::MM_OWNER);
        if owner.is_null() {
            return 0;
        }
        slot_of(direct(owner, &offsets::TASK_PID))
    };
    if number == 0 {
        return 0;
    }
    if let Some(vm) = vm_of(number) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*vm).moves, 1) };
    }
    0
}

/// `kvm_page_fault`: in the vCPU's thread, whatever its arguments are on this kernel.
#[raw_tracepoint(tracepoint = "kvm_page_fault")]
pub fn kvm_page_fault(_ctx: RawTracePointContext) -> i32 {
    let (tid, _) = current_ids();
    let number = slot_of(tid);
    if number != 0
        && let (Some(vm), Some(vcpu)) = (vm_of(number), VCPUS.get_ptr_mut(number))
    {
        // SAFETY: live map values, the second with the number of the running thread's slot.
        unsafe {
            if counts(vcpu, hook::PAGE_FAULT) {
                add(&raw mut (*vm).guest_faults, 1);
            }
        }
    }
    0
}
