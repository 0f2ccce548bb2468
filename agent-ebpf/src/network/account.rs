//! Which account a packet goes to: its writer's own, begun where it has none.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_map_update_elem,
        generated::bpf_probe_read_kernel,
    },
};
use kvmeter_common::network::{ACCOUNTS, BLOCK_BYTES, Claim, Header, NOBODY, state};

use super::{carrier::follows, constant, port};
use crate::counter::add;

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
pub extern "C" fn switch(writer: u64, active: u64) -> u64 {
    opaque(switched(writer, active))
}

/// The same value, of which the verifier knows nothing: it goes through what comes after once, and not once for each
/// account that it may be.
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    // The verifier does not know that what never changes is the same twice.
    let unknown = || {
        // SAFETY: the map value of this interface.
        let id = u64::from(unsafe { (&raw const (*port()).id).read_volatile() });
        id << 32 | id
    };
    value ^ unknown() ^ unknown()
}

#[inline(always)]
fn switched(writer: u64, active: u64) -> u64 {
    // Idle: somebody else's packet, put aside for later.
    if writer == 0 {
        return active;
    }
    let own = own(writer);
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
        let mut held = 0;
        for number in 0..ACCOUNTS {
            let head = &raw mut (*port).heads[number];
            let other = (&raw const (*head).writer).read_volatile() ^ writer as u32
                | (&raw const (*head).state).read_volatile() ^ state::HELD;
            let mut same = u64::from(other);
            // 1 where it is 0, and else 0. The compiler would make it a branch, and the verifier goes along all ways that
            // branches make, anew for each interface.
            core::arch::asm!("{0} += -1", "{0} >>= 63", inout(reg) same, options(pure, nomem, nostack));
            held |= same << number;
        }
        if held != 0 {
            return activate(port, lowest(held), writer);
        }
        for number in 0..ACCOUNTS {
            let head = &raw mut (*port).heads[number];
            let phase = (&raw const (*head).state).read_volatile();
            if phase > state::OPEN {
                continue;
            }
            let claim = Claim { port: (*port).id, account: number as u16, phase: phase as u16 };
            match take(claim, writer as u32) {
                Taken::Mine => {
                    if phase == state::FREE {
                        (*head).serial = bpf_ktime_get_ns();
                    }
                    (&raw mut (*head).writer).write_volatile(writer as u32);
                    (&raw mut (*head).state).write_volatile(state::HELD);
                    return activate(port, number as u64, writer);
                }
                // The same process on another CPU.
                Taken::Ours => return number as u64 * BLOCK_BYTES as u64,
                Taken::Other => {}
            }
        }
    }
    NOBODY
}

/// The number of the lowest bit that is set, where bits stand for accounts.
#[inline(always)]
fn lowest(bits: u64) -> u64 {
    const { assert!(ACCOUNTS == 4, "1, 2, 4 and 8 become 0, 1, 2 and 3") };
    let bit = bits & bits.wrapping_neg();
    ((bit >> 1) - (bit >> 3)) & (ACCOUNTS - 1) as u64
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
unsafe fn activate(port: *mut Header, number: u64, writer: u64) -> u64 {
    let active = (writer << 32) | (number * BLOCK_BYTES as u64);
    // SAFETY: the caller's promise; one aligned word.
    unsafe { (&raw mut (*port).active).write_volatile(active) };
    active
}
