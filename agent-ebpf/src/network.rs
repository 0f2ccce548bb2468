//! Counting packets at a VM's interface, one program a direction. An instance belongs to one interface: what it needs to
//! know of it are constants that the agent puts in before loading (`kvmeter_common::network::constant`).

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_map_update_elem,
        bpf_skb_load_bytes,
    },
    macros::classifier,
    programs::TcContext,
};
use kvmeter_common::network::{
    ACCOUNTS, BLOCK_BYTES, CLASSES, Claim, EXTERNAL, Flow, Header, NON_IP, OFFSET_MASK, constant,
    direction::{RECEIVE, TRANSMIT},
    segment, state, table,
};

use crate::counter::add;

/// Goes on with the next program on the hook (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;

/// The value that the agent put in place of a constant.
macro_rules! constant {
    ($which:ident) => {{
        let value: u64;
        // SAFETY: loads a constant.
        unsafe { asm!("{0} = {1} ll", out(reg) value, const constant::$which, options(pure, nomem, nostack)) };
        value
    }};
}

/// Which of a device's hooks.
#[derive(Clone, Copy, PartialEq)]
enum Hook {
    /// What the device receives.
    Ingress,
    /// What it sends.
    Egress,
}

/// From the guest, at the ingress hook of a tap.
#[classifier]
pub fn tap_transmit(ctx: TcContext) -> i32 {
    count(&ctx, transmit_account(), TRANSMIT, Hook::Ingress)
}

/// To the guest, at the egress hook of a tap.
#[classifier]
pub fn tap_receive(ctx: TcContext) -> i32 {
    count(&ctx, receive_account(), RECEIVE, Hook::Egress)
}

/// From the guest, at the egress hook of a macvtap.
#[classifier]
pub fn macvtap_transmit(ctx: TcContext) -> i32 {
    count(&ctx, transmit_account(), TRANSMIT, Hook::Egress)
}

/// To the guest, at the ingress hook of a macvtap.
#[classifier]
pub fn macvtap_receive(ctx: TcContext) -> i32 {
    count(&ctx, receive_account(), RECEIVE, Hook::Ingress)
}

#[inline(always)]
fn port() -> *mut Header {
    constant!(PORT) as *mut Header
}

#[inline(always)]
fn receive_account() -> u64 {
    // SAFETY: the map value of this interface.
    unsafe { (&raw const (*port()).active).read_volatile() }
}

#[inline(always)]
fn transmit_account() -> u64 {
    let active = receive_account();
    if constant!(SPLIT) == 0 {
        return active;
    }
    let writer = bpf_get_current_pid_tgid() >> 32;
    if active >> 32 == writer { active } else { switch(writer, active) }
}

/// Another process writes than before: goes on with its account, or with a new one. Off the hot path.
#[inline(always)]
fn switch(writer: u64, active: u64) -> u64 {
    // Idle: somebody else's packet, put aside for later.
    if writer == 0 {
        return active;
    }
    let port = port();
    // SAFETY: the map value of this interface; heads are written by who claimed them.
    unsafe {
        for number in 0..ACCOUNTS {
            let head = &raw mut (*port).heads[number];
            if (&raw const (*head).writer).read_volatile() == writer as u32
                && (&raw const (*head).state).read_volatile() == state::HELD
            {
                return activate(port, number, writer);
            }
        }
        for number in 0..ACCOUNTS {
            let head = &raw mut (*port).heads[number];
            let phase = match (&raw const (*head).state).read_volatile() {
                state::FREE => 0,
                state::OPEN => 1,
                _ => continue,
            };
            let claim = Claim { port: (*port).id, account: number as u16, phase };
            match take(claim, writer as u32) {
                Taken::Mine => {
                    if phase == 0 {
                        (*head).serial = bpf_ktime_get_ns();
                    }
                    (&raw mut (*head).writer).write_volatile(writer as u32);
                    (&raw mut (*head).state).write_volatile(state::HELD);
                    return activate(port, number, writer);
                }
                // The same process on another CPU.
                Taken::Ours => return (number * BLOCK_BYTES) as u64,
                Taken::Other => {}
            }
        }
        add(&raw mut (*port).shared, 1);
    }
    active
}

/// Whose a claim is.
enum Taken {
    Mine,
    Ours,
    Other,
}

#[inline(always)]
fn take(claim: Claim, writer: u32) -> Taken {
    let claims = constant!(CLAIMS) as *mut core::ffi::c_void;
    // SAFETY: the map of claims; key and value are of its sizes.
    unsafe {
        if bpf_map_update_elem(claims, (&raw const claim).cast(), (&raw const writer).cast(), u64::from(BPF_NOEXIST))
            == 0
        {
            return Taken::Mine;
        }
        let holder = bpf_map_lookup_elem(claims, (&raw const claim).cast()).cast::<u32>();
        if !holder.is_null() && *holder == writer { Taken::Ours } else { Taken::Other }
    }
}

