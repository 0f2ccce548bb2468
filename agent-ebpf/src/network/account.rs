//! Whose account a packet goes to: that of the process that writes, or of whoever holds the device.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_map_update_elem,
        generated::bpf_probe_read_kernel,
    },
};
use kvmeter_common::network::{ACCOUNTS, BLOCK_BYTES, Claim, Header, LANES, NOBODY, Note, direction::TRANSMIT, state};

use super::{
    active,
    carrier::{follows, holder_account, same_holder},
    constant,
    kernel::{cast, forgotten, load, word},
    port, processor,
};
use crate::counter::add;

/// The account in use, where it is somebody's and still is whose it was.
///
/// # Safety
/// `skb` must be the program's context, `cpu` must have a lane.
#[inline(always)]
pub unsafe fn unchanged<const DIRECTION: usize>(skb: *const __sk_buff, cpu: u64) -> Option<u64> {
    // SAFETY: the caller's promise.
    unsafe {
        if DIRECTION == TRANSMIT && constant!(SPLIT) != 0 {
            // In this order the compiler has less to keep meanwhile.
            let (writer, active) = (running(cpu), active());
            return (active >> 32 == writer).then_some(active);
        }
        if !follows() {
            return Some(active());
        }
        // What is nobody's has no writer: the highest bit.
        same_holder(skb).filter(|account| account.cast_signed() >= 0)
    }
}

/// The account of what is received.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn receive(skb: *const __sk_buff) -> u64 {
    // SAFETY: the caller's promise.
    if follows() { unsafe { holder_account(skb) } } else { active() }
}

/// The account of what is transmitted.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn transmit(skb: *const __sk_buff) -> u64 {
    if constant!(SPLIT) == 0 {
        // SAFETY: the caller's promise.
        return unsafe { receive(skb) };
    }
    // SAFETY: no precondition.
    let (active, cpu) = (active(), unsafe { processor() });
    // SAFETY: the CPU has a lane.
    if cpu < constant!(LANES) && active >> 32 == unsafe { running(cpu) } {
        // SAFETY: the CPU has a lane, and so a note.
        unsafe { note(cpu, active) };
        return active;
    }
    let writer = writer();
    if active >> 32 == writer { active } else { switch(writer, active) }
}

/// Notes that the account in use is of the process that runs: no other comes in between on this CPU.
///
/// # Safety
/// `cpu` must have a lane.
#[inline(always)]
unsafe fn note(cpu: u64, active: u64) {
    if constant!(NOTES) == 0 {
        return;
    }
    // SAFETY: the caller's promise; a place that the kernel's own types told.
    unsafe {
        let note = (constant!(NOTES) as *mut Note).add((cpu & (LANES as u64 - 1)) as usize);
        let place = (&raw const (*note).place).read_volatile();
        if place != 0 {
            (&raw mut (*note).switches).write_volatile(word(place));
            (&raw mut (*note).active).write_volatile(active);
        }
    }
}

/// The process that writes.
#[inline(always)]
pub fn writer() -> u64 {
    let place = constant!(TASK_TGID);
    if place == 0 {
        return bpf_get_current_pid_tgid() >> 32;
    }
    let mut tgid = 0_u32;
    // SAFETY: reads as many bytes as the place has; where that fails it stays 0, as of the idle task.
    unsafe {
        let task = bpf_get_current_task();
        bpf_probe_read_kernel((&raw mut tgid).cast(), 4, (task + place) as *const core::ffi::c_void);
    }
    u64::from(tgid)
}

/// Another process writes than before: goes on with its account, or with a new one. Out of line, off the hot path.
#[inline(never)]
extern "C" fn switch(writer: u64, active: u64) -> u64 {
    // Idle: somebody else's packet, put aside for later.
    if writer == 0 {
        return active;
    }
    let own = forgotten(own(writer), active);
    if own != NOBODY {
        return own;
    }
    // SAFETY: the map value of this interface.
    unsafe { add(&raw mut (*port()).shared, 1) };
    if follows() { NOBODY } else { active }
}

/// Puts a process's account to use, begun now if it has none; [`NOBODY`] where none is free.
#[inline(always)]
pub fn own(writer: u64) -> u64 {
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
    }
    NOBODY
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

/// The process that writes, or another where that is not known without more ado.
///
/// # Safety
/// `cpu` must have a lane.
#[inline(always)]
pub unsafe fn running(cpu: u64) -> u64 {
    if constant!(DIRECT) == 0 {
        return writer();
    }
    // SAFETY: the map value of this interface, places that the kernel's own types told.
    unsafe {
        let place = (&raw const (*port()).tasks).cast::<u64>().add((cpu & (LANES as u64 - 1)) as usize).read_volatile();
        load!("32", cast(word(place), constant!(TASK)), AT_TGID)
    }
}
