//! KVM's user-space exit reasons: the kernel's numbers, their names, and the short labels metrics show.
//!
//! Source: include/uapi/linux/kvm.h, `KVM_EXIT_*`. Translated here once; a number without a row is `other`.

use kvmeter_common::limits::{EXIT_INTERRUPTED, EXIT_REASONS};

/// `KVM_EXIT_SHUTDOWN`: on x86 a triple fault.
pub const SHUTDOWN: u32 = 8;
/// `KVM_EXIT_INTERNAL_ERROR`.
pub const INTERNAL_ERROR: u32 = 17;
/// `KVM_EXIT_SYSTEM_EVENT`: the guest asked for power-off, reset or told a crash.
pub const SYSTEM_EVENT: u32 = 24;

/// Number, kernel name, metric label; at most 16 labels.
const REASONS: [(u32, &str, &str); 15] = [
    (2, "KVM_EXIT_IO", "io"),
    (3, "KVM_EXIT_HYPERCALL", "hypercall"),
    (4, "KVM_EXIT_DEBUG", "debug"),
    (5, "KVM_EXIT_HLT", "hlt"),
    (6, "KVM_EXIT_MMIO", "mmio"),
    (7, "KVM_EXIT_IRQ_WINDOW_OPEN", "irq_window"),
    (SHUTDOWN, "KVM_EXIT_SHUTDOWN", "shutdown"),
    (9, "KVM_EXIT_FAIL_ENTRY", "fail_entry"),
    (INTERNAL_ERROR, "KVM_EXIT_INTERNAL_ERROR", "internal_error"),
    (SYSTEM_EVENT, "KVM_EXIT_SYSTEM_EVENT", "system_event"),
    (26, "KVM_EXIT_IOAPIC_EOI", "ioapic_eoi"),
    (29, "KVM_EXIT_X86_RDMSR", "rdmsr"),
    (30, "KVM_EXIT_X86_WRMSR", "wrmsr"),
    (31, "KVM_EXIT_DIRTY_RING_FULL", "dirty_ring_full"),
    (39, "KVM_EXIT_MEMORY_FAULT", "memory_fault"),
];

/// Label of runs that ended with an error, mostly a signal for the thread.
pub const INTERRUPTED: &str = "interrupted";
/// Label of every reason without a row.
pub const OTHER: &str = "other";

/// Every label `reason` can have.
pub fn labels() -> impl Iterator<Item = &'static str> {
    REASONS.iter().map(|(_, _, label)| *label).chain([INTERRUPTED, OTHER])
}

/// The kernel's name of a reason; its number where it has no row.
#[must_use]
pub fn kernel_name(reason: u32) -> String {
    REASONS
        .iter()
        .find(|(number, ..)| *number == reason)
        .map_or_else(|| format!("KVM_EXIT_{reason}"), |(_, name, _)| (*name).to_owned())
}

/// Sums the kernel's table by label, zero sums left out.
pub fn by_label(counts: &[u64; EXIT_REASONS]) -> impl Iterator<Item = (&'static str, u64)> {
    let of = |index: usize| counts.get(index).copied().unwrap_or(0);
    let all: u64 = counts.iter().sum();
    let named: u64 = REASONS.iter().map(|(number, ..)| of(*number as usize)).sum();
    let interrupted = of(EXIT_INTERRUPTED);
    let each = REASONS.iter().map(move |(number, _, label)| (*label, of(*number as usize)));
    each.chain([(INTERRUPTED, interrupted), (OTHER, all - named - interrupted)]).filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_has_sixteen_words_and_other() {
        assert_eq!(labels().count(), 17);
    }

    #[test]
    fn no_exit_is_lost_between_the_kernels_table_and_the_labels() {
        let counts: [u64; EXIT_REASONS] = std::array::from_fn(|i| i as u64);
        assert_eq!(by_label(&counts).map(|(_, n)| n).sum::<u64>(), counts.iter().sum::<u64>());
    }
}
