//! What the bus carries: a fact with its ledger line, once that line is durable. Pure.
//!
//! Made from what the ledger's writer committed and from nothing else, so whoever holds an event may act on it (law 8).

use std::sync::Arc;

use crate::ledger::{Committed, Draft, Kind};

/// What an event is about, coarser than its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Happening {
    /// A VM began to be billed.
    Started,
    /// Its shape or what is known of it changed, or a line was corrected.
    Changed,
    /// A VM's end.
    Stopped,
    /// Disks, images or snapshots.
    Storage,
    /// A running VM's usage so far.
    Usage,
    /// The agent, the host or the ledger.
    Agent,
}

impl Happening {
    /// What a kind of line is about.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::VmComputeStart => Self::Started,
            Kind::VmComputeResize | Kind::VmIdentity | Kind::Correction => Self::Changed,
            Kind::VmComputeStop => Self::Stopped,
            Kind::VmStorageStart
            | Kind::VmStorageStop
            | Kind::VmStorageResize
            | Kind::SnapStorageStart
            | Kind::SnapStorageStop
            | Kind::SnapStorageResize => Self::Storage,
            Kind::VmComputeUsage => Self::Usage,
            Kind::HostSuspend
            | Kind::AgentUp
            | Kind::AgentDown
            | Kind::AgentGap
            | Kind::LedgerRecovered
            | Kind::ClockStep => Self::Agent,
        }
    }

    /// Whether it is a step in the life of a VM or of something stored, which is what most subscribers want.
    #[must_use]
    pub const fn is_lifecycle(self) -> bool {
        matches!(self, Self::Started | Self::Changed | Self::Stopped | Self::Storage)
    }
}

/// A durable fact.
#[derive(Debug)]
pub struct Event {
    /// What it is about.
    pub happening: Happening,
    /// The kind on its line.
    pub kind: Kind,
    /// Its line's number.
    pub seq: u64,
    /// Its line's id.
    pub id: String,
    /// The line, without its newline.
    pub line: Arc<[u8]>,
    /// The fact, for subscribers inside the agent.
    pub fact: Draft,
}

impl From<Committed> for Event {
    fn from(Committed { written, fact }: Committed) -> Self {
        let happening = Happening::of(written.kind);
        Self { happening, kind: written.kind, seq: written.seq, id: written.id, line: written.line, fact }
    }
}
