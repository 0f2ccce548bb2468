//! Why guests stopped running, in one vocabulary for Intel, AMD and arm64: at most sixteen words and `other`.
//!
//! Owns the words and what each number means; the kernel programs count by [`TABLE`], whose places are
//! [`kvmeter_common::exit::index`]. Refuses to split what one vendor does not tell apart: a word means the same on
//! every machine. Sources: arch/x86/include/uapi/asm/vmx.h and svm.h (Intel SDM 3C appendix C, AMD APM 2 appendix C),
//! arch/arm64/include/asm/esr.h and kvm_asm.h (Arm ARM, `ESR_ELx.EC`). The arm64 column was never seen on a machine.

use kvmeter_common::exit::{CLASSES, KVM_ISA_SVM, KVM_ISA_VMX, TABLE as PLACES, index, index_arm64};

/// A word, and the numbers it stands for: VMX basic reasons, SVM exit codes, arm64 exception classes, each `from..=to`.
struct Class {
    label: &'static str,
    vmx: &'static [(u32, u32)],
    svm: &'static [(u32, u32)],
    arm64: &'static [(u32, u32)],
}

const fn class(
    label: &'static str,
    vmx: &'static [(u32, u32)],
    svm: &'static [(u32, u32)],
    arm64: &'static [(u32, u32)],
) -> Class {
    Class { label, vmx, svm, arm64 }
}

/// What has no row. First, so that a table nobody filled counts everything as it.
const OTHER: Class = class("other", &[], &[], &[]);

const CLASS: [Class; CLASSES] = [
    OTHER,
    // A device or a timer of the host; the guest did nothing. (arm64: `ret` is IRQ, below.)
    class("external_interrupt", &[(1, 1)], &[(0x60, 0x60)], &[]),
    // The guest can now take what waits for it: interrupt and NMI window; VINTR, and IRET, which ends an NMI.
    class("interrupt_window", &[(7, 8)], &[(0x64, 0x64), (0x74, 0x74)], &[]),
    // Guest-physical memory without a mapping, devices' registers included: EPT violation and misconfiguration; nested
    // page fault; instruction and data abort from a lower level.
    class("page_fault", &[(48, 49)], &[(0x400, 0x400)], &[(0x20, 0x20), (0x24, 0x24)]),
    // The guest idles: HLT, MWAIT; HLT, MWAIT, conditional MWAIT, idle HLT; WFI and WFE.
    class("halt", &[(12, 12), (36, 36)], &[(0x78, 0x78), (0x8b, 0x8c), (0xa6, 0xa6)], &[(0x01, 0x01)]),
    // IN, OUT and their string forms.
    class("io", &[(30, 30)], &[(0x7b, 0x7b)], &[]),
    // System registers: RDMSR, WRMSR and their immediate forms; MSR, EFER write trap; coprocessors 15 and 14, MSR/MRS.
    class(
        "msr",
        &[(31, 32), (84, 85)],
        &[(0x7c, 0x7c), (0x8f, 0x8f)],
        &[(0x03, 0x06), (0x08, 0x08), (0x0c, 0x0c), (0x18, 0x18)],
    ),
    class("cpuid", &[(10, 10)], &[(0x72, 0x72)], &[]),
    // The guest calls: VMCALL, TDCALL; VMMCALL, VMGEXIT; HVC and SMC from either execution state.
    class("hypercall", &[(18, 18), (77, 77)], &[(0x81, 0x81), (0x403, 0x403)], &[(0x12, 0x13), (0x16, 0x17)]),
    // Control registers: reads, writes, selective write of CR0, write traps.
    class("cr_access", &[(28, 28)], &[(0x00, 0x1f), (0x65, 0x65), (0x90, 0x9f)], &[]),
    // Exceptions and NMIs, which VMX gives one number: #DE to #SX and NMI; on arm64 floating point and vector traps, system
    // errors, breakpoints, steps and watchpoints.
    class(
        "exception_nmi",
        &[(0, 0)],
        &[(0x40, 0x5f), (0x61, 0x61)],
        &[
            (0x07, 0x07),
            (0x19, 0x19),
            (0x1d, 0x1d),
            (0x2f, 0x30),
            (0x32, 0x32),
            (0x34, 0x34),
            (0x38, 0x38),
            (0x3a, 0x3a),
            (0x3c, 0x3c),
        ],
    ),
    // The local interrupt controller where hardware does not do it all: TPR below threshold, APIC access, EOI, APIC
    // write; AVIC incomplete IPI and unaccelerated access.
    class("apic", &[(43, 45), (56, 56)], &[(0x401, 0x402)], &[]),
    // A spinning guest was stopped: PAUSE.
    class("pause", &[(40, 40)], &[(0x77, 0x77)], &[]),
    // KVM's timer for the guest's deadline ran out. Intel alone has one.
    class("preemption_timer", &[(52, 52)], &[], &[]),
    // The log of dirtied pages is full: live migration. Intel alone has one; elsewhere writes are page faults.
    class("dirty_log_full", &[(62, 62)], &[], &[]),
    // Instructions of a hypervisor inside the guest: VMX instructions, INVEPT, INVVPID, VMFUNC; INVLPGA, VMRUN, VMLOAD
    // to SKINIT; ERET.
    class(
        "nested_virtualization",
        &[(19, 27), (50, 50), (53, 53), (59, 59)],
        &[(0x7a, 0x7a), (0x80, 0x80), (0x82, 0x86)],
        &[(0x1a, 0x1a)],
    ),
    // The guest cannot go on: triple fault, shutdown.
    class("shutdown", &[(2, 2)], &[(0x7f, 0x7f)], &[]),
];

