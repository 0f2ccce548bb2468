//! Counting packets at a VM's interface, one program a direction. An instance belongs to one interface: what it needs to
//! know of it are constants that the agent puts in before loading (`kvmeter_common::network::constant`).

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_map_update_elem},
    macros::classifier,
    programs::TcContext,
};
use kvmeter_common::network::{
    ACCOUNT_BYTES, ACCOUNTS, CLASSES, Claim, EXTERNAL, Flow, NON_IP, OFFSET_MASK, Port, constant,
    direction::{RECEIVE, TRANSMIT},
    state,
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

/// From the guest, at the ingress hook of a tap.
#[classifier]
pub fn tap_transmit(ctx: TcContext) -> i32 {
    count(&ctx, transmit_account(), TRANSMIT)
}

/// To the guest, at the egress hook of a tap.
#[classifier]
pub fn tap_receive(ctx: TcContext) -> i32 {
    count(&ctx, receive_account(), RECEIVE)
}

/// From the guest, at the egress hook of a macvtap.
#[classifier]
pub fn macvtap_transmit(ctx: TcContext) -> i32 {
    count(&ctx, transmit_account(), TRANSMIT)
}

/// To the guest, at the ingress hook of a macvtap.
#[classifier]
pub fn macvtap_receive(ctx: TcContext) -> i32 {
    count(&ctx, receive_account(), RECEIVE)
}

#[inline(always)]
fn port() -> *mut Port {
    constant!(PORT) as *mut Port
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
        for number in 1..=ACCOUNTS {
            let head = &raw mut (*port).heads[number];
            if (&raw const (*head).writer).read_volatile() == writer as u32
                && (&raw const (*head).state).read_volatile() == state::HELD
            {
                return activate(port, number, writer);
            }
        }
        for number in 1..=ACCOUNTS {
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
                Taken::Ours => return (number * ACCOUNT_BYTES) as u64,
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
unsafe fn activate(port: *mut Port, number: usize, writer: u64) -> u64 {
    let active = writer << 32 | (number * ACCOUNT_BYTES) as u64;
    // SAFETY: the caller's promise; one aligned word.
    unsafe { (&raw mut (*port).active).write_volatile(active) };
    active
}

#[inline(always)]
fn count(ctx: &TcContext, account: u64, direction: usize) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context of this program; the mask keeps the account inside the page of the interface.
    unsafe {
        let class = class(skb);
        let flow = port()
            .byte_add((account & OFFSET_MASK) as usize)
            .cast::<Flow>()
            .add(direction * CLASSES + (class as usize & (CLASSES - 1)));
        add(&raw mut (*flow).packets, 1);
        add(&raw mut (*flow).bytes, u64::from((*skb).len));
    }
    NEXT
}

/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn class(skb: *const __sk_buff) -> u32 {
    const IPV4: u32 = (0x0800_u16.to_be()) as u32;
    const IPV6: u32 = (0x86dd_u16.to_be()) as u32;
    // SAFETY: the caller's promise.
    let protocol = unsafe { (*skb).protocol };
    if protocol == IPV4 || protocol == IPV6 { EXTERNAL } else { NON_IP }
}
