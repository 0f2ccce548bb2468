//! The thread-id table: thread id to thread slot.

use crate::{assert_layout, limits};

/// Slots of sixteen neighbouring thread ids; 0 = not a thread of a VM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TidWord {
    /// Thread slot by the low bits of the thread id.
    pub slots: [u32; limits::TIDS_PER_WORD as usize],
}

assert_layout!(TidWord, size 64, { slots: [u32; 16] => 0 });

/// Element of the table that holds a thread id.
#[must_use]
pub const fn word(tid: u32) -> u32 {
    tid / limits::TIDS_PER_WORD
}

/// Place of a thread id inside its element.
#[must_use]
pub const fn place(tid: u32) -> usize {
    (tid % limits::TIDS_PER_WORD) as usize
}
