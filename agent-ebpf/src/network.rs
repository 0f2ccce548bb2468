//! Counting packets at a VM's interface, one program a direction. An instance belongs to one interface: what it needs to
//! know of it are constants that the agent puts in before loading (`kvmeter_common::network::constant`).

mod account;
mod carrier;
mod class;
mod kernel;
mod quick;
mod size;
mod watch;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_get_current_task, macros::classifier, programs::TcContext};
use kvmeter_common::network::{
    ACCOUNTS, BLOCK_BYTES, CLASSES, EXTERNAL, Flow, Header, LANES, NOBODY, OFFSET_MASK,
    direction::{RECEIVE, TRANSMIT},
};

use self::{
    account::{running, unchanged, writer},
    carrier::follows,
    class::class,
    kernel::{forgotten, word},
    size::{is_plain, size},
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

/// From the guest, at the ingress hook of a tap.
#[classifier]
pub fn tap_transmit(ctx: TcContext) -> i32 {
    count::<TRANSMIT, false>(&ctx)
}

/// To the guest, at the egress hook of a tap.
#[classifier]
pub fn tap_receive(ctx: TcContext) -> i32 {
    count::<RECEIVE, true>(&ctx)
}

/// [`tap_transmit`], made for the packets that are like nearly all others.
#[classifier]
pub fn tap_transmit_quick(ctx: TcContext) -> i32 {
    // SAFETY: the context of this program, which the agent loads where its constants are known.
    unsafe { quick::transmit(ctx.skb.skb) }
}

/// [`tap_receive`], likewise.
#[classifier]
pub fn tap_receive_quick(ctx: TcContext) -> i32 {
    // SAFETY: as above.
    unsafe { quick::receive(ctx.skb.skb) }
}

/// From the guest, at the egress hook of a macvtap.
#[classifier]
pub fn macvtap_transmit(ctx: TcContext) -> i32 {
    count::<TRANSMIT, true>(&ctx)
}

/// To the guest, at the ingress hook of a macvtap.
#[classifier]
pub fn macvtap_receive(ctx: TcContext) -> i32 {
    count::<RECEIVE, false>(&ctx)
}

/// Counts nothing: notes where the kernel keeps which task runs on this CPU, for reading it without a call; 1 = what is read
/// there is what asking tells.
#[classifier]
pub fn running_task(_ctx: TcContext) -> i32 {
    // SAFETY: the map value of an interface, places that the kernel's own types told.
    unsafe {
        let (cpu, task) = (processor(), bpf_get_current_task());
        let place = word(word(task + constant!(FAIR)) + constant!(RUNQUEUE)) + constant!(CURRENT);
        if cpu >= LANES as u64 || word(place) != task {
            return 0;
        }
        (&raw mut (*port()).tasks).cast::<u64>().add(cpu as usize).write_volatile(place);
        i32::from(running(cpu) == writer())
    }
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

/// Counts a packet. What is like nearly all others is counted at once, without a call; the rest out of line.
#[inline(always)]
fn count<const DIRECTION: usize, const EGRESS: bool>(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context of this program. The lane is this CPU's; network programs run with softirqs off: nothing else
    // on it comes in between.
    unsafe {
        let cpu = processor();
        match usual::<DIRECTION, EGRESS>(skb, cpu) {
            Some(account) => {
                let flow = flow::<OFFSET_MASK>(cpu, account).add(DIRECTION * CLASSES + EXTERNAL as usize);
                alone(flow, u64::from((*skb).len), 1);
            }
            None => {
                any::<DIRECTION, EGRESS>(skb);
            }
        }
    }
    NEXT
}

/// The account in use, where there is nothing about the packet to be looked into and whose it is has not changed.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn usual<const DIRECTION: usize, const EGRESS: bool>(skb: *const __sk_buff, cpu: u64) -> Option<u64> {
    // SAFETY: the caller's promise; the map value of this interface.
    unsafe {
        if cpu >= constant!(QUICK) || !is_plain::<DIRECTION, EGRESS>(skb) {
            return None;
        }
        unchanged::<DIRECTION>(skb, cpu)
    }
}

/// Counts a packet of whatever kind.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(never)]
unsafe extern "C" fn any<const DIRECTION: usize, const EGRESS: bool>(skb: *const __sk_buff) -> u64 {
    let unknown = active();
    // SAFETY: the caller's promise.
    let class = forgotten(unsafe { class::<DIRECTION>(skb) }, unknown);
    // SAFETY: the caller's promise.
    let (bytes, packets) = unsafe { size::<DIRECTION, EGRESS>(skb) };
    let (bytes, packets) = (forgotten(bytes, unknown), forgotten(packets, unknown));
    // SAFETY: the caller's promise.
    let account = unsafe { if DIRECTION == TRANSMIT { account::transmit(skb) } else { account::receive(skb) } };
    let account = forgotten(account, unknown);
    if follows() && account & NOBODY != 0 {
        nobody(DIRECTION as u64, bytes, packets);
        return 0;
    }
    let place = (DIRECTION * CLASSES) as u64 + (class & (CLASSES - 1) as u64);
    let at = (account & OFFSET_MASK) + place * size_of::<Flow>() as u64;
    // SAFETY: no precondition.
    let cpu = unsafe { processor() };
    if cpu < constant!(LANES) {
        // SAFETY: as in `count`.
        unsafe {
            alone(flow::<PLACES>(cpu, at), bytes, packets);
        }
    } else {
        together(at, bytes, packets);
    }
    0
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

/// Adds where no other CPU does.
///
/// # Safety
/// `flow` must be of the lane of this CPU.
#[inline(always)]
unsafe fn alone(flow: *mut Flow, bytes: u64, packets: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*flow).packets).write_volatile((&raw const (*flow).packets).read_volatile() + packets);
        (&raw mut (*flow).bytes).write_volatile((&raw const (*flow).bytes).read_volatile() + bytes);
    }
}

/// Adds where CPUs add that have no place of their own. Out of line: few have none.
#[inline(never)]
extern "C" fn together(at: u64, bytes: u64, packets: u64) -> u64 {
    // SAFETY: the last lane is for all.
    unsafe {
        let flow = flow::<PLACES>(constant!(LANES), at);
        add(&raw mut (*flow).packets, packets);
        add(&raw mut (*flow).bytes, bytes);
    }
    0
}

/// Bits of a place inside a lane.
const PLACES: u64 = (ACCOUNTS * BLOCK_BYTES - size_of::<Flow>()) as u64;

/// # Safety
/// `lane` must not exceed what the interface has.
#[inline(always)]
unsafe fn flow<const BITS: u64>(lane: u64, at: u64) -> *mut Flow {
    let mut at = at;
    // SAFETY: the mask keeps the place inside the lane. Written out, because the verifier of 5.10 knows no least value of what
    // was put together by OR, and takes none without. Then the caller's promise.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) at, const BITS);
        let offset = BLOCK_BYTES as u64 + lane * (ACCOUNTS * BLOCK_BYTES) as u64 + at;
        port().byte_add(offset as usize).cast::<Flow>()
    }
}
