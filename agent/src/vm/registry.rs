//! All VMs: the living, and the dead that are still shown. Decides which vm_id a newcomer may have.

use std::collections::{HashMap, VecDeque};

use super::Vm;

/// Stopped VMs shown at once.
pub const MAX_LINGERING: usize = 1_000;

/// Every VM the agent knows.
#[derive(Default)]
pub struct Registry {
    /// Boxed: a table is half empty, and a VM is large.
    live: HashMap<u32, Box<Vm>>,
    by_id: HashMap<String, u32>,
    stopped: VecDeque<Vm>,
    dropped: u64,
}

impl Registry {
    /// The living VM of a process.
    #[must_use]
    pub fn of_tgid(&self, tgid: u32) -> Option<&Vm> {
        self.live.get(&tgid).map(Box::as_ref)
    }

    /// The same, to change.
    pub fn of_tgid_mut(&mut self, tgid: u32) -> Option<&mut Vm> {
        self.live.get_mut(&tgid).map(Box::as_mut)
    }

    /// Whether a living VM has this vm_id.
    #[must_use]
    pub fn is_taken(&self, vm_id: &str) -> bool {
        self.by_id.contains_key(vm_id)
    }

    /// The vm_id of the life of a process that began at `start_ns` (CLOCK_BOOTTIME), living or lingering.
    #[must_use]
    pub fn vm_id_of(&self, tgid: u32, start_ns: u64) -> Option<&str> {
        let is = |vm: &&Vm| (vm.fixed.tgid, vm.fixed.start_ns) == (tgid, start_ns);
        let found = self.of_tgid(tgid).filter(is).or_else(|| self.stopped.iter().rev().find(is));
        found.map(|vm| vm.fixed.vm_id.as_str())
    }

    /// How many there are, living and lingering.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len() + self.stopped.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The living and the lingering, to change.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Vm> {
        self.live.values_mut().map(Box::as_mut).chain(&mut self.stopped)
    }

    /// Adds a newcomer under its vm_id, which is free. A lingering VM of that id gives way at once.
    pub fn insert(&mut self, vm: Vm) {
        let vm_id = vm.fixed.vm_id.clone();
        self.stopped.retain(|old| old.fixed.vm_id != vm_id);
        self.by_id.insert(vm_id, vm.fixed.tgid);
        self.live.insert(vm.fixed.tgid, Box::new(vm));
    }

    /// Moves a VM that has ended to those that linger; the oldest of too many are dropped and counted.
    pub fn retire(&mut self, tgid: u32) {
        let Some(vm) = self.live.remove(&tgid) else { return };
        self.by_id.remove(&vm.fixed.vm_id);
        self.stopped.push_back(*vm);
        while self.stopped.len() > MAX_LINGERING {
            self.stopped.pop_front();
            self.dropped += 1;
        }
    }

    /// Drops stopped VMs that ended before `boot_ns` (CLOCK_BOOTTIME).
    pub fn expire(&mut self, boot_ns: u64) {
        self.stopped.retain(|vm| vm.end.as_ref().is_none_or(|end| end.stop_ns >= boot_ns));
    }

    /// The living, in no order.
    pub fn live(&self) -> impl Iterator<Item = &Vm> {
        self.live.values().map(Box::as_ref)
    }

    /// The same, to change.
    pub fn live_mut(&mut self) -> impl Iterator<Item = &mut Vm> {
        self.live.values_mut().map(Box::as_mut)
    }

    /// The lingering, oldest first.
    pub fn stopped(&self) -> impl Iterator<Item = &Vm> {
        self.stopped.iter()
    }

    /// The same, to change.
    pub fn stopped_mut(&mut self) -> impl Iterator<Item = &mut Vm> {
        self.stopped.iter_mut()
    }

    /// How many lingering VMs were dropped for lack of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{account::snapshot::VmFixed, vm::Origin};

    fn vm(vm_id: &str, tgid: u32) -> Vm {
        let fixed = VmFixed { vm_id: vm_id.into(), tgid, ..VmFixed::default() };
        Vm::new(fixed, Origin::Slot(1), 0, 0)
    }

    #[test]
    fn a_new_incarnation_replaces_a_lingering_one_at_once() {
        let mut registry = Registry::default();
        registry.insert(vm("a", 1));
        registry.retire(1);
        assert_eq!(registry.stopped().count(), 1);
        registry.insert(vm("a", 2));
        assert_eq!((registry.stopped().count(), registry.live().count()), (0, 1));
    }

    #[test]
    fn lingering_vms_are_bounded_and_what_that_cost_is_counted() {
        let mut registry = Registry::default();
        for tgid in 0..1_005 {
            registry.insert(vm(&format!("v{tgid}"), tgid));
            registry.retire(tgid);
        }
        assert_eq!((registry.stopped().count(), registry.dropped()), (MAX_LINGERING, 5));
        assert_eq!(registry.stopped().next().unwrap().fixed.vm_id, "v5");
    }
}
