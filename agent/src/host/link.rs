//! Network interfaces as the kernel announces them over rtnetlink: what exists, what changed, what passed.
//!
//! Three messages are all that is spoken (GETLINK, GETSTATS, and the announcements of RTNLGRP_LINK), so they are read
//! here and not by a crate. Announcements are wake-ups that the kernel drops when we are slow: an overflow is told, and
//! whoever hears it asks for everything again.

mod device;
mod message;
mod socket;

pub use device::LinkDevice;
pub use socket::{LinkOutcome, LinkRequests, LinkSocket};

use crate::account::network::InterfaceKind;

/// Counters of a link (`struct rtnl_link_stats64`), from the host's side: rx is what the host receives from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets the host received.
    pub rx_packets: u64,
    /// Bytes the host received.
    pub rx_bytes: u64,
    /// Packets the host sent.
    pub tx_packets: u64,
    /// Bytes the host sent.
    pub tx_bytes: u64,
    /// Packets from the link that were dropped.
    pub rx_dropped: u64,
    /// Packets to the link that were dropped; their bytes are nowhere counted.
    pub tx_dropped: u64,
}

/// The queueing discipline at a link, through which packets go to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Its number; another discipline has another, or begins anew.
    pub handle: u32,
    /// Packets it dropped: they reached the link's hook and are in none of its counters. Wraps.
    pub drops: u32,
}

/// One link as a message shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in its namespace while it exists.
    pub ifindex: u32,
    /// Its name now: valid UTF-8, whatever the kernel has.
    pub name: String,
    /// What kind of a VM's interface it can be; `None` for everything else (bridges, veth, …).
    pub kind: Option<InterfaceKind>,
    /// Somebody holds the other end (of a tap), or the lower device has carrier.
    pub carrier: bool,
    /// How often carrier came since the link exists (Linux 4.16): for a tap, how often it was opened again.
    pub carrier_ups: Option<u32>,
    /// How often carrier came or went: for a tap, it changes whenever another opens it.
    pub carrier_changes: Option<u32>,
    /// Its counters at the instant of the message.
    pub stats: Option<LinkStats>,
}

/// What an announcement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is new, or something about it changed.
    New(Link),
    /// It left this namespace; `moved` if it goes on existing in another.
    Gone {
        /// The link as it was at its end.
        link: Link,
        /// It went to another namespace.
        moved: bool,
    },
}

#[cfg(test)]
mod tests;
