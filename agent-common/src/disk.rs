//! What a process that was reaped had read and written in all.

use crate::assert_layout;

/// Words of a [`Final`], as the agent reads them out of the map.
pub const WORDS: usize = 5;

/// Storage I/O of a whole process, as the kernel added it up when it was reaped (`signal_struct.ioac`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Final {
    /// The leader's `start_boottime`, nanoseconds: which process of this id.
    pub start_ns: u64,
    /// Bytes fetched from storage.
    pub read_bytes: u64,
    /// Bytes that were made to be written to storage.
    pub written_bytes: u64,
    /// Slot of the VM, for the wake-up.
    pub slot: u64,
    /// 1 once the numbers are there.
    pub done: u64,
}

assert_layout!(Final, size 40, {
    start_ns: u64 => 0,
    read_bytes: u64 => 8,
    written_bytes: u64 => 16,
    slot: u64 => 24,
    done: u64 => 32,
});

const _: () = assert!(size_of::<Final>() == WORDS * size_of::<u64>(), "read as words");
