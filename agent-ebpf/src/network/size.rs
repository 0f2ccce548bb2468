//! How large a packet is, as the device's own statistics have it: tags that stand beside it, and packets that are cut
//! behind the hook.

use aya_ebpf::bindings::__sk_buff;
use kvmeter_common::network::{direction::TRANSMIT, segment};

use super::{
    class::{IPV4, IPV6, behind_tags, load},
    port,
};

/// Bytes of a VLAN tag.
const VLAN_BYTES: u64 = 4;

/// Whether it is IP, and counts as one packet of its length.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn is_plain<const DIRECTION: usize, const EGRESS: bool>(skb: *const __sk_buff) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let protocol = (*skb).protocol;
        // Cheaper to read than whether there is a tag; where it is of one that is gone the packet is only looked into.
        let tagged = (EGRESS || DIRECTION == TRANSMIT) && (*skb).vlan_proto != 0;
        (protocol == IPV4 || protocol == IPV6) && !tagged && !(EGRESS && is_segmented(skb))
    }
}

/// Whether the kernel may have to segment it behind the hook, because the device does not.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn is_segmented(skb: *const __sk_buff) -> bool {
    // SAFETY: the caller's promise; the interface's header.
    unsafe { (&raw const (*port()).segmented).read_volatile() != 0 && (*skb).gso_size != 0 }
}

/// Bytes and packets as the device's own statistics count them.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn size<const DIRECTION: usize, const EGRESS: bool>(skb: *const __sk_buff) -> (u64, u64) {
    // SAFETY: the caller's promise; the interface's header.
    unsafe {
        let (mut bytes, mut packets) = (u64::from((*skb).len), 1);
        if EGRESS && is_segmented(skb) {
            let both = segments(skb);
            (bytes, packets) = (both & 0xffff_ffff, both >> 32);
        }
        // A tag that stands beside the frame: taken out of it before the ingress hook (net/core/dev.c,
        // `__netif_receive_skb_core`), to be put in by the device behind the egress hook (drivers/net/tun.c,
        // `tun_put_user`). A macvtap gets its frames without (drivers/net/macvlan.c, `macvlan_handle_frame`).
        if (EGRESS || DIRECTION == TRANSMIT) && (*skb).vlan_present != 0 {
            bytes += VLAN_BYTES * packets;
        }
        (bytes, packets)
    }
}

/// A packet that the kernel segments behind the hook, if the device does not do it: bytes of all segments in the lower
/// half, their number in the upper. Out of line: most devices do it.
///
/// # Safety
/// `skb` must be the program's context, that of a packet to be segmented.
#[inline(never)]
unsafe extern "C" fn segments(skb: *const __sk_buff) -> u64 {
    // SAFETY: the caller's promise; the interface's header.
    unsafe {
        let (len, size) = (u64::from((*skb).len), u64::from((*skb).gso_size));
        let (protocol, begin) = behind_tags(skb, (*skb).protocol);
        let (kind, header) = transport(skb, protocol, begin);
        if header == 0 || kind & (&raw const (*port()).segmented).read_volatile() == 0 || header >= len || size == 0 {
            return 1 << 32 | len;
        }
        let packets = (len - header).div_ceil(size);
        packets << 32 | (len + (packets - 1) * header)
    }
}

/// What kind of packet it is, and how long its headers are; 0 = another.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn transport(skb: *const __sk_buff, protocol: u32, begin: u32) -> (u32, u64) {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    // SAFETY: the caller's promise.
    unsafe {
        let (next, at, tcp) = if protocol == IPV4 {
            let (Some(first), Some(next)) = (load::<u8>(skb, begin), load::<u8>(skb, begin + 9)) else { return (0, 0) };
            (next, begin + u32::from(first & 15) * 4, segment::TCP4)
        } else if protocol == IPV6 {
            let Some(next) = load::<u8>(skb, begin + 6) else { return (0, 0) };
            (next, begin + 40, segment::TCP6)
        } else {
            return (0, 0);
        };
        match next {
            TCP => match load::<u8>(skb, at + 12) {
                Some(length) => (tcp, u64::from(at) + u64::from(length >> 4) * 4),
                None => (0, 0),
            },
            UDP => (segment::UDP, u64::from(at) + 8),
            _ => (0, 0),
        }
    }
}
