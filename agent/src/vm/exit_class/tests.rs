//! Laws of the vocabulary: the numbers are the kernel's own, each has one class, and no input has none.

use std::collections::BTreeSet;

use kvmeter_common::exit::{CLASSES, KVM_ISA_SVM, KVM_ISA_VMX, TABLE as PLACES, UNKNOWN, index, index_arm64};
use proptest::prelude::*;

use super::{TABLE, label, labels};

fn x86(isa: u32, reason: u32) -> &'static str {
    label(TABLE[index(isa, reason)].into())
}

fn arm64(ret: u32, esr_ec: u32) -> &'static str {
    label(TABLE[index_arm64(ret, esr_ec)].into())
}

/// The class that a reason must have by its name in the kernel's headers, or in its trace text; an own second entry.
fn intended(name: &str) -> &'static str {
    match name.to_ascii_uppercase().replace([' ', '-'], "_").as_str() {
        "EXTERNAL_INTERRUPT" | "INTR" | "INTERRUPT" => "external_interrupt",
        "INTERRUPT_WINDOW" | "PENDING_INTERRUPT" | "NMI_WINDOW" | "VINTR" | "IRET" => "interrupt_window",
        "EPT_VIOLATION" | "EPT_MISCONFIG" | "NPF" => "page_fault",
        "HLT" | "IDLE_HLT" | "IDLE_HALT" | "MWAIT_INSTRUCTION" | "MWAIT" | "MWAIT_COND" => "halt",
        "IO_INSTRUCTION" | "IOIO" | "IO" => "io",
        "MSR_READ" | "MSR_WRITE" | "MSR_READ_IMM" | "MSR_WRITE_IMM" | "MSR" | "EFER_WRITE_TRAP" | "WRITE_EFER_TRAP" => {
            "msr"
        }
        "CPUID" => "cpuid",
        "VMCALL" | "VMMCALL" | "HYPERCALL" | "VMGEXIT" | "TDCALL" => "hypercall",
        "CR_ACCESS" | "CR0_SEL_WRITE" => "cr_access",
        "EXCEPTION_NMI" | "NMI" | "EXCP_BASE" | "LAST_EXCP" => "exception_nmi",
        "TPR_BELOW_THRESHOLD" | "APIC_ACCESS" | "EOI_INDUCED" | "APIC_WRITE" => "apic",
        "AVIC_INCOMPLETE_IPI" | "AVIC_UNACCELERATED_ACCESS" => "apic",
        "PAUSE_INSTRUCTION" | "PAUSE" => "pause",
        "PREEMPTION_TIMER" => "preemption_timer",
        "PML_FULL" => "dirty_log_full",
        "VMCLEAR" | "VMLAUNCH" | "VMPTRLD" | "VMPTRST" | "VMREAD" | "VMRESUME" | "VMWRITE" | "VMOFF" | "VMON"
        | "INVEPT" | "INVVPID" | "VMFUNC" | "VMRUN" | "VMLOAD" | "VMSAVE" | "STGI" | "CLGI" | "SKINIT" | "INVLPGA" => {
            "nested_virtualization"
        }
        "TRIPLE_FAULT" | "SHUTDOWN" => "shutdown",
        name if name.ends_with("_EXCP") => "exception_nmi",
        name if name.starts_with("READ_CR") || name.starts_with("WRITE_CR") => "cr_access",
        name if name.starts_with("CR") && name.ends_with("_WRITE_TRAP") => "cr_access",
        _other => "other",
    }
}

/// A C integer: decimal, hexadecimal, negative, or the sum of two.
fn number(text: &str) -> Option<u32> {
    let parts = text.split('+').map(|part| {
        let part = part.trim();
        match (part.strip_prefix("0x"), part.strip_prefix('-')) {
            (Some(hex), _) => u32::from_str_radix(hex, 16).ok(),
            (None, Some(digits)) => digits.parse::<u32>().ok().map(u32::wrapping_neg),
            (None, None) => part.parse().ok(),
        }
    });
    parts.sum()
}

#[test]
fn the_kernels_headers_give_each_reason_the_number_it_has_here() {
    for (header, prefix, isa, least) in
        [("vmx.h", "EXIT_REASON_", KVM_ISA_VMX, 60), ("svm.h", "SVM_EXIT_", KVM_ISA_SVM, 80)]
    {
        let path = format!("/usr/include/{}-linux-gnu/asm/{header}", std::env::consts::ARCH);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let mut seen = 0;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("#define"), Some(name), Some(value)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let (Some(name), Some(value)) = (name.strip_prefix(prefix), number(value)) else { continue };
            assert_eq!(x86(isa, value), intended(name), "{path}: {name} {value:#x}");
            seen += 1;
        }
        assert!(seen >= least, "{path}: {seen} reasons found");
    }
}

#[test]
fn the_running_kernels_trace_text_gives_each_reason_the_number_it_has_here() {
    let Ok(text) = std::fs::read_to_string("/sys/kernel/tracing/events/kvm/kvm_exit/format") else { return };
    let Some((vmx, rest)) = text.split_once("__print_symbolic").and_then(|(_, rest)| rest.split_once(") :")) else {
        return;
    };
    let svm = rest.split_once("(REC->isa == 1").map_or(rest, |(svm, _)| svm);
    for (isa, table) in [(KVM_ISA_VMX, vmx), (KVM_ISA_SVM, svm)] {
        let pairs = table.split('{').skip(1).filter_map(|part| part.split_once('}')?.0.split_once(','));
        let mut seen = 0;
        for (value, name) in pairs {
            let value = number(value.trim()).unwrap();
            assert_eq!(x86(isa, value), intended(name.trim().trim_matches('"')), "{isa} {name} {value:#x}");
            seen += 1;
        }
        assert!(seen > 60, "{isa}: {seen} reasons in {table}");
    }
}

