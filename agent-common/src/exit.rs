//! Why a guest stopped running: the kernel's numbers of each architecture, packed into the index of one small table.
//!
//! The numbers are those of `kvm_exit`'s record. Here stands only the packing, which is pure and total: any two words
//! give a place inside the table, what has no place of its own gives [`UNKNOWN`]. What a place means is the agent's
//! `vm::exit_class`, which fills the table.

/// Classes of exits, "other" among them: what a place of the table holds is below this.
pub const CLASSES: usize = 17;
/// Places of the table.
pub const TABLE: usize = 512;
/// The place of whatever has no place of its own.
pub const UNKNOWN: usize = NOWHERE as usize;

/// `isa` in the record where the reason is one of Intel's (arch/x86/kvm/trace.h).
pub const KVM_ISA_VMX: u32 = 1;
/// `isa` in the record where the reason is one of AMD's (arch/x86/kvm/trace.h).
pub const KVM_ISA_SVM: u32 = 2;

const NOWHERE: u32 = 511;
/// Basic exit reasons of VMX that have a place: 0 to 127, at 0.
const VMX_REASONS: u32 = 128;
/// Bits of a VMX exit reason that say which; those above are circumstances.
const VMX_BASIC: u32 = 0xffff;
/// Set in a VMX exit reason when the guest was never entered.
const VMX_FAILED_ENTRY: u32 = 1 << 31;
/// Exit codes of SVM below this have a place, at [`SVM_AT`].
const SVM_CODES: u32 = 0x100;
const SVM_AT: u32 = VMX_REASONS;
/// Exit codes of SVM from here on, sixteen of them, have a place as well, at [`SVM_PAGING_AT`].
const SVM_PAGING: u32 = 0x400;
const SVM_PAGING_CODES: u32 = 0x10;
const SVM_PAGING_AT: u32 = SVM_AT + SVM_CODES;
/// Exception classes of arm64 are six bits wide.
const ARM64_CLASSES: u32 = 64;
const ARM64_AT: u32 = SVM_PAGING_AT + SVM_PAGING_CODES;
/// `ret` of an exit by an exception that the guest caused, whose class is in `esr_ec`.
const ARM64_TRAP: u32 = 2;
/// Values of `ret` that have a place, at [`ARM64_RET_AT`].
const ARM64_RETS: u32 = 4;
const ARM64_RET_AT: u32 = ARM64_AT + ARM64_CLASSES;
/// Set in `ret` when a system error waited at the exit; not part of the reason.
const ARM64_SERROR: u32 = 1 << 31;

const _: () = assert!(TABLE.is_power_of_two(), "a place is masked for the verifier");
const _: () = assert!(UNKNOWN == TABLE - 1, "the last place is nobody's");
const _: () = assert!(((ARM64_RET_AT + ARM64_RETS) as usize) < UNKNOWN, "no number reaches it");

/// The place of an x86 exit: `isa` and `exit_reason` of the record.
#[must_use]
#[inline(always)]
pub const fn index(isa: u32, reason: u32) -> usize {
    let place = match isa {
        KVM_ISA_VMX => vmx(reason),
        KVM_ISA_SVM => svm(reason),
        _ => NOWHERE,
    };
    place as usize
}

/// The place of an arm64 exit: `ret` and `esr_ec` of the record. No such machine has shown it yet.
#[must_use]
#[inline(always)]
pub const fn index_arm64(ret: u32, esr_ec: u32) -> usize {
    let ret = ret & !ARM64_SERROR;
    let place = if ret == ARM64_TRAP && esr_ec < ARM64_CLASSES {
        ARM64_AT + esr_ec
    } else if ret != ARM64_TRAP && ret < ARM64_RETS {
        ARM64_RET_AT + ret
    } else {
        NOWHERE
    };
    place as usize
}

/// A place whose bound the verifier sees too. The compiler knows the bound of [`index`] and drops a mask of its own, but
/// what it leaves compares one register and uses another, which kernels do not follow. Read with `get`: here the compiler
/// does not know it.
#[cfg(target_arch = "bpf")]
#[must_use]
#[inline(always)]
pub fn bounded(place: usize) -> usize {
    let mut bounded = place;
    // SAFETY: masks one register and touches nothing else.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) bounded, const TABLE - 1, options(pure, nomem, nostack)) }
    bounded
}

const fn vmx(reason: u32) -> u32 {
    let basic = reason & VMX_BASIC;
    if reason & VMX_FAILED_ENTRY == 0 && basic < VMX_REASONS { basic } else { NOWHERE }
}

const fn svm(code: u32) -> u32 {
    let paging = code.wrapping_sub(SVM_PAGING);
    if code < SVM_CODES {
        SVM_AT + code
    } else if paging < SVM_PAGING_CODES {
        SVM_PAGING_AT + paging
    } else {
        NOWHERE
    }
}
