//! What is told of interfaces: accounts of what passed.

pub use kvmeter_common::network::{CLASSES, Flow};
use serde::{Deserialize, Serialize};

/// How programs are attached here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// By a link, which can outlive the agent (Linux 6.6).
    Tcx,
    /// As a filter of the clsact queueing discipline.
    Clsact,
}

/// An interface that is or was counted; never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub(super) u32);

impl PortId {
    /// Its number, also for a later agent.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// What passed while one process had the interface. Every number is cumulative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// CLOCK_MONOTONIC nanoseconds of its beginning; grows from account to account of an interface.
    pub serial: u64,
    /// Thread group that wrote first, or that holds the interface; 0 = none has; or [`NOBODY`].
    pub writer: u32,
    /// Out of the guest, by class.
    pub transmit: [Flow; CLASSES],
    /// Into the guest, by class.
    pub receive: [Flow; CLASSES],
}

/// The writer of what passed while nobody was known to hold the interface.
pub const NOBODY: u32 = u32::MAX;

/// Who holds a tap, and in which generation of it: how often its carrier came and went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Carrier changes.
    pub generation: u32,
    /// The process.
    pub tgid: u32,
}

/// What could not be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Packets that went to another writer's account because none was free.
    pub shared_packets: u64,
}
