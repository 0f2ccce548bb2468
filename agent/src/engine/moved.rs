//! VMs that move from one process of this host to another: what is noted at the newcomer's start, looked at once its guest has
//! run, and judged at the other's end.

use super::Engine;
use crate::{
    bpf::{VmReading, Work},
    lifecycle::Shutoff,
    vm::{Arrival, Vm, identity::Incoming},
};

/// Returns to user space, by any reason.
fn returns(work: &Work) -> u64 {
    work.userspace_exits.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

impl Engine {
    /// Notes of a newcomer where its state may come from.
    pub(super) fn note_arrival(&mut self, vm: &mut Vm, incoming: &Incoming) {
        vm.arrival = self.arrival(vm, incoming);
        self.sample_soon_if(vm.arrival.is_some() && vm.first_run_ns.is_some());
    }

    /// A guest ran whose other process may be let go at any moment: that one is read now.
    pub(super) const fn sample_soon_if(&mut self, ran: bool) {
        if ran {
            self.next_tick_ns = 0;
        }
    }

    /// Whether a newcomer that takes a state in has the UUID of a VM that lives.
    fn arrival(&self, newcomer: &Vm, incoming: &Incoming) -> Option<Arrival> {
        let uuid = newcomer.fixed.uuid.as_str();
        if *incoming != Incoming::Stream || uuid.is_empty() {
            return None;
        }
        let mut same = self.registry.live().filter(|vm| !vm.exiting && vm.fixed.uuid == uuid);
        match (same.next(), same.next()) {
            (Some(vm), None) => Some(Arrival::new(vm.fixed.tgid, vm.fixed.start_ns)),
            // Of two, nobody can say which.
            _ => None,
        }
    }

    /// Once a sample: reads where newcomers may come from, once their guests have run.
    pub(super) fn follow_arrivals(&mut self) {
        let ran = |vm: &Vm| Some((vm.fixed.tgid, vm.arrival?.waits_for()?, vm.first_run_ns?));
        let ran: Vec<_> = self.registry.live().filter_map(ran).collect();
        for (tgid, from, ran_ns) in ran {
            let read = self.registry.of_tgid(from).and_then(|vm| Some((returns(vm.work.as_deref()?), vm.alive_ns)));
            let arrival = self.registry.of_tgid_mut(tgid).and_then(|vm| vm.arrival.as_mut());
            if let (Some(arrival), Some((count, read_ns))) = (arrival, read) {
                arrival.look(count, read_ns, ran_ns);
            }
        }
    }

    /// Why a VM's process was let go, if its guest runs in another one now.
    pub(super) fn moved_away(&self, reading: &VmReading) -> Option<Shutoff> {
        let vm = self.registry.of_tgid(reading.tgid)?;
        let (start_ns, count) = (vm.fixed.start_ns, returns(&reading.work));
        let here = |other: &Vm| {
            !other.exiting
                && other.arrival.is_some_and(|from| from.is_from(reading.tgid, start_ns) && from.has_moved(count))
        };
        self.registry.live().any(here).then_some(Shutoff::Migrated)
    }
}
