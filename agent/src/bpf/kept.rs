//! What agents leave each other in the slots: what they add to a VM's numbers, and events of other generations settled.

use kvmeter_common::{
    vcpu::VcpuSlot,
    vm::{Kept, VmSlot},
};

use super::slots::Slots;

impl Slots {
    /// What the agent before left with a slot; `None` if it left nothing whole.
    pub(super) fn kept(&self, slot: u32) -> Option<Kept> {
        self.vms.get(slot).map(|vm| vm.kept).filter(|kept| kept.written != 0)
    }

    /// Leaves that with a slot, the word that it is whole last.
    pub(super) fn keep(&mut self, slot: u32, kept: Kept) {
        let Kept { written: _, guest_ns, halt_poll_ns, observed_ns, shift_ns: [a, b, c, d], runtime_ns, run_delay_ns } =
            kept;
        let at = std::mem::offset_of!(VmSlot, kept);
        self.vms.put_u64(slot, at, 0);
        let words = [guest_ns, halt_poll_ns, observed_ns, a, b, c, d, runtime_ns, run_delay_ns];
        for (word, place) in words.into_iter().zip(1..) {
            self.vms.put_u64(slot, at + place * size_of::<u64>(), word);
        }
        self.vms.put_u64(slot, at, 1);
    }

    /// Settles what programs of other generations than the one that counts have left of events: see
    /// `agent-ebpf/src/generation.rs`. None of them leaves anything more.
    pub(super) fn settle_marks(&mut self, current: u16) {
        let first = std::mem::offset_of!(VcpuSlot, served);
        let numbers: Vec<u32> = self.used_threads().map(|(number, _)| number).collect();
        for number in numbers {
            let Some(vcpu) = self.vcpus.get(number) else { continue };
            for (place, mark) in vcpu.served.into_iter().enumerate() {
                if mark != 0 && mark != current {
                    self.vcpus.put_u16(number, first + place * size_of::<u16>(), 0);
                }
            }
        }
    }
}
