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
    task::{Address, copy, field},
};

/// Bytes read and written.
#[derive(Clone, Copy)]
pub struct Io {
    read: u64,
    written: u64,
}

impl Io {
    /// Only with CONFIG_TASK_IO_ACCOUNTING are there such fields; the agent knows.
    #[inline(always)]
    fn of(object: Address, [read, written]: [&'static u32; 2]) -> Self {
        if at(read) == MISSING as usize || at(written) == MISSING as usize {
            return Self { read: 0, written: 0 };
        }
        Self { read: field(object, read), written: field(object, written) }
    }

    /// What is left without `other`.
    #[inline(always)]
    pub fn less(self, other: Self) -> Self {
        Self { read: self.read.wrapping_sub(other.read), written: self.written.wrapping_sub(other.written) }
    }

    /// Adds it to a VM.
    ///
    /// # Safety
    /// `vm` must be a live map value.
    #[inline(always)]
    pub unsafe fn leave(self, vm: *mut VmSlot) {
        // SAFETY: the caller's promise; both fields are aligned to 8.
        unsafe {
            add(&raw mut (*vm).io.read_bytes, self.read);
            add(&raw mut (*vm).io.written_bytes, self.written);
        }
    }
}

/// What a thread has read and written.
#[inline(always)]
pub fn thread_io(thread: Address) -> Io {
    Io::of(thread, [&offsets::TASK_READ_BYTES, &offsets::TASK_WRITE_BYTES])
}

/// What a process's released threads have read and written.
#[inline(always)]
pub fn released_io(signal: Address) -> Io {
    Io::of(signal, [&offsets::SIGNAL_READ_BYTES, &offsets::SIGNAL_WRITE_BYTES])
}

/// Adds what a task has read and written to its VM. Kernel threads that work for a VM are left out: `/proc/PID/io` has
/// the process's own threads.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_io(task: Address, vm_number: u32) -> u32 {
    let Some(vm) = VMS.get_ptr_mut(vm_number) else { return 0 };
    // SAFETY: a live map value.
    unsafe {
        if copy::<u32>(task, &offsets::TASK_TGID) == Some((*vm).tgid) {
            thread_io(task).leave(vm);
        }
    }
    0
}
