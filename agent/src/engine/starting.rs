//! Why a VM started, and the memory of lives that are over, from which a later start is judged.

use super::Engine;
use crate::{
    account::snapshot::VmFixed,
    ledger::Draft,
    lifecycle::{
        Start,
        start::{shared_id, start},
    },
    vm::identity::Incoming,
};

impl Engine {
    /// Hands a line that begins or ends a life to this turn's batch, and remembers what it says.
    pub(super) fn tell(&mut self, draft: Draft) {
        self.past.note(&draft);
        let forgotten = self.past.take_forgotten();
        self.count_loss("past", forgotten);
        self.out.push(draft);
    }

    /// Why a VM started that is not told of yet.
    pub(super) fn why_started(&self, fixed: &VmFixed, incoming: &Incoming) -> Start {
        start(incoming, self.past.before(&fixed.vm_id, shared_id(incoming)), fixed.adopted)
    }
}
