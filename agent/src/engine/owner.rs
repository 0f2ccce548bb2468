//! Whose a VM is, learned while it runs: each change is one `vm.identity` line.

use std::sync::Arc;

use super::Engine;
use crate::{
    clock::Instant2,
    vm::{Line, Owner, Teller},
};

impl Engine {
    /// Takes one teller's word on a living VM. A change of what is known is told in a `vm.identity` line, which names
    /// `annotated_by` if somebody stated it; the views show it once that line is durable. True when it is a change.
    pub(super) fn set_owner(
        &mut self,
        tgid: u32,
        teller: Teller,
        owner: Owner,
        annotated_by: Option<&str>,
        at: Instant2,
    ) -> bool {
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return false };
        if !vm.owners.tell(teller, owner) {
            return false;
        }
        vm.changed = true;
        vm.identity_line = Line::Queued;
        if let Some(vm) = self.registry.of_tgid(tgid) {
            let draft = self.about(vm).identity(at, annotated_by);
            let (vm_id, whole) = (vm.fixed.vm_id.clone(), Arc::clone(vm.owners.whole()));
            self.out.push(draft);
            self.storage_belongs(&vm_id, &whole);
        }
        true
    }
}
