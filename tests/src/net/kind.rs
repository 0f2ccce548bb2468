//! One frame of each kind that counting may get wrong, each with a mark of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frame::Frame;

/// A kind of frame.
#[derive(Debug, Clone)]
pub struct Kind {
    /// What a failing test calls it.
    pub name: &'static str,
    /// One of it; its mark is its place in [`kinds`].
    pub frame: Frame,
    /// Bytes of its outermost VLAN tag: 4 or 0.
    pub tag_bytes: u64,
    /// It is still to be segmented, so that only a queue with a virtio_net_hdr takes it whole.
    pub gso: bool,
    /// Its destination is a group.
    pub group: bool,
}

const FROM4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TO4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const FROM6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const TO6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);

/// All sixteen.
#[must_use]
pub fn kinds() -> Vec<Kind> {
    let four = |to: Ipv4Addr, size| Frame::udp(IpAddr::V4(FROM4), IpAddr::V4(to), size);
    let six = |to: Ipv6Addr, size| Frame::udp(IpAddr::V6(FROM6), IpAddr::V6(to), size);
    let gso4 = || Frame::tcp_to_segment(IpAddr::V4(FROM4), IpAddr::V4(TO4), 30_000, 1448);
    let gso6 = || Frame::tcp_to_segment(IpAddr::V6(FROM6), IpAddr::V6(TO6), 30_000, 1428);
    let mut cut = four(TO4, 100);
    cut.bytes.truncate(30);
    let frames = [
        ("IPv4", four(TO4, 100)),
        ("IPv6", six(TO6, 100)),
        ("full", four(TO4, 1514)),
        ("jumbo", four(TO4, 9014)),
        ("IPv4 multicast", four(GROUP4, 100)),
        ("IPv6 multicast", six(GROUP6, 100)),
        ("ARP", Frame::arp(FROM4, TO4)),
        ("VLAN", four(TO4, 100).in_vlan(7)),
        ("VLAN 0, IPv6", six(TO6, 100).in_vlan(0)),
        ("QinQ", four(TO4, 100).in_vlan(7).in_service_vlan(8)),
        ("of no protocol", Frame::raw(60)),
        ("runt", Frame::raw(15)),
        ("cut IPv4 header", cut),
        ("TSO", gso4()),
        ("TSO, IPv6", gso6()),
        ("TSO in a VLAN", gso4().in_vlan(9)),
    ];
    let kind = |(mark, (name, frame)): (u8, (&'static str, Frame))| Kind {
        name,
        tag_bytes: if matches!(frame.bytes[12..14], [0x81, 0] | [0x88, 0xa8]) { 4 } else { 0 },
        gso: frame.vnet[1] != 0,
        group: frame.bytes[0] & 1 == 1,
        frame: frame.marked(mark),
    };
    (0..).zip(frames).map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_mark_of_its_own() {
        let marks: Vec<u8> = kinds().iter().map(|kind| kind.frame.mark()).collect();
        assert_eq!(marks, (0..16).collect::<Vec<u8>>());
        assert_eq!(kinds().iter().filter(|kind| kind.gso).count(), 3);
    }
}
