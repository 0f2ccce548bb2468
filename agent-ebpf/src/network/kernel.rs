//! Reading the kernel's own structures without a call: the verifier lets programs load through pointers whose type it was
//! told (Linux 6.2). The compiler sees a load of a constant, the agent puts the call of the cast there.

use aya_ebpf::bindings::__sk_buff;

use super::constant;

/// A load from a place that the agent puts into the instruction itself: the register that takes the value is loaded with the
/// mark before, which the agent takes out.
macro_rules! load {
    ($bits:literal, $address:expr, $which:ident) => {{
        let value: u64;
        // SAFETY: a load, of what the verifier lets be loaded.
        core::arch::asm!(
            "{0} = {1} ll",
            concat!("{0} = *(u", $bits, " *)({2} + 0)"),
            out(reg) value,
            const kvmeter_common::network::constant::$which,
            in(reg) $address,
            options(nostack, readonly)
        );
        value
    }};
}
pub(super) use load;

/// The same number, of which the verifier knows nothing any more, given another of which it knows nothing. Behind a place that
/// many ways lead to, each with a number of its own, it follows what comes once instead of once for each of them.
#[inline(always)]
pub fn forgotten(number: u64, unknown: u64) -> u64 {
    let mut same = number;
    // SAFETY: twice the same is nothing. Not `pure`: it has to be done here, before what it is done for.
    unsafe { core::arch::asm!("{0} ^= {1}", "{0} ^= {1}", inout(reg) same, in(reg) unknown, options(nomem, nostack)) };
    same
}

/// The kernel's own packet behind the program's context, as the verifier trusts it (`bpf_cast_to_kern_ctx`).
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn packet(skb: *const __sk_buff) -> u64 {
    let kernels: u64;
    // SAFETY: the load is replaced by a call, which spoils these registers, and what does nothing.
    unsafe {
        core::arch::asm!(
            "r0 = {mark} ll",
            mark = const kvmeter_common::network::constant::CONTEXT,
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

/// This address as one of a structure that begins with 64 bits, and those (`bpf_rdonly_cast`): 0 where nothing is.
///
/// # Safety
/// None but that of the agent's constants: an address of nothing reads as 0.
#[inline(always)]
pub unsafe fn word(address: u64) -> u64 {
    // SAFETY: the verifier has loads through it checked while they run.
    unsafe { (cast(address, constant!(WORD)) as *const u64).read_volatile() }
}

/// This address as one of a structure of that number among the kernel's types.
#[inline(always)]
pub fn cast(address: u64, kind: u64) -> u64 {
    let known: u64;
    // SAFETY: as in `packet`.
    unsafe {
        core::arch::asm!(
            "r0 = {mark} ll",
            mark = const kvmeter_common::network::constant::CAST,
            out("r0") known,
            inlateout("r1") address => _,
            inlateout("r2") kind => _,
            out("r3") _,
            out("r4") _,
            out("r5") _,
            options(nostack)
        );
    }
    known
}
