//! What the ring buffer carries: wake-ups, never state. A lost one costs latency and is counted.

use crate::assert_layout;

/// Why the agent is woken.
pub mod kind {
    /// A VM got a slot.
    pub const VM_SEEN: u32 = 1;
    /// A VM's process has passed its exit hook.
    pub const VM_EXITED: u32 = 2;
    /// A thread of an exited VM was switched out for the last time.
    pub const THREAD_ENDED: u32 = 3;
}

/// One wake-up.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    /// One of [`kind`].
    pub kind: u32,
    /// The VM's slot.
    pub vm: u32,
}

assert_layout!(Wake, size 8, { kind: u32 => 0, vm: u32 => 4 });
