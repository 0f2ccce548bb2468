//! Frames of every kind.

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const TAG: u16 = 0x8100;
const OUTER_TAG: u16 = 0x88a8;
/// Bytes of a virtio header without the number of buffers.
pub(super) const VIRTIO: usize = 10;

/// An Ethernet frame with tags (type, number) and a payload.
pub(super) fn frame(to: [u8; 6], tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to.as_slice(), &[2, 0, 0, 0, 0, 1]].concat();
    for (kind, number) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(number.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(super) const BROADCAST: [u8; 6] = [0xff; 6];
const MULTICAST: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 1];
pub(super) const UNICAST: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("16 bits")
}

/// An IPv4 packet.
pub(super) fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a packet");
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from.into_iter().chain(to));
    let check = sum(&packet);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet.
pub(super) fn ipv6(from: [u8; 16], to: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).expect("a packet").to_be_bytes());
    packet.extend([59, 64]);
    packet.extend(from.into_iter().chain(to));
    packet.extend(payload);
    packet
}

/// Frames that a network stack takes, of every kind; none longer than an MTU of 1,500 allows.
pub(super) fn kinds() -> Vec<Vec<u8>> {
    let four = ipv4([10, 0, 0, 1], [10, 0, 0, 2], 17, &[7; 100]);
    let six = ipv6([0xfd; 16], [0xfe; 16], &[7; 200]);
    vec![
        frame(UNICAST, &[], IPV4, &four),
        frame(UNICAST, &[], IPV6, &six),
        frame(BROADCAST, &[], ARP, &[1; 28]),
        frame(BROADCAST, &[], ARP, &[1; 46]),
        frame(MULTICAST, &[], IPV4, &four),
        frame(UNICAST, &[(TAG, 5)], IPV4, &four),
        frame(UNICAST, &[(TAG, 0)], IPV6, &six),
        frame(UNICAST, &[(OUTER_TAG, 5)], IPV4, &four),
        frame(UNICAST, &[(OUTER_TAG, 5), (TAG, 6)], IPV4, &four),
        frame(UNICAST, &[(TAG, 5), (TAG, 6)], IPV6, &six),
        // The shortest there are, and one whose type is a length.
        frame(UNICAST, &[], IPV4, &[]),
        frame(UNICAST, &[], IPV6, &[1]),
        frame(UNICAST, &[], 16, &[0x42; 16]),
        frame(UNICAST, &[], IPV4, &ipv4([1, 1, 1, 1], [2, 2, 2, 2], 1, &[7; 1_480])),
    ]
}

/// TCP over IPv4 or IPv6, to be cut into segments of `size` bytes, with the header that says so.
pub(super) fn large(tags: &[(u16, u16)], six: bool, payload: usize, size: u16) -> Vec<u8> {
    let tcp =
        [&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0], vec![7; payload].as_slice()].concat();
    let (ethertype, mut packet) = if six {
        (IPV6, ipv6([0xfd; 16], [0xfe; 16], &tcp))
    } else {
        (IPV4, ipv4([10, 0, 0, 1], [10, 0, 0, 2], 6, &tcp))
    };
    if six {
        packet[6] = 6;
    }
    let begin = 14 + 4 * tags.len() + if six { 40 } else { 20 };
    // flags: a checksum is to be filled in; kind of segments; then lengths and places
    let mut whole = vec![1, if six { 4 } else { 1 }];
    for word in [begin + 20, usize::from(size), begin, 16] {
        whole.extend(u16::try_from(word).expect("16 bits").to_ne_bytes());
    }
    whole.extend(frame(UNICAST, tags, ethertype, &packet));
    whole
}

pub(super) const TAGGED: [(u16, u16); 1] = [(TAG, 5)];
pub(super) const DOUBLE: [(u16, u16); 2] = [(OUTER_TAG, 5), (TAG, 6)];