/// arm64's `ret` where no exception class tells: an interrupt, a system error.
const ARM64_RET: [(u32, &str); 2] = [(0, "external_interrupt"), (1, "exception_nmi")];

/// What a place means: its class, for the kernel programs.
pub const TABLE: [u8; PLACES] = table();

/// Counts with their labels, zero counts left out.
pub fn by_label(counts: &[u64; CLASSES]) -> impl Iterator<Item = (&'static str, u64)> {
    labels().zip(*counts).filter(|(_, count)| *count > 0)
}

/// Every label, by class.
pub fn labels() -> impl Iterator<Item = &'static str> {
    CLASS.iter().map(|class| class.label)
}

/// The label of a class; a class that is none is `other`.
#[must_use]
pub fn label(class: usize) -> &'static str {
    CLASS.get(class).map_or(OTHER.label, |class| class.label)
}

const fn table() -> [u8; PLACES] {
    let mut table = [0; PLACES];
    let mut class = 0;
    let mut number = 0;
    while class < CLASSES {
        table = mark(table, CLASS[class].vmx, number, KVM_ISA_VMX);
        table = mark(table, CLASS[class].svm, number, KVM_ISA_SVM);
        table = mark(table, CLASS[class].arm64, number, ARM64);
        let mut ret = 0;
        while ret < ARM64_RET.len() {
            if same(ARM64_RET[ret].1, CLASS[class].label) {
                table[index_arm64(ARM64_RET[ret].0, 0)] = number;
            }
            ret += 1;
        }
        class += 1;
        number += 1;
    }
    table
}

/// No `isa` of the kernel's: the numbers are exception classes.
const ARM64: u32 = 0;
/// `ret` of an exit that has an exception class.
const ARM64_TRAP: u32 = 2;

const fn mark(mut table: [u8; PLACES], spans: &[(u32, u32)], class: u8, isa: u32) -> [u8; PLACES] {
    let mut span = 0;
    while span < spans.len() {
        let mut reason = spans[span].0;
        while reason <= spans[span].1 {
            let place = if isa == ARM64 { index_arm64(ARM64_TRAP, reason) } else { index(isa, reason) };
            assert!(place != kvmeter_common::exit::UNKNOWN && table[place] == 0, "a number has one class, and a place");
            table[place] = class;
            reason += 1;
        }
        span += 1;
    }
    table
}

/// Whether two words are one, at compile time.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

#[cfg(test)]
mod tests;
