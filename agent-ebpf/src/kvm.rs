//! KVM's tracepoints: what makes a thread a vCPU and a process a VM, and why the guest came out.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use aya_log_ebpf::warn;
use kvmeter_common::{
    limits, loss,
    thread::{ThreadSlot, role},
    vcpu::{VcpuSlot, hook},
    vm::{VmSlot, state},
};

use crate::{
    counter::add,
    generation::counts,
    guest,
    maps::{LOSSES, VCPUS, VMS},
    part::promote,
    task::{self, Address},
    tracked::{current_ids, owned, slot_of, track},
    vm::{birth, now, take_args},
};

/// The running thread's slot, as a vCPU's, with its number, and its VM's.
#[inline(always)]
fn vcpu() -> Option<(u32, *mut ThreadSlot, *mut VmSlot)> {
    let (tid, _) = current_ids();
    let task = task::current();
    let mut number = slot_of(tid);
    // A slot of this id's last user, left behind, must not hide a new one.
    if number == 0 || !of_a_living_vm(number, task) {
        number = newcomer(task);
    }
    if number == 0 {
        return None;
    }
    let slot = owned(number, task)?;
    // SAFETY: a live map value that the running task owns.
    let vm_number = unsafe {
        if (*slot).role != role::VCPU {
            promote(number, slot);
        }
        (*slot).vm
    };
    let vm = VMS.get_ptr_mut(vm_number)?;
    // SAFETY: a live map value; two CPUs writing two close instants is no harm.
    unsafe {
        if (*vm).first_run_ns == 0 {
            (*vm).first_run_ns = now();
            take_args(task, vm_number);
        }
    }
    Some((number, slot, vm))
}

/// Whether a slot is this task's, in a VM whose process has not ended.
#[inline(always)]
fn of_a_living_vm(number: u32, task: Address) -> bool {
    let Some(slot) = owned(number, task) else { return false };
    // SAFETY: live map values.
    unsafe { VMS.get_ptr((*slot).vm).is_some_and(|vm| (&raw const (*vm).state).read_volatile() == state::LIVE) }
}

/// A thread not tracked yet enters a guest: its process is a VM.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn newcomer(task: Address) -> u32 {
    let vm = birth(task, 1);
    if vm == 0 {
        return 0;
    }
    track(task, vm, role::VCPU)
}

/// Says, less and less often, that a vCPU runs without a slot. The loss itself is counted where it happened.
#[inline(always)]
fn untracked(ctx: &RawTracePointContext) {
    let lost = LOSSES.get(loss::VM_SLOTS).copied().unwrap_or(0);
    if lost != 0 && lost & (lost - 1) == 0 {
        let (tid, tgid) = current_ids();
        warn!(
            ctx,
            "no VM slot left for process {}, thread {}: it is read from /proc ({} times so far)", tgid, tid, lost
        );
    }
}

/// `kvm_userspace_exit(reason, errno)`: once per return of `KVM_RUN`, on every architecture (virt/kvm/kvm_main.c). The
/// reason is valid only without an error: an interrupted run repeats the old one.
#[raw_tracepoint(tracepoint = "kvm_userspace_exit")]
pub fn kvm_userspace_exit(ctx: RawTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(0);
    let errno: i32 = ctx.arg(1);
    let Some((number, _, vm)) = vcpu() else {
        untracked(&ctx);
        return 0;
    };
    if let Some(vcpu) = VCPUS.get_ptr_mut(number) {
        // SAFETY: a live map value, the running thread's: `vcpu` has seen to that.
        unsafe {
            guest::to_user(vcpu);
            if !counts(vcpu, hook::USERSPACE_EXIT) {
                return 0;
            }
        }
    }
    let index = if errno < 0 {
        limits::EXIT_INTERRUPTED
    } else if reason as usize >= limits::EXIT_INTERRUPTED {
        limits::EXIT_OTHER
    } else {
        reason as usize
    };
    // SAFETY: a live map value; the mask keeps the index inside the table.
    unsafe {
        if errno >= 0 {
            (*vm).last_exit = reason + 1;
        }
        let counters = (&raw mut (*vm).userspace_exits).cast::<u64>();
        add(counters.add(index & (limits::EXIT_REASONS - 1)), 1);
    }
    0
}

/// `kvm_entry`: once per guest entry, in the vCPU's thread, whatever its arguments are on this kernel.
#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn kvm_entry(_ctx: RawTracePointContext) -> i32 {
    entered();
    0
}

/// The running thread enters a guest.
#[inline(always)]
pub fn entered() {
    let now = guest::clock();
    // SAFETY: live map values that the running thread owns.
    unsafe {
        match guest::running() {
            Some(vcpu) if (*vcpu).times.entries != 0 => {
                if counts(vcpu, hook::ENTRY) {
                    guest::enter(vcpu, now);
                }
            }
            _ => {
                if let Some(vcpu) = first_entry()
                    && counts(vcpu, hook::ENTRY)
                {
                    guest::enter(vcpu, now);
                }
            }
        }
    }
}

/// The running thread has left its guest.
#[inline(always)]
pub fn left() {
    if let Some(vcpu) = guest::running() {
        // SAFETY: a live map value that the running thread owns.
        unsafe { guest::leave(vcpu, guest::clock()) };
    }
}

/// A thread whose clock does not run yet.
#[inline(always)]
fn first_entry() -> Option<*mut VcpuSlot> {
    let (number, slot, _) = vcpu()?;
    // SAFETY: a live map value that the running thread owns.
    unsafe { (*slot).timed = 1 };
    guest::slot(number)
}

/// `kvm_exit`: once per guest exit. The reason is not among the raw arguments any more; see `exits`.
#[raw_tracepoint(tracepoint = "kvm_exit")]
pub fn kvm_exit(_ctx: RawTracePointContext) -> i32 {
    left();
    0
}

/// `kvm_vcpu_wakeup(ns, waited, valid)`: a halted vCPU goes on, in its own thread (virt/kvm/kvm_main.c, `kvm_vcpu_halt`).
/// Where entries are not told it may be the first that is heard of it.
#[raw_tracepoint(tracepoint = "kvm_vcpu_wakeup")]
pub fn kvm_vcpu_wakeup(ctx: RawTracePointContext) -> i32 {
    let (halted_ns, waited): (u64, u8) = (ctx.arg(0), ctx.arg(1));
    let known = guest::running();
    if let Some(vcpu) = known.or_else(|| guest::slot(vcpu()?.0)) {
        // SAFETY: a live map value that the running thread owns.
        unsafe {
            if counts(vcpu, hook::WAKEUP) {
                guest::woke(vcpu, halted_ns, waited != 0);
            }
        }
    }
    0
}
