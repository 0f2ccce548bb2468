//! Who opens a tap: a filter on a socket that listens for announcements of links and takes in none of them.
//!
//! The kernel announces an opening from inside the request for it (drivers/net/tun.c, `tun_set_iff`), before carrier
//! comes and under the lock under which all links change: the last announcement without carrier is the opener's, and
//! filters run in the task that announces. A device that is down when it is opened is not announced.
//!
//! When nobody listens any more, the last that was heard may be of another. Two come whenever a device is closed, and are
//! told apart from an opening: the first of a generation is by who closed it (`tun_detach`); and one, whenever that is,
//! that the link is down now, is by whatever task came to it: a worker, or anybody who asks about the device
//! (net/core/link_watch.c, `linkwatch_do_dev`; commit facd15dfd691 of Linux 6.7).

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_map_lookup_elem, generated::bpf_get_socket_cookie},
    macros::socket_filter,
    programs::SkBuffContext,
};
use kvmeter_common::network::{LINK_DOWN, held};

use super::{account::writer, class::load, constant};

/// `RTM_NEWLINK`
const NEW_LINK: u16 = 16;
/// `IFLA_OPERSTATE`, which comes before the others.
const OPERATIONAL_STATE: u32 = 16;
/// `IF_OPER_UP`
const UP: u8 = 6;
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
    // SAFETY: the caller's promise; the maps of listeners and openers, their sizes, and integers.
    unsafe {
        if load::<u16>(skb, 4)? != NEW_LINK || load::<u8>(skb, 16)? != 0 {
            return None;
        }
        // Of the socket that listens, to which each announcement is given (net/core/filter.c, `sk_filter_trim_cap`): one
        // program serves all namespaces, and loading it is a large part of taking in a VM's first interface.
        let cookie = bpf_get_socket_cookie(skb.cast_mut().cast());
        let listeners = constant!(LISTENERS) as *mut core::ffi::c_void;
        let space = bpf_map_lookup_elem(listeners, (&raw const cookie).cast()).cast::<u32>();
        if space.is_null() {
            return None;
        }
        let key = u64::from(*space) << 32 | u64::from(load::<u32>(skb, 20)?);
        let openers = constant!(OPENERS) as *mut core::ffi::c_void;
        let opener = bpf_map_lookup_elem(openers, (&raw const key).cast()).cast::<u64>();
        if opener.is_null() {
            return None;
        }
        let (mut at, mut carrier, mut changes, mut down) = (HEADERS, 1, None, 0);
        for _ in 0..ATTRIBUTES {
            let head = load::<u32>(skb, at)?;
            let (length, kind) = (head & 0xffff, head >> 16 & 0x3fff);
            if length < 4 {
                return None;
            }
            if kind == OPERATIONAL_STATE && load::<u8>(skb, at + 4)? != UP {
                down = LINK_DOWN;
            } else if kind == CARRIER {
                carrier = load::<u8>(skb, at + 4)?;
            } else if kind == CARRIER_CHANGES {
                changes = load::<u32>(skb, at + 4);
                break;
            }
            at += (length + 3) & !3;
        }
        if carrier == 0 {
            // The generation that begins when carrier comes.
            let (next, before) = (changes?.wrapping_add(1), opener.read_volatile());
            let again = (before >> 32) as u32 == next;
            let went_down = down & !(before as u32) & LINK_DOWN != 0;
            let process = if again && !went_down { writer() as u32 } else { 0 };
            opener.write_volatile(held(next, process | down));
        }
        Some(())
    }
}
