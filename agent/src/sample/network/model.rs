//! Who owns which traffic: pure, no input or output. Facts come in through methods, [`Command`]s go out.
//!
//! Every figure grows by differences of readings, and a difference is given away once: so the sum over all VMs, nobody
//! and the undecided is what the accounts counted, and no VM's figure ever falls. See the parent module for the promise.

mod accounts;
mod before;
mod holders;
mod keep;
mod links;
mod port;
mod queue;
mod schedule;
mod tally;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::programs::{CLASSES, Held};
use crate::{
    account::network::{InterfaceKind, NetworkUsage, Traffic},
    host::{NetNsId, link::Link},
};
use accounts::Pending;
pub use keep::Left;
use links::Known;
use port::Port;
pub use tally::Told;
use tally::Vm;

/// One incarnation of a VM: its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VmKey {
    /// Process id.
    pub tgid: u32,
    /// Start of the process in clock ticks since boot.
    pub start_ticks: u64,
}

/// One existence of an interface: an index may be used again, an existence never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey {
    /// Its namespace.
    pub netns: NetNsId,
    /// Its index there.
    pub ifindex: u32,
    /// Which of all the interfaces that had this index.
    pub existence: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin to count; [`Model::attached`] answers.
    Attach {
        /// Where.
        link: LinkKey,
        /// It is a macvtap.
        reversed: bool,
        /// A tap whose accounts are to begin with its openings, and who holds it.
        held: Option<Held>,
    },
    /// Who holds a tap whose accounts begin with its openings.
    Held(LinkKey, Held),
    /// It changed hands: read, [`Model::accounts`], then [`Model::turn`] says whether a new account begins.
    Turn(LinkKey),
    /// Something was announced about it.
    Changed(LinkKey),
    /// These accounts are taken over.
    Retire(LinkKey, u64),
    /// End the counting; [`Model::detached`] answers.
    Detach(LinkKey),
}

/// An interface that a scan found in a process's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its namespace.
    pub netns: NetNsId,
    /// The link as the kernel shows it now.
    pub link: Link,
    /// It outlives its files; `None` if that could not be asked.
    pub persistent: Option<bool>,
    /// Its carrier changes, which stood still from before the process was looked at: so it held this very opening. Only
    /// where the programs follow openings.
    pub generation: Option<u32>,
}

/// A scan of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The namespace the process lives in.
    pub home: Option<NetNsId>,
    /// What it holds and can be counted.
    pub held: Vec<Holding>,
    /// What cannot be counted: name, kind and reason.
    pub passed: Vec<(String, InterfaceKind, String)>,
}

/// Names of the classes by their numbers.
pub type ClassNames = [Option<Arc<str>>; CLASSES];

/// Other classes.
#[derive(Clone, Debug, Default)]
pub struct ClassChange {
    /// Names by number, of the classes until now and from now on: no number may mean two.
    pub names: ClassNames,
    /// Numbers that nothing is counted under any more.
    pub freed: Vec<usize>,
}

/// What belongs to no VM, and what could not be told. Every number only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unowned {
    /// Traffic on interfaces while no VM held them, or written by processes that are no VM.
    pub traffic: Traffic,
    /// Interfaces whose traffic before the agent may be an earlier VM's, so nobody was told of it.
    pub unknown_before: u64,
    /// Accounts that were smaller than before.
    pub regressions: u64,
    /// Interfaces, VMs' former interfaces or undecided writers that were folded together because there were too many.
    pub folded: u64,
}

/// The model.
#[derive(Default)]
pub struct Model {
    names: ClassNames,
    vms: BTreeMap<VmKey, Vm>,
    links: HashMap<(NetNsId, u32), Known>,
    ports: BTreeMap<LinkKey, Port>,
    /// What writers wrote of whom it is not known yet whether they are VMs.
    pending: BTreeMap<(LinkKey, u32), Pending>,
    /// Who had interfaces of a name when an earlier agent ran, and until when VMs were born that may have got one of them.
    former: BTreeMap<Arc<str>, BTreeSet<VmKey>>,
    former_until_ns: u64,
    /// VMs that are over, until the ledger has their last figures: the first first.
    over: Vec<(VmKey, Vm)>,
    /// Something was decided since [`Model::book`] that a later agent could not work out by itself.
    decided: bool,
    existences: u64,
    unowned: Unowned,
    out: Vec<Command>,
    schedule: schedule::Schedule,
}

