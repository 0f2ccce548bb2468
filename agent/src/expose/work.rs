//! The series of what a VM's threads did and waited for: modes, exits, halts, who ran instead.

use std::sync::LazyLock;

use kvmeter_common::{limits, vcpu::mode};

use super::{
    catalog::{self, Metric},
    family::Column,
    vm::Fill,
};
use crate::{
    account::{Role, Snapshot, VmView, work},
    bpf::VcpuReading,
    vm::{exit_class, exit_reason},
};

/// Numbers of vCPUs as they are written: more than most VMs have.
static NUMBERS: LazyLock<[String; 256]> = LazyLock::new(|| std::array::from_fn(|number| number.to_string()));

/// The families, with what a VM adds to each.
pub const ROWS: [(&Metric, Fill); 12] = [
    (&catalog::VM_GUEST_CPU, guest),
    (&catalog::VM_VCPU_MODE, modes),
    (&catalog::VM_HALT_POLL, halt_poll),
    (&catalog::VM_HALTED, halted),
    (&catalog::VM_EXITS, exits),
    (&catalog::VM_USERSPACE_EXITS, userspace_exits),
    (&catalog::VM_PREEMPTED, preempted),
    (&catalog::VM_EXIT_HANDLING, handling),
    (&catalog::VM_RUN_DELAY, waits),
    (&catalog::VCPU_CPU, vcpu_cpu),
    (&catalog::VCPU_DELAY, vcpu_delay),
    (&catalog::VCPU_GUEST, vcpu_guest),
];

fn guest(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if let Some(ns) = vm.guest_ns {
        family.push_ns(ns);
    }
}

fn modes(family: &mut Column, vm: &VmView, _: &Snapshot) {
    let (Some(work), Some(cpu)) = (&vm.work, &vm.cpu) else { return };
    for (mode, ns) in work::modes(cpu.of(Role::Vcpu).runtime_ns, &work.vcpu).into_iter().flatten() {
        family.push_word_ns(mode, ns);
    }
}

fn halt_poll(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if let Some(ns) = vm.halt_poll_ns {
        family.push_ns(ns);
    }
}

fn halted(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if let Some(work) = vm.work.as_ref().filter(|work| work.halts_told) {
        family.push_ns(work.vcpu.halted_ns);
    }
}

fn exits(family: &mut Column, vm: &VmView, _: &Snapshot) {
    let Some(work) = &vm.work else { return };
    for (reason, count) in exit_class::by_label(&work.vcpu.exits) {
        family.push_word(reason, count);
    }
}

fn userspace_exits(family: &mut Column, vm: &VmView, _: &Snapshot) {
    let Some(work) = &vm.work else { return };
    for (reason, count) in exit_reason::by_label(&work.userspace_exits) {
        family.push_word(reason, count);
    }
}

fn preempted(family: &mut Column, vm: &VmView, _: &Snapshot) {
    let (Some(work), Some(cpu)) = (&vm.work, &vm.cpu) else { return };
    for (by, ns) in work::waited_for(cpu.run_delay_ns(), work, &vm.offenders) {
        match [work::HOST, work::OTHER].into_iter().find(|word| *word == by) {
            Some(word) => family.push_word_ns(word, ns),
            None => family.push_ns_of(&[by], ns),
        }
    }
}

fn handling(family: &mut Column, vm: &VmView, snapshot: &Snapshot) {
    if let Some(work) = vm.work.as_ref().filter(|work| snapshot.host.detail.histograms && work.vcpu.entries > 0) {
        family.push_histogram(&limits::HANDLING_BOUNDS_NS, &work.vcpu.handling, work.vcpu.handling_ns);
    }
}

fn waits(family: &mut Column, vm: &VmView, snapshot: &Snapshot) {
    if let Some(work) = vm.work.as_ref().filter(|_| snapshot.host.detail.histograms) {
        family.push_histogram(&limits::RUN_DELAY_BOUNDS_NS, &work.waits, work.waited_ns.iter().sum());
    }
}

fn vcpu_cpu(family: &mut Column, vm: &VmView, snapshot: &Snapshot) {
    each_vcpu(family, vm, snapshot, |vcpu| Some(vcpu.time.runtime_ns));
}

fn vcpu_delay(family: &mut Column, vm: &VmView, snapshot: &Snapshot) {
    each_vcpu(family, vm, snapshot, |vcpu| Some(vcpu.time.run_delay_ns));
}

fn vcpu_guest(family: &mut Column, vm: &VmView, snapshot: &Snapshot) {
    each_vcpu(family, vm, snapshot, |vcpu| {
        (vcpu.times.entries > 0).then_some(vcpu.times.mode_ns[mode::GUEST as usize])
    });
}

fn each_vcpu(family: &mut Column, vm: &VmView, snapshot: &Snapshot, of: fn(&VcpuReading) -> Option<u64>) {
    let vcpus = vm.work.iter().filter(|_| snapshot.host.detail.per_vcpu).flat_map(|work| &work.vcpus);
    for (place, vcpu) in vcpus.enumerate() {
        let (Some(ns), Some(number)) = (of(vcpu), vm.vcpu_number(place, vcpu.tid)) else { continue };
        match NUMBERS.get(number) {
            Some(word) => family.push_word_ns(word, ns),
            None => family.push_ns_of(&[itoa::Buffer::new().format(number)], ns),
        }
    }
}
