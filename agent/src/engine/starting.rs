//! Why a VM started, and the memory of lives that are over, from which a later start is judged.

use super::Engine;
use crate::{
    clock::Instant2,
    ledger::Draft,
    lifecycle::{
        Start,
        start::{shared_id, start},
    },
    vm::{Teller, Vm, identity::Incoming},
};

impl Engine {
    /// Hands a line that begins or ends a life to this turn's batch, and remembers what it says.
    pub(super) fn tell(&mut self, draft: Draft, now_ns: u64) {
        self.why.past.note(&draft);
        self.why.annotations.note(&draft, now_ns);
        let forgotten = self.why.past.take_forgotten();
        self.count_loss("past", forgotten);
        self.out.push(draft);
    }

    /// Why a VM started that is not told of yet. What was stated beforehand of whose it is goes to the VM.
    pub(super) fn why_started(&mut self, vm: &mut Vm, incoming: &Incoming, at: Instant2) -> Start {
        let before = self.why.past.before(&vm.fixed.vm_id, shared_id(incoming));
        let mut why = start(incoming, before, vm.fixed.adopted);
        let names = self.names(vm);
        let (stated, owners) = self.stated_start(&names, at.boot_ns);
        for (owner, by) in owners {
            vm.owners.tell(Teller::Annotation, owner);
            why.annotated_by = Some(by);
        }
        stated.over_start(&mut why);
        why
    }
}