/// # Safety
/// `port` must be the map value of this interface.
#[inline(always)]
unsafe fn activate(port: *mut Header, number: usize, writer: u64) -> u64 {
    let active = writer << 32 | (number * BLOCK_BYTES) as u64;
    // SAFETY: the caller's promise; one aligned word.
    unsafe { (&raw mut (*port).active).write_volatile(active) };
    active
}

#[inline(always)]
fn count(ctx: &TcContext, account: u64, direction: usize, hook: Hook) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context of this program.
    let (class, (bytes, packets)) = unsafe { (class(skb, direction), size(skb, direction, hook)) };
    let place = direction * CLASSES + (class as usize & (CLASSES - 1));
    // SAFETY: no precondition.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    let lanes = constant!(LANES);
    // SAFETY: both lanes are inside the interface's blocks.
    unsafe {
        if cpu < lanes {
            // Network programs run with softirqs off: nothing else on this CPU comes in between.
            let flow = flow(cpu, account, place);
            (&raw mut (*flow).packets).write_volatile((&raw const (*flow).packets).read_volatile() + packets);
            (&raw mut (*flow).bytes).write_volatile((&raw const (*flow).bytes).read_volatile() + bytes);
        } else {
            let flow = flow(lanes, account, place);
            add(&raw mut (*flow).packets, packets);
            add(&raw mut (*flow).bytes, bytes);
        }
    }
    NEXT
}

/// # Safety
/// `lane` must not exceed what the interface has.
#[inline(always)]
unsafe fn flow(lane: u64, account: u64, place: usize) -> *mut Flow {
    let offset = BLOCK_BYTES as u64 + lane * (ACCOUNTS * BLOCK_BYTES) as u64 + (account & OFFSET_MASK);
    // SAFETY: the caller's promise; the mask keeps the account among a lane's, the place is below two times the classes.
    unsafe { port().byte_add(offset as usize).cast::<Flow>().add(place) }
}

/// Bytes and packets as the device's own statistics count them.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn size(skb: *const __sk_buff, direction: usize, hook: Hook) -> (u64, u64) {
    // SAFETY: the caller's promise; the interface's header.
    unsafe {
        let (mut bytes, mut packets) = (u64::from((*skb).len), 1);
        if hook == Hook::Egress && (*skb).gso_size != 0 && (&raw const (*port()).segmented).read_volatile() != 0 {
            (bytes, packets) = segments(skb);
        }
        // A tag that stands beside the frame: taken out of it before the ingress hook (net/core/dev.c,
        // `__netif_receive_skb_core`), to be put in by the device behind the egress hook (drivers/net/tun.c,
        // `tun_put_user`). A macvtap gets its frames without (drivers/net/macvlan.c, `macvlan_handle_frame`).
        if (*skb).vlan_present != 0 && (hook == Hook::Egress || direction == TRANSMIT) {
            bytes += VLAN_BYTES * packets;
        }
        (bytes, packets)
    }
}

/// Bytes of a VLAN tag.
const VLAN_BYTES: u64 = 4;

/// A packet that the kernel segments behind the hook, if the device does not do it: the sizes of its segments.
///
/// # Safety
/// `skb` must be the program's context, that of a packet to be segmented.
#[inline(always)]
unsafe fn segments(skb: *const __sk_buff) -> (u64, u64) {
    // SAFETY: the caller's promise; the interface's header.
    unsafe {
        let (len, size) = (u64::from((*skb).len), u64::from((*skb).gso_size));
        let (protocol, begin) = behind_tags(skb, (*skb).protocol);
        let (kind, header) = transport(skb, protocol, begin);
        if header == 0 || kind & (&raw const (*port()).segmented).read_volatile() == 0 || header >= len || size == 0 {
            return (len, 1);
        }
        let packets = (len - header).div_ceil(size);
        (len + (packets - 1) * header, packets)
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

const IPV4: u32 = (0x0800_u16.to_be()) as u32;
const IPV6: u32 = (0x86dd_u16.to_be()) as u32;

/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn class(skb: *const __sk_buff, direction: usize) -> u32 {
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
            let Some(address) = load::<u32>(skb, begin + if direction == TRANSMIT { 16 } else { 12 }) else {
                return EXTERNAL;
            };
            walk(table::ROOT_V4, u64::from(u32::from_be(address)) << 32, mask, 4).unwrap_or(EXTERNAL)
        } else {
            let at = begin + if direction == TRANSMIT { 24 } else { 8 };
            let Some(address) = load::<[u64; 2]>(skb, at) else { return EXTERNAL };
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
unsafe fn behind_tags(skb: *const __sk_buff, outer: u32) -> (u32, u32) {
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

/// # Safety
/// `skb` must be the program's context, `T` integers.
#[inline(always)]
unsafe fn load<T>(skb: *const __sk_buff, at: u32) -> Option<T> {
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
