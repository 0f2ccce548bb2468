//! Which part of its VM's time a thread is: taking another role, and leaving all it did to its VM when it ends.

use kvmeter_common::{
    limits,
    thread::{ThreadSlot, cause, role},
    vcpu::{VcpuSlot, VcpuTimes, mode},
    vm::{RoleTime, VmSlot},
};

use crate::{
    counter::{add, add32},
    maps::{VCPUS, VMS},
    tracked::{give_back, unpoint},
};

/// Part of a VM's time by role.
///
/// # Safety
/// `vm` must be a live map value.
#[inline(always)]
unsafe fn ended(vm: *mut VmSlot, role: u32) -> *mut RoleTime {
    // SAFETY: the mask keeps the index inside the four roles.
    unsafe { (&raw mut (*vm).ended).cast::<RoleTime>().add((role as usize) & (role::COUNT - 1)) }
}

/// Adds time to what a VM's ended threads left.
///
/// # Safety
/// `vm` must be a live map value.
#[inline(always)]
pub unsafe fn leave(vm: *mut VmSlot, role: u32, runtime_ns: u64, run_delay_ns: u64) {
    // SAFETY: the caller's promise; both fields are aligned to 8.
    unsafe {
        let sum = ended(vm, role);
        add(&raw mut (*sum).runtime_ns, runtime_ns);
        add(&raw mut (*sum).run_delay_ns, run_delay_ns);
    }
}

/// Moves an ended thread's time to its VM and returns its slot. Runs at the thread's last switch.
///
/// # Safety
/// `slot` must be the live map value with this `number`.
#[inline(always)]
pub unsafe fn fold(number: u32, slot: *mut ThreadSlot) -> Option<u32> {
    // SAFETY: the caller's promise.
    let (vm_number, tid) = unsafe { ((*slot).vm, (*slot).tid) };
    let vm = VMS.get_ptr_mut(vm_number)?;
    // SAFETY: both are live map values; begin and end bracket the move for a concurrent reader.
    unsafe {
        add(&raw mut (*vm).fold_begin, 1);
        leave(
            vm,
            (*slot).role,
            (*slot).runtime_ns - (*slot).base_runtime_ns,
            (*slot).run_delay_ns - (*slot).base_run_delay_ns,
        );
        let (waits, waited) = ((&raw mut (*vm).waits).cast::<u64>(), (&raw mut (*vm).waited_ns).cast::<u64>());
        for at in 0..limits::BUCKETS {
            add(waits.add(at), (*slot).waits[at]);
        }
        for at in 0..cause::COUNT {
            add(waited.add(at), (*slot).waited_ns[at]);
        }
        if (*slot).role == role::VCPU {
            fold_vcpu(number, vm_number);
        }
        (&raw mut (*slot).task).write_volatile(0);
        unpoint(tid, number);
        add(&raw mut (*vm).fold_end, 1);
    }
    give_back(number);
    Some(vm_number)
}

/// Words of what a vCPU leaves.
const VCPU_WORDS: usize = size_of::<VcpuTimes>() / size_of::<u64>();

/// Moves what an ended vCPU did to its VM.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fold_vcpu(number: u32, vm_number: u32) -> u32 {
    let (Some(vcpu), Some(vm)) = (VCPUS.get_ptr_mut(number), VMS.get_ptr_mut(vm_number)) else { return 0 };
    // SAFETY: live map values; all fields of the sums are 64-bit counters.
    unsafe {
        let (from, to) = ((&raw const (*vcpu).times).cast::<u64>(), (&raw mut (*vm).vcpu).cast::<u64>());
        for at in 0..VCPU_WORDS {
            add(to.add(at), from.add(at).read_volatile());
        }
        (&raw mut (*vcpu).owner).write_volatile(0);
    }
    0
}

/// Gives a thread another role: what it ran before stays with the one it had.
///
/// The role is written first: the refresh program can interrupt this on the same CPU, and must not do it twice.
///
/// # Safety
/// `slot` must be a live map value that the running or switched task owns.
#[inline(always)]
pub unsafe fn reassign(slot: *mut ThreadSlot, role: u32) {
    // SAFETY: the caller's promise; only the owner changes its role.
    unsafe {
        let Some(vm) = VMS.get_ptr_mut((*slot).vm) else { return };
        add(&raw mut (*vm).fold_begin, 1);
        let before = (&raw const (*slot).role).read_volatile();
        (&raw mut (*slot).role).write_volatile(role);
        (*slot).wanted = 0;
        if before != role {
            let (runtime, delay) = ((*slot).runtime_ns, (*slot).run_delay_ns);
            leave(vm, before, runtime - (*slot).base_runtime_ns, delay - (*slot).base_run_delay_ns);
            (*slot).base_runtime_ns = runtime;
            (*slot).base_run_delay_ns = delay;
            if role == role::VCPU {
                add32(&raw mut (*vm).vcpus, 1);
            }
        }
        add(&raw mut (*vm).fold_end, 1);
    }
}

/// Takes over a role that another has found by the thread's name.
///
/// # Safety
/// As `reassign`.
#[inline(always)]
pub unsafe fn take_wanted(slot: *mut ThreadSlot) {
    // SAFETY: the caller's promise.
    unsafe {
        let wanted = u32::from((*slot).wanted);
        if wanted != 0 && (*slot).role != role::VCPU {
            reassign(slot, wanted - 1);
        }
    }
}

/// Makes a thread a vCPU.
///
/// # Safety
/// `slot` must be the live map value with this number, and the running task must own it.
#[inline(always)]
pub unsafe fn promote(number: u32, slot: *mut ThreadSlot) {
    // SAFETY: the caller's promise.
    unsafe {
        start_vcpu(number, owner(slot));
        reassign(slot, role::VCPU);
    }
}

/// A thread as `bpf_get_current_pid_tgid` gives it.
///
/// # Safety
/// `slot` must be a live map value.
#[inline(always)]
pub unsafe fn owner(slot: *const ThreadSlot) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { u64::from((*slot).tgid) << 32 | u64::from((*slot).tid) }
}

/// Prepares the slot of a vCPU: its number may have been another's.
#[inline(always)]
pub fn start_vcpu(number: u32, owner: u64) {
    let Some(vcpu) = VCPUS.get_ptr_mut(number) else { return };
    // SAFETY: a live map value; nobody uses it while its owner is not this one.
    unsafe {
        if (*vcpu).owner != owner {
            vcpu.write(VcpuSlot::default());
            (*vcpu).mode = mode::KERNEL;
            (&raw mut (*vcpu).owner).write_volatile(owner);
        }
    }
}
