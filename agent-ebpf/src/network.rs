//! Counting packets at a VM's interface, one program a direction. An instance belongs to one interface: what it needs to
//! know of it are constants that the agent puts in before loading (`kvmeter_common::network::constant`).

mod carrier;
mod class;
mod kernel;
mod size;
mod watch;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, bpf_map_lookup_elem, bpf_map_update_elem,
        generated::bpf_probe_read_kernel,
    },
    macros::classifier,
    programs::TcContext,
};
use kvmeter_common::network::{
    ACCOUNTS, BLOCK_BYTES, CLASSES, Claim, EXTERNAL, Flow, Header, LANES, NOBODY, OFFSET_MASK,
    direction::{RECEIVE, TRANSMIT},
    state,
};

use self::{
    carrier::{follows, holder_account, same_holder},
    class::class,
    kernel::{cast, load, word},
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

#[inline(always)]
unsafe fn receive_account(skb: *const __sk_buff) -> u64 {
    // SAFETY: the caller's promise.
    if follows() { unsafe { holder_account(skb) } } else { active() }
}

#[inline(always)]
unsafe fn transmit_account(skb: *const __sk_buff) -> u64 {
    if constant!(SPLIT) == 0 {
        // SAFETY: the caller's promise.
        return unsafe { receive_account(skb) };
    }
    // SAFETY: no precondition.
    let (active, cpu) = (active(), unsafe { processor() });
    // SAFETY: the CPU has a lane.
    if cpu < constant!(LANES) && active >> 32 == unsafe { running(cpu) } {
        return active;
    }
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
                (&raw mut (*flow).packets).write_volatile((&raw const (*flow).packets).read_volatile() + 1);
                let bytes = u64::from((*skb).len);
                (&raw mut (*flow).bytes).write_volatile((&raw const (*flow).bytes).read_volatile() + bytes);
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

/// The process that writes, or another where that is not known without more ado.
///
/// # Safety
/// `cpu` must have a lane.
#[inline(always)]
unsafe fn running(cpu: u64) -> u64 {
    if constant!(DIRECT) == 0 {
        return writer();
    }
    // SAFETY: the map value of this interface, places that the kernel's own types told.
    unsafe {
        let place = (&raw const (*port()).tasks).cast::<u64>().add((cpu & (LANES as u64 - 1)) as usize).read_volatile();
        load!("32", cast(word(place), constant!(TASK)), AT_TGID)
    }
}

/// Counts a packet of whatever kind.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(never)]
unsafe extern "C" fn any<const DIRECTION: usize, const EGRESS: bool>(skb: *const __sk_buff) -> u64 {
    // SAFETY: the caller's promise.
    let (class, (bytes, packets)) = unsafe { (class::<DIRECTION>(skb), size::<DIRECTION, EGRESS>(skb)) };
    // Last: the verifier follows what comes behind it once for each way in which an account is found.
    // SAFETY: the caller's promise.
    let account = unsafe { if DIRECTION == TRANSMIT { transmit_account(skb) } else { receive_account(skb) } };
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
            let flow = flow::<PLACES>(cpu, at);
            (&raw mut (*flow).packets).write_volatile((&raw const (*flow).packets).read_volatile() + packets);
            (&raw mut (*flow).bytes).write_volatile((&raw const (*flow).bytes).read_volatile() + bytes);
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
