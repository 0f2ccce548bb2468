//! The series of each VM: one row a family, with what a VM adds to it.
//!
//! Each is written as text at once, so a scrape of many VMs needs no memory but that of its text.

use super::{
    catalog::{self, Metric},
    disk,
    family::{Family, vm_labels},
    memory, network, work,
};
use crate::{
    account::{Role, Snapshot, VmView, snapshot::Detail},
    vm::Origin,
};
use kvmeter_common::vm::RoleTime;

/// Adds a VM's series to a family; what was not measured of it is left out.
pub type Fill = fn(&mut Family, &VmView, Detail);

const ROWS: [(&Metric, Fill); 7] = [
    (&catalog::VM_INFO, info),
    (&catalog::VM_CPU, cpu),
    (&catalog::VM_CPU_DELAY, delay),
    (&catalog::VM_RUNNING, running),
    // Gauges, which only a running VM has.
    (&catalog::VM_VCPUS, vcpus),
    (&catalog::VM_START, start),
    (&catalog::VM_THROTTLED, throttled),
];

/// All families with a `vm_id`, one behind the other.
#[must_use]
pub fn families(snapshot: &Snapshot, room: usize) -> Vec<u8> {
    let rows = ROWS.iter().chain(&work::ROWS).chain(&memory::ROWS).chain(&network::ROWS).chain(&disk::ROWS);
    let labels: Vec<Vec<u8>> = snapshot.vms.iter().map(|vm| vm_labels(&vm.fixed.vm_id, &vm.fixed.name)).collect();
    let labelled = || snapshot.vms.iter().zip(&labels);
    let mut text = Vec::with_capacity(room);
    for (metric, fill) in rows {
        let mut family = Family::of_vms(metric, text);
        for (vm, labels) in labelled() {
            family.vm(labels);
            fill(&mut family, vm, snapshot.host.detail);
        }
        text = family.done().0;
    }
    let mut integral = Family::of_vms(&catalog::VM_MEMORY_INTEGRAL, text);
    for (vm, labels) in labelled() {
        integral.vm(labels);
        memory::integral(&mut integral, vm, snapshot.sampled_ns);
    }
    integral.done().0
}

/// The measured roles.
pub fn roles(vm: &VmView) -> impl Iterator<Item = (Role, RoleTime)> {
    let fine = vm.source != Origin::PROC;
    vm.cpu.iter().flat_map(move |usage| Role::ALL.map(|role| Some((role, usage.told(role, fine)?)))).flatten()
}

fn info(family: &mut Family, vm: &VmView, _: Detail) {
    let fixed = &vm.fixed;
    let known = [vm.uuid(), &fixed.incarnation, &fixed.hypervisor, &fixed.cgroup, vm.tenant()];
    family.push(&known, 1.0);
}

fn cpu(family: &mut Family, vm: &VmView, _: Detail) {
    for (role, time) in roles(vm) {
        family.push_ns(&[role.as_label()], time.runtime_ns);
    }
}

fn delay(family: &mut Family, vm: &VmView, _: Detail) {
    for (role, time) in roles(vm) {
        family.push_ns(&[role.as_label()], time.run_delay_ns);
    }
}

fn running(family: &mut Family, vm: &VmView, _: Detail) {
    family.push(&[], if vm.end.is_none() { 1.0 } else { 0.0 });
}

fn vcpus(family: &mut Family, vm: &VmView, _: Detail) {
    if vm.end.is_none() && vm.fixed.vcpus > 0 {
        family.push(&[], f64::from(vm.fixed.vcpus));
    }
}

fn start(family: &mut Family, vm: &VmView, _: Detail) {
    if vm.end.is_none() {
        family.push_ns(&[], vm.fixed.started_at);
    }
}

fn throttled(family: &mut Family, vm: &VmView, _: Detail) {
    if let Some(ns) = vm.throttled_ns {
        family.push_ns(&[], ns);
    }
}
