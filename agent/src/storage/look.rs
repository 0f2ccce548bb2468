//! What a look at a pool, or at single files, found: plain values between those who look and the model.

use super::{FileId, Name};
use crate::clock::Instant2;

/// Where files are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The pool with this number.
    Pool(usize),
    /// Single files of VMs, outside of pools.
    Loose,
}

/// What has become of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// It is there.
    There,
    /// It has no name here any more, but the kernel has not let it go: somebody has it open, or it was moved away.
    Nameless,
    /// It has no name any more, and nothing says that somebody has it. Its directory was last changed then, Unix
    /// nanoseconds.
    Gone {
        /// It was gone by then.
        by_unix_ns: u64,
    },
    /// The kernel let it go at that instant.
    Freed(Instant2),
    /// It cannot be looked at, so nothing is known: not mounted, not allowed.
    Unknown(String),
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub id: FileId,
    /// Where.
    pub path: String,
    /// What its name says; nothing for a file that is no pool's.
    pub name: Option<Name>,
    /// Bytes a guest sees; unset if they cannot be told.
    pub capacity_bytes: Option<u64>,
    /// Bytes it takes.
    pub allocated_bytes: u64,
    /// The file it is a change to, by its header.
    pub backing: Option<String>,
    /// What has become of it.
    pub state: FileState,
}

/// What a look left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Names that fit a pattern but are neither files nor directories: links, sockets, devices.
    pub not_files: u64,
    /// Files and directories beyond the bounds.
    pub beyond: u64,
    /// What could not be looked at.
    pub failed: u64,
    /// Files that could not be watched: they are looked at once an interval only.
    pub unwatched: u64,
    /// Files without an instant of birth.
    pub birthless: u64,
}

/// How a place is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceState {
    /// Why nothing of it can be told now.
    pub why: Option<String>,
    /// What others do to it goes unnoticed between two looks: a network's file system.
    pub remote: bool,
    /// What was left out.
    pub skipped: Skipped,
    /// How long the look took, nanoseconds.
    pub took_ns: u64,
}

/// What one look found: everything that is known of at this place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where.
    pub place: Place,
    /// When it began.
    pub at: Instant2,
    /// Each file, whatever became of it.
    pub files: Vec<Found>,
    /// How the place is.
    pub state: PlaceState,
}
