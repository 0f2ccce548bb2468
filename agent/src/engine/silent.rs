//! Whether the hooks of guest entry and exit fire at all: some of KVM's back ends have none, and then what they would
//! give is absent rather than zero.

use super::Engine;
use crate::{
    account::Role,
    bpf::{Hooks, Work},
    vm::{Registry, Vm},
};

/// vCPU time, and returns to user space, after which an entry must have been seen.
const ENOUGH_NS: u64 = 200_000_000;
const ENOUGH_EXITS: u64 = 8;

/// What has been seen of guest entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Entries {
    /// Nothing that would tell.
    #[default]
    Unknown,
    /// Guests ran, and no entry came.
    Silent,
    /// They fire.
    Seen,
}

impl Engine {
    /// Once a sample: believes what it sees.
    pub(super) fn judge_entries(&mut self) {
        let seen = match self.entries {
            Entries::Seen => return,
            before => look(&self.registry).unwrap_or(before),
        };
        if seen == self.entries {
            return;
        }
        self.entries = seen;
        let Some(kernel) = &mut self.kernel else { return };
        if seen == Entries::Seen {
            kernel.mark_silent(Hooks::Entry, None);
        } else {
            let names = self.facts.kvm_backends.join(", ");
            let why = format!("attached, but guests ran and KVM's back end here ({names}) never fired it");
            tracing::warn!("{why}: guest time, modes and exits by reason are absent");
            kernel.mark_silent(Hooks::Entry, None);
            kernel.mark_silent(Hooks::Entry, Some(&why));
        }
        self.host.programs = kernel.statuses().to_vec();
    }
}

fn look(registry: &Registry) -> Option<Entries> {
    // Those in which nothing has happened tell nothing new.
    let works = || registry.live().filter(|vm| vm.changed).filter_map(|vm| Some((vm, vm.work.as_deref()?)));
    if works().any(|(_, work)| work.vcpu.entries > 0) {
        return Some(Entries::Seen);
    }
    works().any(|(vm, work)| has_run_in_sight(vm, work)).then_some(Entries::Silent)
}

/// Whether a VM has run under our eyes for so long that an entry must have been seen.
pub(super) fn has_run_in_sight(vm: &Vm, work: &Work) -> bool {
    let exits: u64 = work.userspace_exits.iter().sum();
    // What an adopted VM ran before says nothing.
    let runtime = vm.cpu.map_or(0, |cpu| cpu.of(Role::Vcpu).runtime_ns);
    exits >= ENOUGH_EXITS || (!vm.fixed.adopted && runtime >= ENOUGH_NS)
}