#[test]
fn the_words_are_seventeen_and_differ() {
    assert_eq!(labels().collect::<BTreeSet<_>>().len(), CLASSES);
    assert_eq!((label(0), label(CLASSES), label(usize::MAX)), ("other", "other", "other"));
    let snake = |label: &str| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    assert!(labels().all(snake));
}

#[test]
fn every_word_but_other_is_used_by_some_number() {
    let used: BTreeSet<_> = TABLE.iter().map(|class| label((*class).into())).collect();
    assert_eq!(used, labels().collect());
}

#[test]
fn an_entry_that_failed_is_no_exit_of_its_reason() {
    assert_eq!(x86(KVM_ISA_VMX, 33 | 1 << 31), "other");
    assert_eq!(x86(KVM_ISA_VMX, 48 | 1 << 31), "other");
    assert_eq!(x86(KVM_ISA_SVM, u32::MAX), "other", "VMEXIT_INVALID");
}

#[test]
fn circumstances_do_not_change_an_exits_reason() {
    // A bus lock was seen (26), inside an enclave (27), a pending MTF exit (28).
    for bit in [26, 27, 28] {
        assert_eq!(x86(KVM_ISA_VMX, 48 | 1 << bit), "page_fault");
    }
}

#[test]
fn a_back_end_of_no_known_numbering_is_other() {
    for isa in [0, 3, u32::MAX] {
        assert_eq!(index(isa, 12), UNKNOWN);
    }
    assert_eq!(label(TABLE[UNKNOWN].into()), "other");
}

/// Numbers of the Arm Architecture Reference Manual, `ESR_ELx.EC`.
#[test]
fn arm64_exits_have_the_class_of_their_exception() {
    const TRAP: u32 = 2;
    for (ec, class) in [
        (0x00, "other"),                 // unknown reason
        (0x01, "halt"),                  // WFI, WFE
        (0x03, "msr"),                   // MCR or MRC, coprocessor 15
        (0x04, "msr"),                   // MCRR or MRRC, coprocessor 15
        (0x05, "msr"),                   // MCR or MRC, coprocessor 14
        (0x06, "msr"),                   // LDC or STC, coprocessor 14
        (0x07, "exception_nmi"),         // SVE, Advanced SIMD or floating point
        (0x09, "other"),                 // pointer authentication
        (0x0c, "msr"),                   // MRRC, coprocessor 14
        (0x0e, "other"),                 // illegal execution state
        (0x12, "hypercall"),             // HVC from AArch32
        (0x13, "hypercall"),             // SMC from AArch32
        (0x16, "hypercall"),             // HVC from AArch64
        (0x17, "hypercall"),             // SMC from AArch64
        (0x18, "msr"),                   // MSR, MRS or system instruction
        (0x19, "exception_nmi"),         // SVE
        (0x1a, "nested_virtualization"), // ERET
        (0x20, "page_fault"),            // instruction abort from a lower level
        (0x21, "other"),                 // the same from this level, never a guest's
        (0x24, "page_fault"),            // data abort from a lower level
        (0x25, "other"),
        (0x2f, "exception_nmi"), // SError
        (0x30, "exception_nmi"), // breakpoint from a lower level
        (0x32, "exception_nmi"), // software step from a lower level
        (0x33, "other"),
        (0x34, "exception_nmi"), // watchpoint from a lower level
        (0x38, "exception_nmi"), // BKPT of AArch32
        (0x3c, "exception_nmi"), // BRK of AArch64
        (0x3f, "other"),
        (0x40, "other"), // there is no such class
    ] {
        assert_eq!(arm64(TRAP, ec), class, "{ec:#x}");
        assert_eq!(arm64(TRAP | 1 << 31, ec), class, "{ec:#x} with a system error waiting");
    }
    assert_eq!(arm64(0, 0), "external_interrupt", "IRQ");
    assert_eq!(arm64(0, 0x24), "external_interrupt", "the class counts for traps alone");
    assert_eq!(arm64(1, 0), "exception_nmi", "SError");
    assert_eq!(arm64(3, 0), "other", "illegal return");
    assert_eq!(arm64(0xbad_ca11, 0), "other", "the hypervisor is gone");
}

proptest! {
    #[test]
    fn every_exit_has_a_class(isa: u32, small in 0u32..4, reason: u32, low in 0u32..0x500) {
        for place in [index(isa, reason), index(small, reason), index(small, low), index_arm64(isa, reason), index_arm64(small, low)] {
            prop_assert!(place < PLACES);
            prop_assert!(usize::from(TABLE[place]) < CLASSES);
        }
    }

    #[test]
    fn no_two_reasons_share_a_place_but_the_unknown(a in 0u32..0x500, b in 0u32..0x500) {
        let places = |n: u32| [index(KVM_ISA_VMX, n), index(KVM_ISA_SVM, n), index_arm64(2, n), index_arm64(n | 4, 0)];
        for (i, left) in places(a).into_iter().enumerate() {
            for (j, right) in places(b).into_iter().enumerate() {
                prop_assert!(left != right || left == UNKNOWN || (i == j && a == b));
            }
        }
    }
}
