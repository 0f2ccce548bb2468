//! Who holds a tap, without being told: its carrier goes when its last file is closed and comes when it is opened again.
//!
//! The sum of both counts, the device's *generation*, stands still while nobody opens or closes it, so a packet that finds
//! another sum than the last begins with the account of whoever holds the tap now. That is whom the agent saw with it in
//! this very generation, or else who opened it (`watch`); where neither is known, and while it is closed, it is nobody.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_map_lookup_elem, generated::bpf_probe_read_kernel},
};
use kvmeter_common::network::{ANEW, LINK_DOWN, NO_WRITER, NOBODY, carrier};

use super::{
    account::own,
    constant,
    kernel::{forgotten, load, packet, word},
    port,
};
use crate::counter::add;

/// Whether the device's generations are followed.
#[inline(always)]
pub fn follows() -> bool {
    constant!(CARRIER) != carrier::UNREAD as u64
}

/// The account of whoever holds the device, where it still is whom it was chosen for.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn same_holder(skb: *const __sk_buff) -> Option<u64> {
    // SAFETY: the caller's promise.
    let now = unsafe { carriers(skb) };
    let (active, known) = chosen();
    (now == known).then_some(active)
}

/// The account of whoever holds the device.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn holder_account(skb: *const __sk_buff) -> u64 {
    // SAFETY: the caller's promise.
    let now = unsafe { carriers(skb) };
    let (active, known) = chosen();
    if now == known { active } else { turned(now) }
}

/// The account in use, and the carrier counts that it was chosen at.
#[inline(always)]
fn chosen() -> (u64, u64) {
    // SAFETY: the map value of this interface.
    unsafe {
        let port = port();
        // In this order: the account is put in before the counts, so with counts that fit it is there already.
        let known = (&raw const (*port).carriers).read_volatile();
        ((&raw const (*port).active).read_volatile(), known)
    }
}

/// How often carrier came, in the lower half, and went: the counts stand side by side.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn carriers(skb: *const __sk_buff) -> u64 {
    // SAFETY: the caller's promise; places that the kernel's own types told.
    unsafe {
        if constant!(CARRIER) == carrier::LOADED as u64 {
            return word(load!("64", packet(skb), AT_DEVICE) + constant!(CARRIER_UPS));
        }
        let (mut device, mut counts) = (0_u64, 0_u64);
        // A program's context is the kernel's own packet (net/core/filter.c). Where a read fails the counts are others, and
        // so nobody's.
        bpf_probe_read_kernel((&raw mut device).cast(), 8, skb.byte_add(constant!(DEVICE) as usize).cast());
        let place = (device + constant!(CARRIER_UPS)) as *const core::ffi::c_void;
        bpf_probe_read_kernel((&raw mut counts).cast(), 8, place);
        counts
    }
}

/// The generation: what a link's announcements call carrier changes.
#[inline(always)]
fn generation(carriers: u64) -> u32 {
    (carriers as u32).wrapping_add((carriers >> 32) as u32)
}

/// Other carrier counts than those of the account in use. Out of line, off the hot path.
#[inline(never)]
extern "C" fn turned(carriers: u64) -> u64 {
    // SAFETY: the map value of this interface.
    unsafe {
        let port = port();
        let (now, known) = (generation(carriers), (&raw const (*port).carriers).read_volatile());
        // This CPU was held up since it looked: the packet is of whoever has closed the device by now.
        if known != ANEW && (now.wrapping_sub(generation(known)) as i32) < 0 {
            return NOBODY;
        }
        let holder = holder(now);
        let mut account = NOBODY;
        if holder != 0 {
            account = forgotten(own(u64::from(holder)), carriers);
            if account == NOBODY {
                // Tried again with the next packet.
                add(&raw mut (*port).shared, 1);
                return NOBODY;
            }
        } else {
            (&raw mut (*port).active).write_volatile(NO_WRITER | NOBODY);
        }
        (&raw mut (*port).carriers).write_volatile(carriers);
        account
    }
}

/// Who holds the device in this generation; 0 = not known.
///
/// # Safety
/// Only from a program of an interface.
#[inline(always)]
unsafe fn holder(now: u32) -> u32 {
    // SAFETY: the map value of this interface, the map of openers and its sizes.
    unsafe {
        let seen = (&raw const (*port()).held).read_volatile();
        if (seen >> 32) as u32 == now && seen as u32 != 0 {
            return seen as u32;
        }
        let key = (&raw const (*port()).key).read_volatile();
        let openers = constant!(OPENERS) as *mut core::ffi::c_void;
        let opener = bpf_map_lookup_elem(openers, (&raw const key).cast()).cast::<u64>();
        if opener.is_null() {
            return 0;
        }
        let opened = opener.read_volatile();
        if (opened >> 32) as u32 == now { opened as u32 & !LINK_DOWN } else { 0 }
    }
}
