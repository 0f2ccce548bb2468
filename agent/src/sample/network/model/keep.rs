//! The model in an agent's book, and back: see [`Book`].

mod words;

use std::collections::BTreeMap;

use super::{
    Command, LinkKey, Model, VmKey,
    accounts::{DECIDE_NS, Pending},
    links::Known,
    port::{Owner, Port},
    tally::{Told, Vm},
};
use crate::sample::network::book::{Book, KeptPending, KeptPort};
use words::{keep_classes, keep_label, keep_port, keep_vm, take_classes, take_label, take_port, take_vm};

/// VMs that are over and wait for the ledger.
const MAX_OVER: usize = 4_096;

/// What a later agent finds of an interface that an earlier one left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is counted still.
    Attached,
    /// It is gone; its counters stayed.
    Gone,
    /// Its counters are not there.
    Lost,
}

impl Model {
    /// Whether something was decided since the last book.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.decided
    }

    /// The book was written, as it was made last: nothing in it is to be emptied any more.
    pub fn written(&mut self) {
        self.decided = false;
        self.ports.values_mut().for_each(|port| port.settled.clear());
    }

    /// Of a VM, what was told before any of this was counted.
    pub fn set_base(&mut self, vm: VmKey, base: Vec<Told>) {
        if let Some(vm) = self.vms.get_mut(&vm) {
            vm.base = base;
            self.decided = true;
        }
    }

    /// The ledger has a VM's last figures.
    pub fn forget(&mut self, vm: VmKey) {
        let before = self.over.len();
        self.over.retain(|(key, _)| *key != vm);
        self.decided |= self.over.len() != before;
    }

    pub(super) fn hold(&mut self, vm: VmKey, figures: Vm) {
        if self.over.len() >= MAX_OVER {
            self.over.remove(0);
        }
        self.over.push((vm, figures));
    }

    /// VMs of an earlier agent that this one never heard of: their stop was in the ledger already.
    pub(super) fn drop_unclaimed(&mut self, now_ns: u64) {
        let late = |vm: &Vm| vm.left_ns.is_some_and(|since| now_ns.saturating_sub(since) >= DECIDE_NS);
        let all: Vec<VmKey> = self.vms.iter().filter(|(_, vm)| late(vm)).map(|(key, _)| *key).collect();
        for vm in all {
            self.ended(vm, now_ns);
            drop(self.finish(vm));
            self.forget(vm);
        }
    }

    /// What is to be left. `number` is an interface's among the programs, if it is counted.
    #[must_use]
    pub fn book(&self, code: &str, number: impl Fn(LinkKey) -> Option<u32>) -> Book {
        let counted = self.ports.iter().filter_map(|(key, port)| Some((*key, keep_port(*key, port, number(*key)?))));
        let (keys, ports): (Vec<LinkKey>, Vec<KeptPort>) = counted.unzip();
        let places: BTreeMap<LinkKey, usize> = keys.into_iter().zip(0..).collect();
        let over = self.over.iter().map(|(key, vm)| (key, vm));
        let pending = self.pending.iter().map(|((link, writer), pending)| KeptPending {
            port: places.get(link).copied(),
            link: Some((link.netns, link.ifindex)),
            writer: *writer,
            label: keep_label(&pending.label),
            first_seen_ns: pending.first_seen_ns,
            classes: keep_classes(&pending.classes),
        });
        Book {
            ports,
            vms: self.vms.iter().chain(over).map(|(key, vm)| keep_vm(*key, vm, &places)).collect(),
            pending: pending.collect(),
            ..Book::first(code, &self.names)
        }
    }

    /// Goes on from a book. `left` says what there is of an interface, `lives` whether a VM's process does; `off_ns` leads
    /// from CLOCK_MONOTONIC to CLOCK_BOOTTIME. Returns the interfaces and their numbers among the programs.
    pub fn resume(
        &mut self,
        book: Book,
        left: impl Fn(u32) -> Left,
        lives: impl Fn(VmKey) -> bool,
        (now_ns, off_ns): (u64, u64),
    ) -> Vec<(LinkKey, u32)> {
        let mut all = Vec::with_capacity(book.ports.len());
        for kept in book.ports {
            self.existences += 1;
            let key = LinkKey { netns: kept.netns, ifindex: kept.ifindex, existence: self.existences };
            let state = left(kept.number);
            all.push((key, kept.number));
            let mut port = take_port(kept, state, now_ns, off_ns);
            // Of one without a writer: somebody else may have it by now.
            for seen in port.accounts.values_mut().filter(|seen| state != Left::Gone && !seen.by_writer) {
                if matches!(seen.owner, Owner::Vm(vm) if !lives(vm)) {
                    // Where it is there for others to open, whoever wrote before may not be who received last.
                    (seen.doubted, seen.owner) =
                        if state == Left::Lost { (true, seen.owner) } else { (false, Owner::Nobody) };
                }
            }
            if state == Left::Attached {
                self.links.insert((key.netns, key.ifindex), known(key, &port));
            } else {
                self.out.push(Command::Detach(key));
            }
            port.expected = port.holder();
            self.ports.insert(key, port);
        }
        for kept in book.vms {
            self.vms.insert(kept.vm, take_vm(kept, &all, now_ns));
        }
        for (key, port) in self.ports.iter().filter(|(_, port)| port.is_attached()) {
            for vm in &port.holders {
                let tally = self.vms.get_mut(vm).and_then(|vm| vm.tallies.get_mut(key));
                tally.into_iter().for_each(|(_, tally)| tally.held = true);
            }
        }
        for kept in book.pending {
            let known = kept.port.and_then(|place| all.get(place)).map(|(key, _)| *key);
            let key = match (known, kept.link) {
                (Some(key), _) => key,
                // Of an interface that is gone: nothing more comes of it, so any number is right that is no other's.
                (None, Some((netns, ifindex))) => {
                    self.existences += 1;
                    LinkKey { netns, ifindex, existence: self.existences }
                }
                (None, None) => continue,
            };
            let (classes, label) = (take_classes(kept.classes), take_label(kept.label));
            let pending = Pending { classes, label, since_ns: now_ns, first_seen_ns: kept.first_seen_ns };
            self.pending.insert((key, kept.writer), pending);
        }
        self.decided = true;
        all
    }
}

/// A link that was there a moment ago; what there is to know of it is announced or listed.
fn known(key: LinkKey, port: &Port) -> Known {
    Known {
        existence: key.existence,
        kind: port.label.1,
        name: port.label.0.as_ref().to_owned(),
        carrier: true,
        carrier_ups: None,
        changes: None,
        first: None,
        unheld: None,
    }
}
