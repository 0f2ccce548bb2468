//! Programs that only `cargo xtask bench` loads: what the agent's own programs are compared with.
//!
//! A hook has a cost of its own that moves with the machine's mood, so every figure is a difference to an empty program
//! of the same kind on the same hook. `kvm_entry` and `kvm_exit` do not fire on every KVM back end: their bodies are
//! driven from the hooks of the system calls, in a thread that is tracked, beside programs that read the clock alone.

use crate::{counter::add, exits, kvm, tracked::current_ids};
use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, classifier, map, raw_tracepoint, tracepoint},
    maps::Array,
    programs::{BtfTracePointContext, RawTracePointContext, TcContext, TracePointContext},
};

/// Numbers of system calls that are counted one by one; the last place counts those beyond.
const SYSCALLS: u32 = 512;

/// The process whose system calls are counted.
#[map]
pub static WATCHED: Array<u32> = Array::with_max_entries(1, 0);

/// Its system calls by number.
#[map]
pub static CALLS: Array<u64> = Array::with_max_entries(SYSCALLS, 0);

macro_rules! empty_typed {
    ($($name:ident on $hook:literal),+ $(,)?) => {
        $(
            /// Does nothing, on this hook.
            #[btf_tracepoint(function = $hook)]
            pub fn $name(_ctx: BtfTracePointContext) -> i32 {
                0
            }
        )+
    };
}

empty_typed!(
    empty_sched_switch on "sched_switch",
    control_sched_switch on "sched_switch",
    empty_task_newtask on "task_newtask",
    control_task_newtask on "task_newtask",
    empty_sched_process_exit on "sched_process_exit",
    control_sched_process_exit on "sched_process_exit",
    empty_rss_stat on "rss_stat",
    control_rss_stat on "rss_stat",
);

macro_rules! raw {
    ($($(#[$about:meta])* $name:ident => $body:expr;)+) => {
        $(
            $(#[$about])*
            #[raw_tracepoint]
            pub fn $name(_ctx: RawTracePointContext) -> i32 {
                let () = $body;
                0
            }
        )+
    };
}

raw!(
    /// Does nothing, on whatever hook it is attached to.
    empty_raw => ();
    /// Another of the same, to be held against the first.
    control_raw => ();
    /// As `empty_raw`, for the second hook of a pair.
    empty_raw_leave => ();
    /// Reads the clock, and nothing else.
    clock_enter => { now(); };
    /// As `clock_enter`, for the second hook of a pair.
    clock_leave => { now(); };
    /// What happens when a guest is entered.
    pair_enter => kvm::entered();
    /// What happens when a guest is left.
    pair_leave => kvm::left();
);

/// Does nothing with a record.
#[tracepoint]
pub fn empty_record(_ctx: TracePointContext) -> i32 {
    0
}

/// What happens with the record of an exit.
#[tracepoint]
pub fn reason_record(ctx: TracePointContext) -> i32 {
    exits::count(&ctx)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// `sys_enter(regs, id)`: counts the system calls of one process, so that nothing has to stop it to count them.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn count_syscalls(ctx: RawTracePointContext) -> i32 {
    let (_, tgid) = current_ids();
    if WATCHED.get(0).copied() != Some(tgid) {
        return 0;
    }
    let id: u64 = ctx.arg(1);
    let place = if id < u64::from(SYSCALLS) { id as u32 } else { SYSCALLS - 1 };
    if let Some(count) = CALLS.get_ptr_mut(place) {
        // SAFETY: a live map value of type u64.
        unsafe { add(count, 1) };
    }
    0
}

/// Does nothing for each task of the host.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn empty_walk(_ctx: *mut core::ffi::c_void) -> i32 {
    0
}

/// Does nothing, on a network hook.
#[classifier]
pub fn empty_tc(_ctx: TcContext) -> i32 {
    -1
}

/// Does nothing there, once more.
#[classifier]
pub fn control_tc(_ctx: TcContext) -> i32 {
    -1
}
