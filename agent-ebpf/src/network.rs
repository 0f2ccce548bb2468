//! Counting packets at a VM's interface, one program a direction. An instance belongs to one interface: what it needs to
//! know of it are constants that the agent puts in before loading (`kvmeter_common::network::constant`).

mod carrier;
mod class;
mod size;
mod watch;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_map_update_elem,
        generated::bpf_probe_read_kernel,
    },
    macros::classifier,
    programs::TcContext,
};
use kvmeter_common::network::{
    ACCOUNTS, BLOCK_BYTES, CLASSES, Claim, Flow, Header, NOBODY, OFFSET_MASK,
    direction::{RECEIVE, TRANSMIT},
    state,
};

use self::{
    carrier::{follows, holder_account},
    class::class,
    size::size,
};
use crate::counter::add;

/// Goes on with the next program on the hook (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;
/// `BPF_FUNC_get_smp_processor_id`
const GET_SMP_PROCESSOR_ID: usize = 8;

/// The value that the agent put in place of a constant.
macro_rules! constant {
    ($which:ident) => {{
        let value: u64;
        // SAFETY: loads a constant.
        #[allow(unused_unsafe, reason = "stands in unsafe code as well")]
        unsafe {
            core::arch::asm!(
                "{0} = {1} ll",
                out(reg) value,
                const kvmeter_common::network::constant::$which,
                options(pure, nomem, nostack)
            )
        };
        value
    }};
}
use constant;

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
    count(&ctx, transmit_account, TRANSMIT, Hook::Ingress)
}

/// To the guest, at the egress hook of a tap.
#[classifier]
pub fn tap_receive(ctx: TcContext) -> i32 {
    count(&ctx, receive_account, RECEIVE, Hook::Egress)
}

/// From the guest, at the egress hook of a macvtap.
#[classifier]
pub fn macvtap_transmit(ctx: TcContext) -> i32 {
    count(&ctx, transmit_account, TRANSMIT, Hook::Egress)
}

/// To the guest, at the ingress hook of a macvtap.
#[classifier]
pub fn macvtap_receive(ctx: TcContext) -> i32 {
    count(&ctx, receive_account, RECEIVE, Hook::Ingress)
}

#[inline(always)]
fn port() -> *mut Header {
    constant!(PORT) as *mut Header
}

#[inline(always)]
fn active() -> u64 {
    // SAFETY: the map value of this interface.
    unsafe { (&raw const (*port()).active).read_volatile() }
}

#[inline(always)]
fn receive_account(ctx: &TcContext) -> u64 {
    if follows() { holder_account(ctx.skb.skb) } else { active() }
}

#[inline(always)]
fn transmit_account(ctx: &TcContext) -> u64 {
    if constant!(SPLIT) == 0 {
        return receive_account(ctx);
    }
    let active = active();
    let writer = writer();
    if active >> 32 == writer { active } else { switch(writer, active) }
}

/// The process that writes.
#[inline(always)]
fn writer() -> u64 {
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
fn own(writer: u64) -> u64 {
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

#[inline(always)]
fn count(ctx: &TcContext, account: fn(&TcContext) -> u64, direction: usize, hook: Hook) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context of this program.
    let (class, (bytes, packets)) = unsafe { (class(skb, direction), size(skb, direction, hook)) };
    // Last: the verifier follows what comes behind it once for each way in which an account is found.
    let account = account(ctx);
    if follows() && account & NOBODY != 0 {
        nobody(direction as u64, bytes, packets);
        return NEXT;
    }
    let place = (direction * CLASSES) as u64 + (class & (CLASSES - 1) as u64);
    let at = (account & OFFSET_MASK) + place * size_of::<Flow>() as u64;
    // SAFETY: no precondition.
    let cpu = unsafe { processor() };
    if cpu < constant!(LANES) {
        // SAFETY: the lane is this CPU's. Network programs run with softirqs off: nothing else on it comes in between.
        unsafe {
            let flow = flow(cpu, at);
            (&raw mut (*flow).packets).write_volatile((&raw const (*flow).packets).read_volatile() + packets);
            (&raw mut (*flow).bytes).write_volatile((&raw const (*flow).bytes).read_volatile() + bytes);
        }
    } else {
        together(at, bytes, packets);
    }
    NEXT
}

/// The CPU's number. As 64 bits, which is how the helper gives it: no code is spent on cutting it.
#[inline(always)]
unsafe fn processor() -> u64 {
    // SAFETY: a helper is called by its number, whatever type it is said to have.
    let helper: unsafe extern "C" fn() -> u64 = unsafe { core::mem::transmute(GET_SMP_PROCESSOR_ID) };
    // SAFETY: no precondition.
    unsafe { helper() }
}

/// Counts what is nobody's.
#[inline(never)]
extern "C" fn nobody(direction: u64, bytes: u64, packets: u64) -> u64 {
    // SAFETY: the map value of this interface; there are two directions.
    unsafe {
        let flow = (&raw mut (*port()).nobody).cast::<Flow>().add((direction & 1) as usize);
        add(&raw mut (*flow).packets, packets);
        add(&raw mut (*flow).bytes, bytes);
    }
    0
}

/// Adds where CPUs add that have no place of their own. Out of line: few have none.
#[inline(never)]
extern "C" fn together(at: u64, bytes: u64, packets: u64) -> u64 {
    // SAFETY: the last lane is for all; the mask keeps the place inside it.
    unsafe {
        let flow = flow(constant!(LANES), at & (ACCOUNTS * BLOCK_BYTES - size_of::<Flow>()) as u64);
        add(&raw mut (*flow).packets, packets);
        add(&raw mut (*flow).bytes, bytes);
    }
    0
}

/// # Safety
/// `lane` must not exceed what the interface has, and `at` not leave it.
#[inline(always)]
unsafe fn flow(lane: u64, at: u64) -> *mut Flow {
    let mut at = at;
    // SAFETY: changes no value: a place is a multiple of its size and inside its lane. The verifier of 5.10 knows no
    // least value of what was put together by OR, and takes none without. Then the caller's promise.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) at, const ACCOUNTS * BLOCK_BYTES - size_of::<Flow>());
        let offset = BLOCK_BYTES as u64 + lane * (ACCOUNTS * BLOCK_BYTES) as u64 + at;
        port().byte_add(offset as usize).cast::<Flow>()
    }
}
