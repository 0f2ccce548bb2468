//! Frames towards the guest: a packet socket on the interface, as the host's bridge or stack would send them.
//!
//! A frame goes through the queueing discipline and the programs in front of it, unless asked to pass by. Only a
//! `noqueue` or bypassed interface tells a drop to the sender; a queue in between keeps silent and the link's
//! `tx_dropped` alone knows.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};

use nix::sys::socket::{setsockopt, sockopt::SndBufForce};

use super::frame::Frame;
use super::link::Link;
use super::raw;

/// More than any queue of frames holds.
const SEND_BUFFER_BYTES: usize = 1 << 30;

/// Frames and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Frames.
    pub packets: u64,
    /// Bytes, from the Ethernet header to the end.
    pub bytes: u64,
}

impl Amount {
    /// So many frames of one size.
    #[must_use]
    pub fn of(packets: u64, frame: &Frame) -> Self {
        Self { packets, bytes: packets * frame.bytes.len() as u64 }
    }

    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// A sender that knows what it sent.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    vnet: bool,
    accepted: BTreeMap<u8, Amount>,
    refused: u64,
}

impl Sender {
    /// One that sends through this interface.
    pub fn new(link: &Link) -> Result<Self> {
        Self::open(link, false, false)
    }

    /// One whose frames carry their virtio_net_hdr, so that the kernel makes GSO packets of them.
    pub fn vnet(link: &Link) -> Result<Self> {
        Self::open(link, true, false)
    }

    /// One that passes by the queueing discipline and the programs on the way out (`PACKET_QDISC_BYPASS`).
    pub fn bypassing(link: &Link) -> Result<Self> {
        Self::open(link, false, true)
    }

    fn open(link: &Link, vnet: bool, bypass: bool) -> Result<Self> {
        let socket = link.namespace().inside(|| Ok(raw::packet_socket(link.index(), vnet, bypass)?));
        let socket = socket.context("cannot open a packet socket on the interface")?;
        // What waits in a macvtap's queue is still the sender's: with the usual buffer it would wait for its reader.
        setsockopt(&socket, SndBufForce, &SEND_BUFFER_BYTES).context("SO_SNDBUFFORCE needs CAP_NET_ADMIN")?;
        Ok(Self { socket, vnet, accepted: BTreeMap::new(), refused: 0 })
    }

    /// Sends a frame so many times. How many the kernel took: the others it refused for want of room.
    pub fn send(&mut self, frame: &Frame, count: u64) -> Result<u64> {
        let header: &[u8] = if self.vnet { &frame.vnet } else { &[] };
        let (mut left, mut accepted) = (count, 0);
        while left > 0 {
            let batch = usize::try_from(left)?.min(raw::MANY);
            let (sent, refused) = match raw::send_many(&self.socket, header, &frame.bytes, batch) {
                // The first that is refused ends the call: it was tried, those behind it were not.
                Ok(sent) => (sent as u64, u64::from(sent < batch)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => (0, 1),
                Err(error) => return Err(error).context("cannot send through the interface"),
            };
            self.refused += refused;
            accepted += sent;
            left -= sent + refused;
        }
        self.accepted.entry(frame.mark()).or_default().add(Amount::of(accepted, frame));
        Ok(accepted)
    }

    /// What the kernel took, by the frames' mark.
    #[must_use]
    pub const fn accepted(&self) -> &BTreeMap<u8, Amount> {
        &self.accepted
    }

    /// What the kernel took in all.
    #[must_use]
    pub fn total(&self) -> Amount {
        let mut sum = Amount::default();
        self.accepted.values().for_each(|amount| sum.add(*amount));
        sum
    }

    /// Frames that the kernel refused for want of room: dropped, and told so.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}
