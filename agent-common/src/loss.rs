//! Counters of everything the kernel side could not keep, each counted where it happened.

/// Stages, in the order of the kernel's counter array.
pub const STAGES: [&str; 8] =
    ["wake", "thread_slots", "vm_slots", "tid_range", "thread_walk", "vm_table", "slot_return", "slot_reused"];

/// The ring buffer had no room for a wake-up.
pub const WAKE: u32 = 0;
/// No free thread slot: that thread is found again by the agent's walk once one is free.
pub const THREAD_SLOTS: u32 = 1;
/// No free VM slot.
pub const VM_SLOTS: u32 = 2;
/// A thread id beyond the table (`kernel.pid_max` was raised after the start).
pub const TID_RANGE: u32 = 3;
/// A process with more threads than the kernel walks.
pub const THREAD_WALK: u32 = 4;
/// The process table refused an entry.
pub const VM_TABLE: u32 = 5;
/// A slot could not be given back.
pub const SLOT_RETURN: u32 = 6;
/// A slot belonged to another task than the one running under its thread id.
pub const SLOT_REUSED: u32 = 7;

const _: () = assert!(STAGES.len() == SLOT_REUSED as usize + 1, "each stage has a name");
