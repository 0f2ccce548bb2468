//! A VM's shape while it runs: each real change is one `vm.compute.resize` line with the whole new shape.
//!
//! vCPUs are KVM's own: descriptors, counted again when a vCPU thread is seen that was not there before, and at each
//! reconcile. Memory is what a manager of the host says; storage the sum of the disks.

use super::Engine;
use crate::{clock::Instant2, units::Tgid, vm::Vm};

/// vCPUs, bytes of memory, bytes of storage.
type Sizes = (u32, u64, u64);

/// A VM's shape as its lines have told it.
fn told(vm: &Vm) -> Sizes {
    (vm.fixed.vcpus, vm.fixed.mem_bytes, vm.fixed.storage_bytes)
}

/// As it is known now.
fn known(vm: &Vm) -> Sizes {
    let told = told(vm);
    (
        vm.sources.vcpus().unwrap_or(told.0),
        vm.sources.live.1.unwrap_or(told.1),
        vm.disk.usage.capacity_bytes.unwrap_or(told.2),
    )
}

impl Engine {
    /// Once a sample: counts vCPUs where one has come, and tells what has changed.
    pub(super) fn follow_shapes(&mut self, at: Instant2) {
        let grown = |vm: &&Vm| vm.sources.counted != vm.vcpu_order.len();
        let grown: Vec<u32> = self.registry.live().filter(grown).map(|vm| vm.fixed.tgid).collect();
        for tgid in grown {
            let held = self.procfs.kvm_fds(Tgid(tgid)).map_or(0, |fds| fds.vcpus);
            if let Some(vm) = self.registry.of_tgid_mut(tgid) {
                vm.sources.counted = vm.vcpu_order.len();
            }
            self.take_held(tgid, held);
            // Whoever plugged it in may have written more down.
            self.ask_identity(tgid);
        }
        let changed = |vm: &&Vm| told(vm) != known(vm);
        let changed: Vec<u32> = self.registry.live().filter(changed).map(|vm| vm.fixed.tgid).collect();
        for tgid in changed {
            self.reshape(tgid, at);
        }
    }

    /// Descriptors of vCPUs that a process holds; none seen says nothing.
    pub(super) fn take_held(&mut self, tgid: u32, held: u32) {
        if let Some(vm) = self.registry.of_tgid_mut(tgid).filter(|vm| held > 0 && !vm.exiting) {
            vm.sources.held = held;
        }
    }

    /// Takes a living VM's shape as it is known now; a change is told. Storage that was not known before is none: the
    /// disks are listed after the start line.
    pub(super) fn reshape(&mut self, tgid: u32, at: Instant2) {
        let Some(vm) = self.registry.of_tgid_mut(tgid).filter(|vm| !vm.exiting) else { return };
        let (old, new) = (told(vm), known(vm));
        if new == old {
            return;
        }
        let fixed = std::sync::Arc::make_mut(&mut vm.fixed);
        (fixed.vcpus, fixed.mem_bytes, fixed.storage_bytes) = new;
        vm.changed = true;
        if (new.0, new.1) == (old.0, old.1) && old.2 == 0 {
            return;
        }
        if let Some(vm) = self.registry.of_tgid(tgid) {
            let draft = self.about(vm).resize(at);
            self.out.push(draft);
        }
    }
}
