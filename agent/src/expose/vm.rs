//! The series of each VM: one row a family, with what a VM adds to it.
//!
//! Each is written as text at once, so a scrape of many VMs needs no memory but that of its text.

use std::sync::Arc;

use super::{
    catalog::{self, Metric},
    disk,
    family::{Family, vm_labels},
    memory, network, work,
};
use crate::{
    account::{Role, Snapshot, VmView},
    vm::Origin,
};
use kvmeter_common::vm::RoleTime;

/// Adds a VM's series to a family; what was not measured of it is left out.
pub type Fill = fn(&mut Family, &VmView, &Snapshot);

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

/// Bytes of a piece of text, about: few enough to stay in a CPU's cache until they are sent.
const PIECE: usize = 64 << 10;
/// What the last VM of a piece may add to it without a copy.
const ROOM: usize = 8 << 10;

/// All families with a `vm_id`, one behind the other, in pieces that are written when they are asked for: who reads slowly
/// holds a snapshot and no text.
pub struct Families {
    snapshot: Arc<Snapshot>,
    labels: Vec<Vec<u8>>,
    rows: Box<dyn Iterator<Item = &'static (&'static Metric, Fill)> + Send>,
    /// The one under way, and its next VM.
    family: Option<(Family, Fill, usize)>,
}

impl Families {
    /// Of all VMs of a snapshot.
    #[must_use]
    pub fn of(snapshot: Arc<Snapshot>) -> Self {
        let labels = snapshot.vms.iter().map(|vm| vm_labels(&vm.fixed.vm_id, &vm.fixed.name)).collect();
        let rows = ROWS.iter().chain(&work::ROWS).chain(&memory::ROWS).chain(&network::ROWS).chain(&disk::ROWS);
        Self { snapshot, labels, rows: Box::new(rows), family: None }
    }
}

impl Iterator for Families {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(PIECE + ROOM);
        loop {
            let (mut family, fill, from) = match self.family.take() {
                Some((family, fill, from)) => (family.on(text), fill, from),
                None => match self.rows.next() {
                    Some((metric, fill)) => (Family::of_vms(metric, text), *fill, 0),
                    None => return Some(text).filter(|text| !text.is_empty()),
                },
            };
            for (place, (vm, labels)) in self.snapshot.vms.iter().zip(&self.labels).enumerate().skip(from) {
                family.vm(labels);
                fill(&mut family, vm, &self.snapshot);
                if family.written() >= PIECE {
                    let piece = family.take();
                    self.family = Some((family, fill, place + 1));
                    return Some(piece);
                }
            }
            text = family.done().0;
        }
    }
}

/// The measured roles.
pub fn roles(vm: &VmView) -> impl Iterator<Item = (Role, RoleTime)> {
    let fine = vm.source != Origin::PROC;
    vm.cpu.iter().flat_map(move |usage| Role::ALL.map(|role| Some((role, usage.told(role, fine)?)))).flatten()
}

fn info(family: &mut Family, vm: &VmView, _: &Snapshot) {
    let fixed = &vm.fixed;
    let known = [vm.uuid(), &fixed.incarnation, &fixed.hypervisor, &fixed.cgroup, vm.tenant()];
    family.push(&known, 1.0);
}

fn cpu(family: &mut Family, vm: &VmView, _: &Snapshot) {
    for (role, time) in roles(vm) {
        family.push_ns(&[role.as_label()], time.runtime_ns);
    }
}

fn delay(family: &mut Family, vm: &VmView, _: &Snapshot) {
    for (role, time) in roles(vm) {
        family.push_ns(&[role.as_label()], time.run_delay_ns);
    }
}

fn running(family: &mut Family, vm: &VmView, _: &Snapshot) {
    family.push(&[], if vm.end.is_none() { 1.0 } else { 0.0 });
}

fn vcpus(family: &mut Family, vm: &VmView, _: &Snapshot) {
    if vm.end.is_none() && vm.fixed.vcpus > 0 {
        family.push(&[], f64::from(vm.fixed.vcpus));
    }
}

fn start(family: &mut Family, vm: &VmView, _: &Snapshot) {
    if vm.end.is_none() {
        family.push_ns(&[], vm.fixed.started_at);
    }
}

fn throttled(family: &mut Family, vm: &VmView, _: &Snapshot) {
    if let Some(ns) = vm.throttled_ns {
        family.push_ns(&[], ns);
    }
}