impl Model {
    /// Names of the classes, in force from the next reading on: read once more before they change.
    pub fn set_names(&mut self, names: ClassNames) {
        self.names = names;
        self.decided = true;
    }

    /// A class's counts were zeroed in all accounts, after they had been read for the last time.
    pub fn wiped(&mut self, class: usize) {
        let nothing = super::programs::Flow { bytes: 0, packets: 0 };
        let accounts = self.ports.values_mut().flat_map(|port| port.accounts.values_mut());
        for flows in accounts.flat_map(|seen| [&mut seen.last.transmit, &mut seen.last.receive]) {
            flows.get_mut(class).into_iter().for_each(|flow| *flow = nothing);
        }
        self.names.get_mut(class).into_iter().for_each(|name| *name = None);
        self.decided = true;
    }

    /// What is to be done, in this order.
    pub fn commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.out)
    }

    /// A VM runs, now or until a moment ago.
    pub fn born(&mut self, vm: VmKey, now_ns: u64) {
        match self.vms.get_mut(&vm) {
            // An earlier agent knew it.
            Some(known) if known.left_ns.is_some() => known.left_ns = None,
            Some(_) => return,
            None => drop(self.vms.insert(vm, Vm::default())),
        }
        self.decided = true;
        self.schedule.born(vm, now_ns);
        let waiting: Vec<(LinkKey, u32)> =
            self.pending.keys().copied().filter(|(_, writer)| *writer == vm.tgid).collect();
        for key in waiting {
            let exists = self.ports.contains_key(&key.0);
            self.settle_pending(key, vm, exists);
        }
    }

    /// A VM's process is gone: it holds nothing. Its last accounts are still to be read; then [`Model::finish`].
    pub fn ended(&mut self, vm: VmKey, now_ns: u64) {
        self.schedule.forget(vm);
        self.set_held(vm, &BTreeSet::new(), now_ns);
        if let Some(vm) = self.vms.get_mut(&vm) {
            vm.passed_go();
        }
    }

    /// The last figures of a VM; from now on nothing is its.
    pub fn finish(&mut self, vm: VmKey) -> Option<Arc<NetworkUsage>> {
        let mut gone = self.vms.remove(&vm)?;
        self.decided = true;
        for port in self.ports.values_mut() {
            port.forget(vm);
        }
        let usage = gone.usage();
        self.hold(vm, gone);
        Some(usage)
    }

    /// The figures of a VM now.
    pub fn usage(&mut self, vm: VmKey) -> Option<Arc<NetworkUsage>> {
        self.vms.get_mut(&vm).map(Vm::usage)
    }

    /// All VMs.
    pub fn vms(&self) -> impl Iterator<Item = VmKey> {
        self.vms.keys().copied()
    }

    /// All interfaces that are counted.
    pub fn counted(&self) -> Vec<LinkKey> {
        self.ports.iter().filter(|(_, port)| port.is_attached()).map(|(key, _)| *key).collect()
    }

    /// The interfaces a VM has something to do with: held, or written to.
    #[must_use]
    pub fn interfaces_of(&self, vm: VmKey) -> Vec<LinkKey> {
        let of = |port: &Port| port.is_attached() && port.concerns(vm);
        self.ports.iter().filter(|(_, port)| of(port)).map(|(key, _)| *key).collect()
    }

    /// The namespaces somebody must listen in: where VMs live or hold something.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<NetNsId> {
        let of_vms = self.vms.values().flat_map(|vm| vm.spaces.iter().copied());
        let held = self.ports.iter().filter(|(_, port)| !port.holders.is_empty()).map(|(key, _)| key.netns);
        of_vms.chain(held).collect()
    }

    /// Nobody will listen there any more: counting ends; [`Model::unwatched`] when that is done.
    pub fn abandon(&mut self, netns: NetNsId) {
        for (key, port) in self.ports.iter_mut().filter(|(key, _)| key.netns == netns) {
            port.state = port::State::Closing;
            self.out.push(Command::Detach(*key));
        }
    }

    /// What belongs to nobody.
    #[must_use]
    pub fn unowned(&self) -> Unowned {
        self.unowned
    }

    /// Traffic of writers of whom it is not known yet whether they are VMs.
    #[must_use]
    pub fn undecided(&self) -> Traffic {
        let mut sum = Traffic::default();
        for pending in self.pending.values() {
            pending.classes.values().for_each(|traffic| tally::add(&mut sum, *traffic));
        }
        sum
    }
}

#[cfg(test)]
mod tests;
