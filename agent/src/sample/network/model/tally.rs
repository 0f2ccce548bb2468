//! What one VM is told: per interface it has or had.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::LinkKey;
use crate::{
    account::network::{Interface, InterfaceKind, NetworkUsage, Traffic},
    host::NetNsId,
};

/// Names of former interfaces that are kept apart; beyond them they are told together.
const MAX_PAST: usize = 64;
/// What they are then called.
const OTHERS: &str = "(former)";

pub(super) type Classes = BTreeMap<Arc<str>, Traffic>;

/// One interface in a VM's hands, or former ones of one name.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) held: bool,
    pub(super) unobserved: Option<Arc<str>>,
    pub(super) classes: Classes,
    pub(super) receive_dropped: Option<u64>,
    pub(super) transmit_dropped: Option<u64>,
}

/// Name and kind, as they were when the VM took the interface: a counter that changes its name would start over.
pub(super) type Label = (Arc<str>, InterfaceKind);

/// A VM.
#[derive(Debug, Default)]
pub(super) struct Vm {
    /// What it holds, or held when its interface went.
    pub(super) tallies: BTreeMap<LinkKey, (Label, Tally)>,
    pub(super) past: BTreeMap<Label, Tally>,
    pub(super) passed: BTreeMap<Label, (Arc<str>, bool)>,
    /// Namespaces it lives in or holds something in.
    pub(super) spaces: BTreeSet<NetNsId>,
    /// vhost workers known to write for it.
    pub(super) workers: BTreeSet<u32>,
    /// Interfaces that went to another namespace in its hands, and what of their counters is told already or another's;
    /// none where that is not known.
    pub(super) moved: BTreeMap<Label, Option<Traffic>>,
    /// What was told of it before any of this was counted.
    pub(super) base: Vec<Told>,
    /// An earlier agent knew it, this one has not heard of it; since when.
    pub(super) left_ns: Option<u64>,
    pub(super) published: Option<Arc<NetworkUsage>>,
}

/// What the ledger told: interface, class and traffic.
pub type Told = (Arc<str>, Arc<str>, Traffic);

impl Vm {
    /// The tally of an interface, begun now if there is none.
    pub(super) fn tally(&mut self, link: LinkKey, label: &Label) -> &mut Tally {
        self.published = None;
        &mut self.tallies.entry(link).or_insert_with(|| (label.clone(), Tally::default())).1
    }

    /// Whether drops of this interface were told before.
    pub(super) fn knows_drops(&self, link: LinkKey) -> bool {
        self.tallies.get(&link).is_some_and(|(_, tally)| tally.receive_dropped.is_some())
    }

    /// The interface is no more: its totals go on under its name. True if names had to be put together.
    pub(super) fn close(&mut self, link: LinkKey) -> bool {
        let Some((mut label, tally)) = self.tallies.remove(&link) else { return false };
        self.published = None;
        let full = self.past.len() >= MAX_PAST && !self.past.contains_key(&label);
        if full {
            label.0 = Arc::from(OTHERS);
        }
        let tally = Tally { held: false, ..tally };
        merge(self.past.entry(label).or_default(), &tally);
        full
    }

    /// What it was given of interfaces that are no more.
    pub(super) fn add_past(&mut self, label: Label, tally: &Tally) {
        merge(self.past.entry(label).or_default(), tally);
    }

    /// Connections that cannot be counted; those that are gone stay, as not held.
    pub(super) fn set_passed(&mut self, passed: &[(String, InterfaceKind, String)]) {
        let before = self.passed.clone();
        self.passed.values_mut().for_each(|one| one.1 = false);
        for (name, kind, reason) in passed.iter().take(256) {
            self.passed.insert((Arc::from(name.as_str()), *kind), (Arc::from(reason.as_str()), true));
        }
        if self.passed.len() > 2 * MAX_PAST {
            self.passed.retain(|_, one| one.1);
        }
        if before != self.passed {
            self.published = None;
        }
    }

    /// The process is gone.
    pub(super) fn passed_go(&mut self) {
        self.passed.values_mut().for_each(|one| one.1 = false);
        self.published = None;
    }

    /// What it is told, built again only if something changed.
    pub(super) fn usage(&mut self) -> Arc<NetworkUsage> {
        if let Some(published) = &self.published {
            return Arc::clone(published);
        }
        let mut by_label = self.past.clone();
        for (label, tally) in self.tallies.values() {
            merge(by_label.entry(label.clone()).or_default(), tally);
        }
        let counted = by_label.into_iter().map(|((name, kind), tally)| Interface {
            name,
            kind,
            // What was counted before stays beside it.
            unobserved: tally.unobserved,
            held: tally.held,
            classes: tally.classes,
            receive_dropped: tally.receive_dropped,
            transmit_dropped: tally.transmit_dropped,
        });
        let passed = self.passed.iter().map(|((name, kind), (reason, held))| Interface {
            name: Arc::clone(name),
            kind: *kind,
            unobserved: Some(Arc::clone(reason)),
            held: *held,
            classes: Classes::new(),
            receive_dropped: None,
            transmit_dropped: None,
        });
        let mut interfaces: Vec<Interface> = counted.chain(passed).collect();
        interfaces.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
        let usage = Arc::new(NetworkUsage { interfaces });
        self.published = Some(Arc::clone(&usage));
        usage
    }
}

fn merge(into: &mut Tally, from: &Tally) {
    // What is held says whether it is counted now; of former ones, one that was not is enough.
    if from.held && !into.held || from.held == into.held && from.unobserved.is_some() {
        into.unobserved.clone_from(&from.unobserved);
    }
    into.held |= from.held;
    for (class, traffic) in &from.classes {
        add(into.classes.entry(Arc::clone(class)).or_default(), *traffic);
    }
    let sum = |a: Option<u64>, b: Option<u64>| a.map(|a| a.saturating_add(b.unwrap_or(0))).or(b);
    into.receive_dropped = sum(into.receive_dropped, from.receive_dropped);
    into.transmit_dropped = sum(into.transmit_dropped, from.transmit_dropped);
}

/// Adds up.
pub(super) fn add(sum: &mut Traffic, more: Traffic) {
    sum.receive_bytes = sum.receive_bytes.saturating_add(more.receive_bytes);
    sum.receive_packets = sum.receive_packets.saturating_add(more.receive_packets);
    sum.transmit_bytes = sum.transmit_bytes.saturating_add(more.transmit_bytes);
    sum.transmit_packets = sum.transmit_packets.saturating_add(more.transmit_packets);
}

/// Receive and transmit apart.
pub(super) fn split(traffic: Traffic) -> (Traffic, Traffic) {
    let receive = Traffic { transmit_bytes: 0, transmit_packets: 0, ..traffic };
    (receive, Traffic { receive_bytes: 0, receive_packets: 0, ..traffic })
}

/// What `now` is more than `before`, each number at least 0.
pub(super) fn minus(now: Traffic, before: Traffic) -> Traffic {
    Traffic {
        receive_bytes: now.receive_bytes.saturating_sub(before.receive_bytes),
        receive_packets: now.receive_packets.saturating_sub(before.receive_packets),
        transmit_bytes: now.transmit_bytes.saturating_sub(before.transmit_bytes),
        transmit_packets: now.transmit_packets.saturating_sub(before.transmit_packets),
    }
}
