//! What agents leave each other beside the tables, where these outlive them. No kernel program reads it.

use crate::{assert_layout, loss};

/// One for all tables that are kept together. Instants are CLOCK_BOOTTIME nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Since when the programs count into these tables.
    pub since_ns: u64,
    /// When an agent read them last.
    pub read_ns: u64,
    /// Losses by stage that an agent has seen: what was lost beyond them, nobody was there to tell.
    pub losses: [u64; loss::STAGES.len()],
}

assert_layout!(Header, size 80, { since_ns: u64 => 0, read_ns: u64 => 8, losses: [u64; 8] => 16 });
