//! Bytes and packets, both ways.

use serde::{Deserialize, Serialize};

/// Traffic of one class on one interface. Every number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 4]", into = "[u64; 4]")]
pub struct Traffic {
    /// Bytes into the guest.
    pub receive_bytes: u64,
    /// Packets into the guest.
    pub receive_packets: u64,
    /// Bytes out of the guest.
    pub transmit_bytes: u64,
    /// Packets out of the guest.
    pub transmit_packets: u64,
}

impl Traffic {
    const fn parts(&self) -> [u64; 4] {
        [self.receive_bytes, self.receive_packets, self.transmit_bytes, self.transmit_packets]
    }

    const fn from_parts(parts: [u64; 4]) -> Self {
        let [receive_bytes, receive_packets, transmit_bytes, transmit_packets] = parts;
        Self { receive_bytes, receive_packets, transmit_bytes, transmit_packets }
    }

    fn with(&self, other: &Self, each: fn(u64, u64) -> u64) -> Self {
        let (mine, theirs) = (self.parts(), other.parts());
        Self::from_parts(std::array::from_fn(|at| each(mine[at], theirs[at])))
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What this has more than `other`, number by number, and never less than nothing.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    /// The higher of both, number by number.
    #[must_use]
    pub fn at_least(&self, other: &Self) -> Self {
        self.with(other, u64::max)
    }
}

impl From<[u64; 4]> for Traffic {
    fn from(parts: [u64; 4]) -> Self {
        Self::from_parts(parts)
    }
}

impl From<Traffic> for [u64; 4] {
    fn from(traffic: Traffic) -> Self {
        traffic.parts()
    }
}
