//! What a task's name tells: which of a VMM's threads do I/O, and which kernel threads work for a VM.

use aya_ebpf::{helpers::bpf_probe_read_kernel_buf, macros::btf_tracepoint, programs::BtfTracePointContext};
use kvmeter_common::{
    limits,
    name::{family, words},
    thread::role,
};

use crate::{
    maps::{RULES, THREADS, VMS},
    offsets::{self, at},
    part::reassign,
    task::{self, Address, PF_KTHREAD, copy, direct},
    tracked::{slot_of, track},
};

/// `VmSlot::family` of a process, by its leader's name; and a thread's role, by its own: what the first rule gives that
/// is about `family` and matches.
#[inline(always)]
fn first(name: [u64; 2], about: u32, else_: u32) -> u32 {
    for number in 0..limits::NAME_RULES as u32 {
        let Some(rule) = RULES.get(number) else { return else_ };
        if rule.ends(name, about) {
            return rule.gift().unwrap_or(else_);
        }
    }
    else_
}

/// The family of the VMM whose leader has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn family_of(leader: Address) -> u32 {
    name_of(leader).map_or(family::ANY, |name| first(name, family::LEADER, family::ANY))
}

/// The role of a thread that is no vCPU.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn role_of(thread: Address, family: u32) -> u32 {
    name_of(thread).map_or(role::VMM, |name| first(name, family, role::VMM))
}

#[inline(always)]
fn name_of(task: Address) -> Option<[u64; 2]> {
    copy::<[u64; 2]>(task, &offsets::TASK_COMM)
}

/// `task_rename(task, name)`: a thread has its name from here on; `pthread_setname_np`, io_uring workers and kernel
/// threads all pass it (fs/exec.c, `__set_task_comm`).
#[btf_tracepoint(function = "task_rename")]
pub fn task_rename(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // SAFETY: `task` is a typed argument.
    let (tid, flags): (u32, u32) = unsafe { (direct(task, &offsets::TASK_PID), direct(task, &offsets::TASK_FLAGS)) };
    let number = slot_of(tid);
    if number == 0 && flags & PF_KTHREAD == 0 {
        return 0;
    }
    let new: Address = ctx.arg(1);
    let mut bytes = [0u8; 16];
    // SAFETY: the helper checks the address; the kernel's buffers for names are 16 bytes or longer.
    if unsafe { bpf_probe_read_kernel_buf(new as *const u8, &mut bytes) }.is_err() {
        return 0;
    }
    if number == 0 {
        vhost(task::number_of(&ctx, 0), bytes);
    } else {
        renamed(task::number_of(&ctx, 0), number, words(bytes));
    }
    0
}

/// A thread of a VM has a new name: what it ran so far stays with the role it had.
#[inline(always)]
fn renamed(task: Address, number: u32, name: [u64; 2]) {
    let Some(slot) = THREADS.get_ptr_mut(number) else { return };
    // SAFETY: live map values.
    unsafe {
        if (*slot).task != task || (*slot).role == role::VCPU {
            return;
        }
        let Some(vm) = VMS.get_ptr((*slot).vm) else { return };
        let role = first(name, (*vm).family, role::VMM);
        if role == (*slot).role {
            return;
        }
        if task == task::current() {
            reassign(slot, role);
        } else {
            (*slot).wanted = role as u16 + 1;
        }
    }
}

/// A kernel thread named `vhost-<id of the thread that owns it>` (drivers/vhost/vhost.c) works for that thread's VM.
/// Kernels from 6.4 on make a thread of the process instead, which is tracked as such.
#[inline(always)]
fn vhost(task: Address, name: [u8; 16]) -> u32 {
    if words(name)[0] & 0xffff_ffff_ffff != words(*b"vhost-\0\0\0\0\0\0\0\0\0\0")[0] {
        return 0;
    }
    let (mut owner, mut ended) = (0u32, false);
    for digit in &name[6..15] {
        let value = u32::from(digit.wrapping_sub(b'0'));
        ended |= value > 9;
        if !ended {
            owner = owner * 10 + value;
        }
    }
    let number = slot_of(owner);
    let Some(slot) = THREADS.get_ptr(number) else { return 0 };
    // SAFETY: a live map value.
    if number == 0 || unsafe { (*slot).tid } != owner {
        return 0;
    }
    // SAFETY: as above.
    track(task, unsafe { (*slot).vm }, role::VHOST)
}

/// Looks at the name of a thread of a VM that the walk over all tasks meets: it may have had it before its VM was seen.
#[inline(always)]
pub fn look(task: Address, number: u32) {
    let Some(slot) = THREADS.get_ptr_mut(number) else { return };
    // SAFETY: live map values.
    unsafe {
        if (*slot).task != task || (*slot).role != role::VMM {
            return;
        }
        let Some(vm) = VMS.get_ptr((*slot).vm) else { return };
        let role = role_of(task, (*vm).family);
        if role != role::VMM {
            (*slot).wanted = role as u16 + 1;
        }
    }
}

/// The walk has met a kernel thread that is not tracked.
#[inline(always)]
pub fn kernel_thread(task: Address) -> u32 {
    let mut bytes = [0u8; 16];
    let name = (task as usize + at(&offsets::TASK_COMM)) as *const u8;
    // SAFETY: the helper checks the address.
    if unsafe { bpf_probe_read_kernel_buf(name, &mut bytes) }.is_err() {
        return 0;
    }
    vhost(task, bytes)
}
