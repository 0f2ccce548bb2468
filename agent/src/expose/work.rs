//! The series of what a VM's threads did and waited for: modes, exits, halts, who ran instead.

use prometheus::proto::MetricFamily;

use super::{
    catalog,
    family::{Family, seconds},
};
use crate::{
    account::{Role, VmView, snapshot::Detail, work},
    bpf::Work,
    vm::{exit_class, exit_reason},
};
use kvmeter_common::vcpu::mode;

/// The families under construction.
pub struct WorkFamilies {
    detail: Detail,
    guest: Family,
    modes: Family,
    poll: Family,
    halted: Family,
    throttled: Family,
    exits: Family,
    userspace_exits: Family,
    preempted: Family,
    handling: Family,
    waits: Family,
    vcpu_cpu: Family,
    vcpu_delay: Family,
    vcpu_guest: Family,
}

impl WorkFamilies {
    /// Empty ones.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        Self {
            detail,
            guest: Family::new(&catalog::VM_GUEST_CPU),
            modes: Family::new(&catalog::VM_VCPU_MODE),
            poll: Family::new(&catalog::VM_HALT_POLL),
            halted: Family::new(&catalog::VM_HALTED),
            throttled: Family::new(&catalog::VM_THROTTLED),
            exits: Family::new(&catalog::VM_EXITS),
            userspace_exits: Family::new(&catalog::VM_USERSPACE_EXITS),
            preempted: Family::new(&catalog::VM_PREEMPTED),
            handling: Family::new(&catalog::VM_EXIT_HANDLING),
            waits: Family::new(&catalog::VM_RUN_DELAY),
            vcpu_cpu: Family::new(&catalog::VCPU_CPU),
            vcpu_delay: Family::new(&catalog::VCPU_DELAY),
            vcpu_guest: Family::new(&catalog::VCPU_GUEST),
        }
    }

    /// Adds a VM; what was not measured of it is left out.
    pub fn push(&mut self, vm: &VmView) {
        let labels = [vm.fixed.vm_id.as_str(), vm.fixed.name.as_str()];
        let single = [(&mut self.guest, vm.guest_ns), (&mut self.throttled, vm.throttled_ns)];
        for (family, ns) in single {
            if let Some(ns) = ns {
                family.push(&labels, seconds(ns));
            }
        }
        let Some(work) = &vm.work else { return };
        self.halted.push(&labels, seconds(work.vcpu.halted_ns));
        self.poll.push(&labels, seconds(vm.halt_poll_ns.unwrap_or(0)));
        self.push_modes(vm, labels, work);
        for (reason, count) in exit_class::by_label(&work.vcpu.exits) {
            self.exits.push(&[labels[0], labels[1], reason], count as f64);
        }
        for (reason, count) in exit_reason::by_label(&work.userspace_exits) {
            self.userspace_exits.push(&[labels[0], labels[1], reason], count as f64);
        }
        if let Some(cpu) = &vm.cpu {
            for (by, ns) in work::waited_for(cpu.run_delay_ns(), work, &vm.offenders) {
                self.preempted.push(&[labels[0], labels[1], by], seconds(ns));
            }
        }
        if self.detail.histograms {
            self.waits.push_histogram(&labels, &work::waits(work));
            if work.vcpu.entries > 0 {
                self.handling.push_histogram(&labels, &work::handling(&work.vcpu));
            }
        }
        if self.detail.per_vcpu {
            self.push_vcpus(vm, labels, work);
        }
    }

    fn push_modes(&mut self, vm: &VmView, labels: [&str; 2], work: &Work) {
        let vcpu = vm.cpu.map_or(0, |cpu| cpu.of(Role::Vcpu).runtime_ns);
        for (mode, ns) in work::modes(vcpu, &work.vcpu).into_iter().flatten() {
            self.modes.push(&[labels[0], labels[1], mode], seconds(ns));
        }
    }

    fn push_vcpus(&mut self, vm: &VmView, labels: [&str; 2], work: &Work) {
        for vcpu in &work.vcpus {
            let Some(number) = vm.vcpu_order.iter().position(|tid| *tid == vcpu.tid) else { continue };
            let number = number.to_string();
            let labels = [labels[0], labels[1], &number];
            self.vcpu_cpu.push(&labels, seconds(vcpu.time.runtime_ns));
            self.vcpu_delay.push(&labels, seconds(vcpu.time.run_delay_ns));
            if vcpu.times.entries > 0 {
                self.vcpu_guest.push(&labels, seconds(vcpu.times.mode_ns[mode::GUEST as usize]));
            }
        }
    }

    /// The finished families.
    #[must_use]
    pub fn done(self) -> [MetricFamily; 13] {
        [
            self.guest.done(),
            self.modes.done(),
            self.poll.done(),
            self.halted.done(),
            self.throttled.done(),
            self.exits.done(),
            self.userspace_exits.done(),
            self.preempted.done(),
            self.handling.done(),
            self.waits.done(),
            self.vcpu_cpu.done(),
            self.vcpu_delay.done(),
            self.vcpu_guest.done(),
        ]
    }
}
