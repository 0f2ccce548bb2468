//! The series of each VM: one row a family, with what a VM adds to it.
//!
//! Each VM is asked once for all of them, and the text is written from what was gathered, 16 bytes a line.

use std::{hint::black_box, sync::Arc, vec::IntoIter};

use super::{
    catalog::{self, Metric},
    disk,
    family::Column,
    known::Known,
    memory, network, work,
};
use crate::{
    account::{Role, Snapshot, VmView},
    vm::Origin,
};
use kvmeter_common::vm::RoleTime;

/// Adds a VM's series to a family; what was not measured of it is left out.
pub type Fill = fn(&mut Column, &VmView, &Snapshot);

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
/// What the last line of a piece may add to it without a copy.
const ROOM: usize = 8 << 10;

/// VMs that are looked at together before each is asked: what is known of them fits into a CPU's first cache.
const AHEAD: usize = 8;

/// All families with a `vm_id`, one behind the other, in pieces that are written when they are asked for: who reads slowly
/// holds their numbers and no text.
pub struct Families {
    known: Arc<Known>,
    columns: IntoIter<Column>,
    /// The one under way, and its next line.
    column: Option<(Column, usize)>,
}

impl Families {
    /// Of all VMs of a snapshot, and what they are known by.
    #[must_use]
    pub fn of(snapshot: &Snapshot, known: Arc<Known>) -> Self {
        let rows = ROWS.iter().chain(&work::ROWS).chain(&memory::ROWS).chain(&network::ROWS).chain(&disk::ROWS);
        let mut columns: Vec<(Column, Fill)> = rows.map(|(metric, fill)| (Column::new(metric), *fill)).collect();
        for (place, vm) in (0..).zip(snapshot.vms.chunks(AHEAD).inspect(|some| touch(some)).flatten()) {
            for (column, fill) in &mut columns {
                column.vm(place);
                fill(column, vm, snapshot);
                // Most VMs have what the first one has.
                if place == 0 {
                    column.reserve(snapshot.vms.len());
                }
            }
        }
        let columns: Vec<Column> = columns.into_iter().map(|(column, _)| column).collect();
        Self { known, columns: columns.into_iter(), column: None }
    }
}

impl Iterator for Families {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(PIECE + ROOM);
        while let Some((column, from)) = self.column.take().or_else(|| Some((self.columns.next()?, 0))) {
            if let Some(next) = column.write(from, PIECE, &self.known, &mut text) {
                self.column = Some((column, next));
                break;
            }
        }
        Some(text).filter(|text| !text.is_empty())
    }
}

/// Reads a little of all that is known of VMs, so that it is on its way from memory for all of them at the same time:
/// one VM after the other, a CPU waits for each of some ten places. `cargo xtask bench --only metrics` shows what it is worth.
fn touch(vms: &[Arc<VmView>]) {
    let first = |text: &str| text.as_bytes().first().map_or(0, |byte| u64::from(*byte));
    let all = |numbers: &[u64]| numbers.iter().fold(0, |sum, number| sum ^ number);
    let mut sum = 0;
    for vm in vms {
        let told =
            [vm.guest_ns, vm.halt_poll_ns, vm.throttled_ns, vm.first_run_ns, vm.sockets.map(|bytes| bytes.receive)];
        sum ^= told.iter().flatten().fold(vm.read_ns, |sum, number| sum ^ number);
        sum ^= vm.cpu.map_or(0, |cpu| cpu.runtime_ns()) ^ u64::from(vm.end.is_some()) ^ vm.source.len() as u64;
    }
    for vm in vms {
        if let Some(work) = vm.work.as_deref() {
            sum ^= work.vcpu.entries ^ all(&work.vcpu.handling) ^ all(&work.vcpu.exits) ^ work.vcpus.len() as u64;
            sum ^= all(&work.waits) ^ all(&work.waited_ns) ^ all(&work.userspace_exits);
        }
        if let Some(memory) = vm.memory.as_deref() {
            let told = [memory.hugetlb_bytes, memory.pss_bytes, memory.guest_faults, memory.peak_bytes];
            sum ^= told.iter().flatten().fold(u64::from(memory.stands), |sum, number| sum ^ number);
            sum ^= memory.resident.map_or(0, |by| by.anon_bytes) ^ memory.faults.map_or(0, |by| by.minor);
        }
        sum ^=
            vm.disk.as_ref().map_or(0, |disk| disk.io.map_or(0, |io| io.read_bytes) ^ disk.capacity_bytes.unwrap_or(0));
        sum ^= vm.network.as_ref().map_or(0, |network| network.interfaces.len() as u64);
        sum ^= vm.fixed.started_at ^ u64::from(vm.fixed.vcpus) ^ vm.fixed.mem_bytes;
        sum ^= vm.offenders.iter().flatten().count() as u64;
    }
    for vm in vms {
        for vcpu in vm.work.iter().flat_map(|work| &work.vcpus) {
            sum ^= vcpu.time.runtime_ns ^ all(&vcpu.times.mode_ns) ^ u64::from(vcpu.tid);
        }
        sum ^= vm.offenders.iter().flatten().fold(0, |sum, name| sum ^ first(name));
        let interfaces = vm.network.iter().flat_map(|network| &network.interfaces);
        sum ^= interfaces.fold(0, |sum, interface| sum ^ first(&interface.name));
    }
    black_box(sum);
}

/// The measured roles.
pub fn roles(vm: &VmView) -> impl Iterator<Item = (Role, RoleTime)> {
    let fine = vm.source != Origin::PROC;
    Role::ALL.into_iter().filter_map(move |role| Some((role, vm.cpu.as_ref()?.told(role, fine)?)))
}

fn info(family: &mut Column, _: &VmView, _: &Snapshot) {
    family.push_known();
}

fn cpu(family: &mut Column, vm: &VmView, _: &Snapshot) {
    for (role, time) in roles(vm) {
        family.push_word_ns(role.as_label(), time.runtime_ns);
    }
}

fn delay(family: &mut Column, vm: &VmView, _: &Snapshot) {
    for (role, time) in roles(vm) {
        family.push_word_ns(role.as_label(), time.run_delay_ns);
    }
}

fn running(family: &mut Column, vm: &VmView, _: &Snapshot) {
    family.push(u64::from(vm.end.is_none()));
}

fn vcpus(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if vm.end.is_none() && vm.fixed.vcpus > 0 {
        family.push(vm.fixed.vcpus.into());
    }
}

fn start(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if vm.end.is_none() {
        family.push_ns(vm.fixed.started_at);
    }
}

fn throttled(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if let Some(ns) = vm.throttled_ns {
        family.push_ns(ns);
    }
}
