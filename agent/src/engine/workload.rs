//! Which of a VM's labels is the address of its workload's own metrics, and whose word that may be.

use crate::{
    vm::{Owners, Teller, Vm},
    workload::{Asker, Signal},
};

/// What the VM's workload says since its last sample; asks it again.
pub(super) fn workload(asker: &Asker, vm: &mut Vm) -> Option<Signal> {
    asker.turn(&mut vm.workload, address(asker.label(), &vm.owners))
}

/// Only the operator says where this agent goes: in the inventory, or in an annotation, which an earlier agent may have
/// heard. What the VMM's command line or a domain's file says may be its tenant's word.
fn address<'a>(label: &str, owners: &'a Owners) -> Option<&'a str> {
    let said = |teller| owners.told(teller).and_then(|owner| owner.labels.get(label));
    let known = owners.whole().labels.get(label)?;
    let by_operator = [Teller::Inventory, Teller::Annotation].into_iter().any(|teller| said(teller) == Some(known));
    let by_vmm = said(Teller::Source) == Some(known);
    (by_operator || !by_vmm).then_some(known.as_str())
}
