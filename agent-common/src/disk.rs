//! What a VM's threads read from and wrote to storage.

use crate::assert_layout;

/// Storage I/O as the kernel accounts it to a task (`task_struct.ioac`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoBytes {
    /// Bytes fetched from storage.
    pub read_bytes: u64,
    /// Bytes that were made to be written to storage.
    pub written_bytes: u64,
}

assert_layout!(IoBytes, size 16, { read_bytes: u64 => 0, written_bytes: u64 => 8 });
