//! Whom a packet is exchanged with: looking the far end's address up in the classes' table.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use kvmeter_common::network::{EXTERNAL, NON_IP, direction::TRANSMIT, table};

use super::constant;

/// `ETH_P_IP` as it stands in a packet.
pub const IPV4: u32 = (0x0800_u16.to_be()) as u32;
/// `ETH_P_IPV6`, likewise.
pub const IPV6: u32 = (0x86dd_u16.to_be()) as u32;

/// The class of the far end's address.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn class<const DIRECTION: usize>(skb: *const __sk_buff) -> u64 {
    // Of an IPv4 and of an IPv6 header: where the destination stands, and the source.
    let (at_v4, at_v6) = if DIRECTION == TRANSMIT { (16, 24) } else { (12, 8) };
    // SAFETY: the caller's promise.
    u64::from(unsafe { look_up(skb, at_v4, at_v6) })
}

/// Looks up the address that stands so far behind the beginning of an IPv4 or IPv6 header.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn look_up(skb: *const __sk_buff, at_v4: u32, at_v6: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut protocol = (*skb).protocol;
        // Destination and source address of an Ethernet frame, and its type.
        let mut begin = 14;
        if protocol != IPV4 && protocol != IPV6 {
            (protocol, begin) = behind_tags(skb, protocol);
        }
        if protocol != IPV4 && protocol != IPV6 {
            return NON_IP;
        }
        let mask = constant!(TABLE_MASK);
        if mask == 0 {
            return EXTERNAL;
        }
        if protocol == IPV4 {
            let Some(address) = load::<u32>(skb, begin + at_v4) else { return EXTERNAL };
            walk(table::ROOT_V4, u64::from(u32::from_be(address)) << 32, mask, 4).unwrap_or(EXTERNAL)
        } else {
            let Some(address) = load::<[u64; 2]>(skb, begin + at_v6) else { return EXTERNAL };
            match walk(table::ROOT_V6, u64::from_be(address[0]), mask, 8) {
                Ok(class) => class,
                Err(node) => walk(node, u64::from_be(address[1]), mask, 8).unwrap_or(EXTERNAL),
            }
        }
    }
}

/// What stands behind VLAN tags that are still part of the frame, and where.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn behind_tags(skb: *const __sk_buff, outer: u32) -> (u32, u32) {
    /// Tags that are looked through.
    const TAGS: u32 = 3;
    let (mut protocol, mut begin) = (outer, 14);
    for _ in 0..TAGS {
        if protocol != (0x8100_u16.to_be()) as u32 && protocol != (0x88a8_u16.to_be()) as u32 {
            break;
        }
        // SAFETY: the caller's promise.
        let Some(inner) = (unsafe { load::<u16>(skb, begin + 2) }) else { break };
        (protocol, begin) = (u32::from(inner), begin + 4);
    }
    (protocol, begin)
}

/// Bytes of the packet as they stand there, or `None` beyond its end.
///
/// # Safety
/// `skb` must be the program's context, `T` integers.
#[inline(always)]
pub unsafe fn load<T>(skb: *const __sk_buff, at: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the caller's promise; the value is as long as told, and filled where the answer is 0.
    unsafe {
        let answer = bpf_skb_load_bytes(skb.cast(), at, value.as_mut_ptr().cast(), size_of::<T>() as u32);
        (answer == 0).then(|| value.assume_init())
    }
}

/// Follows the highest bytes of an address: the class, or the node where the rest begins.
///
/// # Safety
/// The table must be there.
#[inline(always)]
unsafe fn walk(root: u16, address: u64, mask: u64, bytes: u32) -> Result<u32, u16> {
    let table = constant!(TABLE) as *const u8;
    let (mut node, mut rest) = (root, address);
    for _ in 0..bytes {
        let offset = (u64::from(node) * table::NODE_BYTES as u64 + ((rest >> 56) << 1)) & mask;
        // SAFETY: the mask keeps the offset inside the table, whose entries are aligned.
        let entry = unsafe { table.add(offset as usize).cast::<u16>().read_volatile() };
        if entry & table::LEAF != 0 {
            return Ok(u32::from(entry & !table::LEAF));
        }
        (node, rest) = (entry, rest << 8);
    }
    Err(node)
}
