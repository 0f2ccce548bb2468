//! What VMs are known by, as their series have it: written when a VM comes, goes or is given to another, not at each scrape.

use std::sync::Arc;

use super::{
    catalog,
    family::{OF_VM, Texts, end},
};
use crate::{
    account::{VmView, snapshot::VmFixed},
    vm::owner::Owner,
};

/// Of all VMs of a snapshot, in its order.
#[derive(Debug, Default)]
pub struct Known {
    whose: Vec<(Arc<VmFixed>, Arc<Owner>)>,
    /// What every series of a VM begins with.
    pub labels: Texts,
    /// What the one about nothing else has behind it.
    pub info: Texts,
}

impl Known {
    /// Of these VMs.
    #[must_use]
    pub fn of(vms: &[Arc<VmView>]) -> Self {
        let mut known = Self::default();
        for vm in vms {
            let fixed = &vm.fixed;
            known.labels.push_vm(&fixed.vm_id, &fixed.name);
            let names = catalog::VM_INFO.labels.iter().skip(OF_VM).copied();
            let values = [vm.uuid(), &fixed.incarnation, &fixed.hypervisor, &fixed.cgroup, vm.tenant()];
            known.info.push(|text| end(text, names.zip(values)));
            known.whose.push((Arc::clone(fixed), Arc::clone(&vm.owner)));
        }
        known
    }

    /// Whether it is what these VMs are known by now: it holds what it was written from, so the same place is the same thing.
    #[must_use]
    pub fn is_of(&self, vms: &[Arc<VmView>]) -> bool {
        let is = |(vm, (fixed, owner)): (&Arc<VmView>, &(Arc<VmFixed>, Arc<Owner>))| {
            Arc::ptr_eq(&vm.fixed, fixed) && Arc::ptr_eq(&vm.owner, owner)
        };
        vms.len() == self.whose.len() && vms.iter().zip(&self.whose).all(is)
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests;
