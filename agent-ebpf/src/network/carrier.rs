//! Who holds a tap, without being told: its carrier goes when its last file is closed and comes when it is opened again.
//!
//! The sum of both counts, the device's *generation*, stands still while nobody opens or closes it, so a packet that finds
//! another sum than the last begins with the account of whoever holds the tap now. That is whom the agent saw with it in
//! this very generation, or else who opened it (`watch`); where neither is known, and while it is closed, it is nobody.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_map_lookup_elem, generated::bpf_probe_read_kernel},
};
use kvmeter_common::network::{KNOWN, NO_WRITER, NOBODY, carrier};

use super::{constant, own, port};
use crate::counter::add;

/// Whether the device's generations are followed.
#[inline(always)]
pub fn follows() -> bool {
    constant!(CARRIER) != carrier::UNREAD as u64
}

/// The account of whoever holds the device.
#[inline(always)]
pub fn holder_account(skb: *const __sk_buff) -> u64 {
    // SAFETY: the program's context.
    let now = KNOWN | unsafe { generation(skb) };
    // SAFETY: the map value of this interface.
    let (active, known) = unsafe {
        let port = port();
        ((&raw const (*port).active).read_volatile(), (&raw const (*port).generation).read_volatile())
    };
    if now == known { active } else { turned(now) }
}

/// How often carrier came and went.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn generation(skb: *const __sk_buff) -> u64 {
    // SAFETY: the caller's promise; places that the kernel's own types told.
    unsafe {
        let (ups, downs) = if constant!(CARRIER) == carrier::LOADED as u64 {
            let device = ((cast(skb) + constant!(DEVICE)) as *const u64).read_volatile();
            let ups = ((device + constant!(CARRIER_UPS)) as *const u32).read_volatile();
            (ups, ((device + constant!(CARRIER_DOWNS)) as *const u32).read_volatile())
        } else {
            let (mut device, mut counts) = (0_u64, [0_u32; 2]);
            // As in `cast`. The counts stand side by side; where a
            // read fails the generation is another, and so nobody's.
            bpf_probe_read_kernel((&raw mut device).cast(), 8, skb.byte_add(constant!(DEVICE) as usize).cast());
            let place = (device + constant!(CARRIER_UPS)) as *const core::ffi::c_void;
            bpf_probe_read_kernel((&raw mut counts).cast(), 8, place);
            (counts[0], counts[1])
        };
        u64::from(ups.wrapping_add(downs))
    }
}

/// The kernel's own packet, as the verifier knows it: the agent puts a call of `bpf_rdonly_cast` here.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn cast(skb: *const __sk_buff) -> u64 {
    let kernels: u64;
    // SAFETY: the second load is replaced by a call and what does nothing, a call spoils these registers. A program's
    // context is the kernel's own packet (net/core/filter.c).
    unsafe {
        core::arch::asm!(
            "r2 = {packet} ll",
            "r0 = {mark} ll",
            packet = const kvmeter_common::network::constant::PACKET,
            mark = const kvmeter_common::network::constant::CAST,
            out("r0") kernels,
            inlateout("r1") skb => _,
            out("r2") _,
            out("r3") _,
            out("r4") _,
            out("r5") _,
            options(nostack)
        );
    }
    kernels
}

/// Another generation than that of the account in use. Out of line, off the hot path.
#[inline(never)]
extern "C" fn turned(now: u64) -> u64 {
    // SAFETY: the map value of this interface.
    unsafe {
        let port = port();
        let known = (&raw const (*port).generation).read_volatile();
        // This CPU was held up since it looked: the packet is of whoever has closed the device by now.
        if known != 0 && ((now as u32).wrapping_sub(known as u32) as i32) < 0 {
            return NOBODY;
        }
        let holder = holder(now);
        let mut account = NOBODY;
        if holder != 0 {
            account = own(u64::from(holder));
            if account == NOBODY {
                // Tried again with the next packet.
                add(&raw mut (*port).shared, 1);
                return NOBODY;
            }
        } else {
            (&raw mut (*port).active).write_volatile(NO_WRITER | NOBODY);
        }
        (&raw mut (*port).generation).write_volatile(now);
        account
    }
}

/// Who holds the device in this generation; 0 = not known.
///
/// # Safety
/// Only from a program of an interface.
#[inline(always)]
unsafe fn holder(now: u64) -> u32 {
    // SAFETY: the map value of this interface, the map of openers and its sizes.
    unsafe {
        let seen = (&raw const (*port()).held).read_volatile();
        if (seen >> 32) as u32 == now as u32 && seen as u32 != 0 {
            return seen as u32;
        }
        let key = (&raw const (*port()).key).read_volatile();
        let openers = constant!(OPENERS) as *mut core::ffi::c_void;
        let opener = bpf_map_lookup_elem(openers, (&raw const key).cast()).cast::<u64>();
        if opener.is_null() {
            return 0;
        }
        let opened = opener.read_volatile();
        if (opened >> 32) as u32 == now as u32 { opened as u32 } else { 0 }
    }
}
