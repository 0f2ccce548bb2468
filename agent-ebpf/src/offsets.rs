//! Where the running kernel keeps the fields we read, filled in by the agent from the kernel's own BTF at load.
//!
//! rustc emits no CO-RE relocations, so an offset is a read-only global: frozen before load, which makes it a known
//! constant to the verifier. [`MISSING`] reaches no program that cannot do without: the agent refuses those.

use core::ptr::addr_of;

/// What an offset is before the agent has filled it in.
pub const MISSING: u32 = u32::MAX;

macro_rules! offsets {
    ($($name:ident),+ $(,)?) => {
        $(#[unsafe(no_mangle)] pub static $name: u32 = MISSING;)+
    };
}

offsets!(
    TASK_PID,
    TASK_TGID,
    TASK_RUNTIME,
    TASK_RUN_DELAY,
    TASK_STATE,
    TASK_ON_CPU,
    TASK_SIGNAL,
    TASK_LEADER,
    TASK_START,
    TASK_MM,
    TASK_COMM,
    TASK_FLAGS,
    TASK_EXIT_CODE,
    TASK_GUEST_TIME,
    TASK_THREAD_NODE,
    TASK_READ_BYTES,
    TASK_WRITE_BYTES,
    SIGNAL_LIVE,
    SIGNAL_FLAGS,
    SIGNAL_THREADS,
    SIGNAL_EXIT_CODE,
    SIGNAL_RUNTIME,
    SIGNAL_SEQUENCE,
    SIGNAL_READ_BYTES,
    SIGNAL_WRITE_BYTES,
    SIGINFO_CODE,
    MM_ARG_START,
    MM_ARG_END,
    MM_OWNER,
    KVM_EXIT_REASON,
    KVM_EXIT_ISA,
);

/// The offset's value, hidden from the compiler so that it stays a load from the frozen section.
#[inline(always)]
pub fn at(offset: &'static u32) -> usize {
    // SAFETY: a static is valid to read; `volatile` only keeps the compiler from folding in the placeholder.
    unsafe { addr_of!(*offset).read_volatile() as usize }
}
