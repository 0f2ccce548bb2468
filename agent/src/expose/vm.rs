//! The series of each VM: one row a family, with what a VM adds to it.
//!
//! A family is built, written and let go before the next, so a scrape of many VMs needs the memory of one family.

use super::{
    catalog::{self, Metric},
    disk,
    family::{Family, MetricFamily, seconds},
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

/// All families with a `vm_id`, each made when it is asked for.
pub fn families(snapshot: &Snapshot) -> impl Iterator<Item = MetricFamily> + '_ {
    let rows = ROWS.iter().chain(&work::ROWS).chain(&memory::ROWS).chain(&network::ROWS).chain(&disk::ROWS);
    let made = rows.map(|(metric, fill)| {
        let mut family = Family::new(metric);
        for vm in &snapshot.vms {
            fill(&mut family, vm, snapshot.host.detail);
        }
        family.done()
    });
    made.chain(std::iter::once_with(|| memory::integral(snapshot)))
}

/// The two labels that every series of a VM has.
#[must_use]
pub fn labels(vm: &VmView) -> [&str; 2] {
    [vm.fixed.vm_id.as_str(), vm.fixed.name.as_str()]
}

/// The measured roles.
pub fn roles(vm: &VmView) -> impl Iterator<Item = (Role, RoleTime)> {
    let fine = vm.source != Origin::PROC;
    vm.cpu.iter().flat_map(move |usage| Role::ALL.map(|role| Some((role, usage.told(role, fine)?)))).flatten()
}

fn info(family: &mut Family, vm: &VmView, _: Detail) {
    let (fixed, [id, name]) = (&vm.fixed, labels(vm));
    let known = [id, name, vm.uuid(), &fixed.incarnation, &fixed.hypervisor, &fixed.cgroup, vm.tenant()];
    family.push(&known, 1.0);
}

fn cpu(family: &mut Family, vm: &VmView, _: Detail) {
    let [id, name] = labels(vm);
    for (role, time) in roles(vm) {
        family.push(&[id, name, role.as_label()], seconds(time.runtime_ns));
    }
}

fn delay(family: &mut Family, vm: &VmView, _: Detail) {
    let [id, name] = labels(vm);
    for (role, time) in roles(vm) {
        family.push(&[id, name, role.as_label()], seconds(time.run_delay_ns));
    }
}

fn running(family: &mut Family, vm: &VmView, _: Detail) {
    family.push(&labels(vm), if vm.end.is_none() { 1.0 } else { 0.0 });
}

fn vcpus(family: &mut Family, vm: &VmView, _: Detail) {
    if vm.end.is_none() && vm.fixed.vcpus > 0 {
        family.push(&labels(vm), f64::from(vm.fixed.vcpus));
    }
}

fn start(family: &mut Family, vm: &VmView, _: Detail) {
    if vm.end.is_none() {
        family.push(&labels(vm), seconds(vm.fixed.started_at));
    }
}

fn throttled(family: &mut Family, vm: &VmView, _: Detail) {
    if let Some(ns) = vm.throttled_ns {
        family.push(&labels(vm), seconds(ns));
    }
}
