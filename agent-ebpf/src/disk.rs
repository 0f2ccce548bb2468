//! What ended threads of a VM read and wrote, for VMs that are reaped before anybody could look.
//!
//! `/proc/PID/io` answers for a zombie and for nobody after it. A thread does no I/O any more at its last switch (its
//! files and its memory are gone), so its `ioac` is left to its VM there, in the thread's own context; what ended
//! before the VM was seen is in `signal->ioac`, as its run time is in the sum beside it. No hook of the reaping serves:
//! those run wherever a grace period happens to end, and a kernel may run no program there.

use kvmeter_common::vm::VmSlot;

use crate::{
    counter::add,
    maps::VMS,
    offsets::{self, MISSING, at},
    task::{Address, copy},
};

/// How much of something is left to a VM.
pub mod times {
    /// Once.
    pub const ONCE: u64 = 1;
    /// It was counted twice.
    pub const LESS_ONCE: u64 = u64::MAX;
}

/// Adds what a task has read and written to its VM. Kernel threads that work for a VM are left out: `/proc/PID/io` has
/// the process's own threads.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_io(task: Address, vm_number: u32, times: u64) -> u32 {
    let Some(vm) = VMS.get_ptr_mut(vm_number) else { return 0 };
    // SAFETY: a live map value.
    if copy::<u32>(task, &offsets::TASK_TGID) == Some(unsafe { (*vm).tgid }) {
        leave(vm, task, [&offsets::TASK_READ_BYTES, &offsets::TASK_WRITE_BYTES], times);
    }
    0
}

/// Adds what a process's released threads have read and written.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_released_io(signal: Address, vm_number: u32) -> u32 {
    let Some(vm) = VMS.get_ptr_mut(vm_number) else { return 0 };
    leave(vm, signal, [&offsets::SIGNAL_READ_BYTES, &offsets::SIGNAL_WRITE_BYTES], times::ONCE);
    0
}

/// Only with CONFIG_TASK_IO_ACCOUNTING are there such fields; the agent knows.
#[inline(always)]
fn leave(vm: *mut VmSlot, object: Address, [read, written]: [&'static u32; 2], times: u64) {
    if at(read) == MISSING as usize || at(written) == MISSING as usize {
        return;
    }
    // SAFETY: a live map value; both fields are aligned to 8.
    unsafe {
        add(&raw mut (*vm).io.read_bytes, copy::<u64>(object, read).unwrap_or(0).wrapping_mul(times));
        add(&raw mut (*vm).io.written_bytes, copy::<u64>(object, written).unwrap_or(0).wrapping_mul(times));
    }
}
