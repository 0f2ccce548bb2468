//! Why the guest came out: the numbers of `kvm_exit`'s record, in one vocabulary.

use aya_ebpf::{EbpfContext as _, helpers::bpf_probe_read_kernel, macros::tracepoint, programs::TracePointContext};
use kvmeter_common::{exit, vcpu::hook};

use crate::{
    generation::counts,
    guest,
    maps::EXIT_CLASSES,
    offsets::{self, at},
};

/// `kvm:kvm_exit`, the record: raw arguments lost the reason in 5.16, and the record keeps it on every kernel, at the
/// places its `format` file tells. Dearer than a raw tracepoint, so it can be left out.
#[tracepoint]
pub fn kvm_exit_reason(ctx: TracePointContext) -> i32 {
    count(&ctx)
}

/// Counts the exit that a record tells of.
#[inline(always)]
pub fn count(ctx: &TracePointContext) -> i32 {
    let Some(vcpu) = guest::running() else { return 0 };
    // SAFETY: a live map value that the running thread owns.
    if !unsafe { counts(vcpu, hook::EXIT_REASON) } {
        return 0;
    }
    let record = ctx.as_ptr() as usize;
    // SAFETY: the helper checks the address; the places come from the kernel's own description of the record.
    let (reason, isa) = unsafe {
        (
            bpf_probe_read_kernel((record + at(&offsets::KVM_EXIT_REASON)) as *const u32),
            bpf_probe_read_kernel((record + at(&offsets::KVM_EXIT_ISA)) as *const u32),
        )
    };
    let (Ok(reason), Ok(isa), Some(classes)) = (reason, isa, EXIT_CLASSES.get_ptr(0)) else { return 0 };
    let place = exit::bounded(exit::index(isa, reason));
    // SAFETY: live map values; the place is inside the table, the comparison keeps the class inside its own.
    unsafe {
        let class = *classes.cast::<u8>().add(place) as usize;
        if class < exit::CLASSES {
            *(&raw mut (*vcpu).times.exits).cast::<u64>().add(class) += 1;
        }
    }
    0
}
