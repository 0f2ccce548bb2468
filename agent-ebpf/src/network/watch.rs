//! Who opens a tap: a filter on a socket that listens for announcements of links and takes in none of them.
//!
//! The kernel announces an opening from inside the request for it (drivers/net/tun.c, `tun_set_iff`), before carrier
//! comes and under the lock under which all links change: the last announcement without carrier is the opener's, and
//! filters run in the task that announces. A device that is down when it is opened is not announced.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_map_lookup_elem, macros::socket_filter, programs::SkBuffContext};
use kvmeter_common::network::held;

use super::{account::writer, class::load, constant};

/// `RTM_NEWLINK`
const NEW_LINK: u16 = 16;
/// `IFLA_CARRIER`
const CARRIER: u32 = 33;
/// `IFLA_CARRIER_CHANGES`
const CARRIER_CHANGES: u32 = 35;
/// Attributes that are looked at; both stand among the first forty.
const ATTRIBUTES: u32 = 64;
/// Bytes of `struct nlmsghdr` and `struct ifinfomsg`.
const HEADERS: u32 = 32;

/// Takes in nothing.
#[socket_filter]
pub fn link_watch(ctx: SkBuffContext) -> i64 {
    // SAFETY: the context of this program.
    let _ = unsafe { watch(ctx.skb.skb) };
    0
}

/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn watch(skb: *const __sk_buff) -> Option<()> {
    // SAFETY: the caller's promise; the map of openers, its sizes, and integers.
    unsafe {
        if load::<u16>(skb, 4)? != NEW_LINK || load::<u8>(skb, 16)? != 0 {
            return None;
        }
        let key = constant!(SPACE) << 32 | u64::from(load::<u32>(skb, 20)?);
        let openers = constant!(OPENERS) as *mut core::ffi::c_void;
        let opener = bpf_map_lookup_elem(openers, (&raw const key).cast()).cast::<u64>();
        if opener.is_null() {
            return None;
        }
        let (mut at, mut carrier, mut changes) = (HEADERS, 1, None);
        for _ in 0..ATTRIBUTES {
            let head = load::<u32>(skb, at)?;
            let (length, kind) = (head & 0xffff, head >> 16 & 0x3fff);
            if length < 4 {
                return None;
            }
            if kind == CARRIER {
                carrier = load::<u8>(skb, at + 4)?;
            } else if kind == CARRIER_CHANGES {
                changes = load::<u32>(skb, at + 4);
                break;
            }
            at += (length + 3) & !3;
        }
        if carrier == 0 {
            // The generation that begins when carrier comes. What is announced of it first is the end of the one before, by
            // who closed the device (`tun_detach`): who opens it next may come when nobody listens any more.
            let next = changes?.wrapping_add(1);
            let again = (opener.read_volatile() >> 32) as u32 == next;
            opener.write_volatile(held(next, if again { writer() as u32 } else { 0 }));
        }
        Some(())
    }
}
