//! Frames of every kind that counting may get wrong, built byte by byte.
//!
//! The low four bits of a frame's last byte are its *mark*: whoever counts can tell what kind a frame was by it alone,
//! so a guest's program, a sender and a receiver count by mark without parsing anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Marks there are.
pub const MARKS: usize = 16;
/// Ethernet header.
pub const ETHERNET: usize = 14;
/// Source of frames that nobody said otherwise of.
pub const HOST_ADDRESS: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Destination of frames that nobody said otherwise of; nobody's address on the host, so that its stack answers nothing.
pub const GUEST_ADDRESS: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
const VNET_NEEDS_CSUM: u8 = 1;
const VNET_GSO_TCPV4: u8 = 1;
const VNET_GSO_TCPV6: u8 = 4;

/// A frame, and the virtio_net_hdr that says what is left to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// From the Ethernet header to the last byte; no frame check sequence.
    pub bytes: Vec<u8>,
    /// All zeroes: nothing is left to do.
    pub vnet: [u8; 10],
}

impl Frame {
    /// A UDP packet from one address to another (both IPv4 or both IPv6), `size` bytes from the Ethernet header to the
    /// end; at least its headers and one byte.
    #[must_use]
    pub fn udp(from: IpAddr, to: IpAddr, size: usize) -> Self {
        let head = ETHERNET + ip_header(to);
        let mut inner = vec![0; size.max(head + 9) - head];
        let length = word(inner.len());
        inner[..6].copy_from_slice(&[[0x30, 0x39], [0, 9], length].concat());
        inner[8..].iter_mut().zip(0_u8..=255).for_each(|(byte, value)| *byte = value);
        let sum = checksum(&inner, pseudo(from, to, UDP, inner.len()));
        // Zero would mean that there is none.
        inner[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
        Self::ip(from, to, UDP, &inner)
    }

    /// A TCP packet that is still to be cut into segments of `segment` bytes of payload, `size` bytes in all (up to what
    /// an IP header can say), as a guest with TSO gives it to its device.
    #[must_use]
    pub fn tcp_to_segment(from: IpAddr, to: IpAddr, size: usize, segment: u16) -> Self {
        let head = ETHERNET + ip_header(to);
        let mut inner = vec![0x55; size.max(head + TCP_HEADER + 1) - head];
        inner[..TCP_HEADER].fill(0);
        inner[..4].copy_from_slice(&[0x30, 0x39, 0, 9]);
        // Header of five words; ACK.
        inner[12..16].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
        let partial = !checksum(&[], pseudo(from, to, TCP, inner.len()));
        inner[16..18].copy_from_slice(&partial.to_be_bytes());
        let mut frame = Self::ip(from, to, TCP, &inner);
        let kind = if to.is_ipv4() { VNET_GSO_TCPV4 } else { VNET_GSO_TCPV6 };
        let headers = u16::try_from(head + TCP_HEADER).unwrap_or_default().to_le_bytes();
        let start = u16::try_from(head).unwrap_or_default().to_le_bytes();
        frame.vnet[..2].copy_from_slice(&[VNET_NEEDS_CSUM, kind]);
        frame.vnet[2..].copy_from_slice(&[headers, segment.to_le_bytes(), start, [16, 0]].concat());
        frame
    }

    /// An ARP request who has `to`, padded to 60 bytes as a device would.
    #[must_use]
    pub fn arp(from: Ipv4Addr, to: Ipv4Addr) -> Self {
        let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
        body.extend([&HOST_ADDRESS[..], &from.octets(), &[0; 6], &to.octets()].concat());
        body.resize(60 - ETHERNET, 0);
        Self::ethernet(ARP, &body).to_address([0xff; 6])
    }

    /// A frame of `size` bytes, at least an Ethernet header and one byte, that no stack can read: less than 60 is a runt.
    #[must_use]
    pub fn raw(size: usize) -> Self {
        Self::ethernet(0x88b5, &vec![0; size.max(ETHERNET + 1) - ETHERNET])
    }

    /// To this Ethernet address.
    #[must_use]
    pub fn to_address(mut self, address: [u8; 6]) -> Self {
        self.bytes[..6].copy_from_slice(&address);
        self
    }

    /// From this Ethernet address.
    #[must_use]
    pub fn from_address(mut self, address: [u8; 6]) -> Self {
        self.bytes[6..12].copy_from_slice(&address);
        self
    }

    /// Inside a VLAN (802.1Q): four bytes longer.
    #[must_use]
    pub fn in_vlan(self, id: u16) -> Self {
        self.tagged(VLAN, id)
    }

    /// Inside a service VLAN (802.1ad): four bytes longer.
    #[must_use]
    pub fn in_service_vlan(self, id: u16) -> Self {
        self.tagged(QINQ, id)
    }

    /// With this mark (its low four bits count). It changes a checksum that nobody on the way looks at.
    #[must_use]
    pub fn marked(mut self, mark: u8) -> Self {
        if let Some(last) = self.bytes.last_mut() {
            *last = mark;
        }
        self
    }

    /// Its mark.
    #[must_use]
    pub fn mark(&self) -> u8 {
        mark(&self.bytes)
    }

    fn tagged(mut self, kind: u16, id: u16) -> Self {
        let tag = [kind.to_be_bytes(), (id & 0xfff).to_be_bytes()].concat();
        self.bytes.splice(12..12, tag);
        if self.vnet[1] != 0 {
            // Where the headers end and the checksum starts has moved too.
            for at in [2, 6] {
                let moved = u16::from_le_bytes([self.vnet[at], self.vnet[at + 1]]) + 4;
                self.vnet[at..at + 2].copy_from_slice(&moved.to_le_bytes());
            }
        }
        self
    }

    fn ethernet(kind: u16, body: &[u8]) -> Self {
        let mut bytes = [GUEST_ADDRESS, HOST_ADDRESS].concat();
        bytes.extend(kind.to_be_bytes());
        bytes.extend(body);
        Self { bytes, vnet: [0; 10] }
    }

    fn ip(from: IpAddr, to: IpAddr, protocol: u8, inner: &[u8]) -> Self {
        let (kind, header) = match (from, to) {
            (IpAddr::V6(from), IpAddr::V6(to)) => (IPV6, ipv6(from, to, protocol, inner.len())),
            (from, to) => (IPV4, ipv4(four(from), four(to), protocol, inner.len())),
        };
        let frame = Self::ethernet(kind, &[&header, inner].concat());
        match to {
            IpAddr::V4(to) if to.is_multicast() => {
                let [_, b, c, d] = to.octets();
                frame.to_address([0x01, 0, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(to) if to.is_multicast() => {
                let [.., a, b, c, d] = to.octets();
                frame.to_address([0x33, 0x33, a, b, c, d])
            }
            _ => frame,
        }
    }
}

/// The mark of a frame, 0 of one without a byte.
#[must_use]
pub fn mark(frame: &[u8]) -> u8 {
    frame.last().map_or(0, |last| last & 0xf)
}

fn four(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => address.to_ipv4().unwrap_or(Ipv4Addr::UNSPECIFIED),
    }
}

fn ip_header(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(word(length + 20));
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header, 0);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(word(length));
    header.extend([protocol, 64]);
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

fn word(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// The sum over what TCP and UDP protect besides themselves.
fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> u64 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    sum(&octets(from)) + sum(&octets(to)) + u64::from(protocol) + length as u64
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))).sum()
}

/// The internet checksum of these bytes and what was summed before.
fn checksum(bytes: &[u8], before: u64) -> u16 {
    let mut total = sum(bytes) + before;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const TO: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_frame_has_the_size_that_was_asked_for() {
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        for size in [64, 1514, 9014] {
            assert_eq!(Frame::udp(FROM, TO, size).bytes.len(), size);
            assert_eq!(Frame::udp(six, six, size).bytes.len(), size);
            assert_eq!(Frame::udp(FROM, TO, size).in_vlan(5).in_service_vlan(6).bytes.len(), size + 8);
        }
        assert_eq!((Frame::raw(20).bytes.len(), Frame::raw(0).bytes.len()), (20, 15));
    }

    #[test]
    fn checksums_are_those_a_receiver_computes() {
        let frame = Frame::udp(FROM, TO, 99).bytes;
        assert_eq!(checksum(&frame[14..34], 0), 0);
        assert_eq!(checksum(&frame[34..], pseudo(FROM, TO, UDP, 99 - 34)), 0);
    }

    #[test]
    fn a_mark_is_in_the_last_byte() {
        assert_eq!(Frame::arp(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).marked(0x1b).mark(), 0xb);
        assert_eq!(mark(&[]), 0);
    }
}
