//! What passed through a VM's network interfaces, as the guest sees it: receive is into the guest.

mod traffic;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::class::{EXTERNAL, UNCLASSIFIED};
pub use traffic::Traffic;

/// How a VM is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum InterfaceKind {
    /// A tap, of one queue or several.
    Tap,
    /// A macvtap or ipvtap, whose hooks run the other way round.
    Macvtap,
    /// A user-space switch holds the other end: the kernel sees no packet.
    VhostUser,
    /// vhost-vdpa: the device moves the packets.
    Vdpa,
    /// A network device, or a virtual function of one (SR-IOV), passed through by vfio.
    Vfio,
}

impl InterfaceKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Tap, Self::Macvtap, Self::VhostUser, Self::Vdpa, Self::Vfio];

    /// The word of label `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
            Self::VhostUser => "vhost-user",
            Self::Vdpa => "vdpa",
            Self::Vfio => "vfio",
        }
    }
}

/// One interface of a VM, also after it is gone: its totals stay until its VM goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name on the host; several of one name are told together.
    pub name: Arc<str>,
    /// How the VM is connected.
    pub kind: InterfaceKind,
    /// Why its packets are not counted; `None` where they are. Never a zero instead; figures beside it are what was counted
    /// before, under this name.
    pub unobserved: Option<Arc<str>>,
    /// The VM holds it now.
    pub held: bool,
    /// By class; empty where nothing was ever observed.
    pub classes: BTreeMap<Arc<str>, Traffic>,
    /// Packets for the guest that the link dropped because the guest took none, part of `receive_packets`.
    pub receive_dropped: Option<u64>,
    /// Packets of the guest that the link dropped.
    pub transmit_dropped: Option<u64>,
}

/// All interfaces of a VM, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkUsage {
    /// In order of their names.
    pub interfaces: Vec<Interface>,
}

impl NetworkUsage {
    /// Bytes into and out of the guest, without what had passed before counting began; `None` where nothing is counted.
    #[must_use]
    pub fn seen_passing(&self) -> Option<(u64, u64)> {
        // One that is counted no more keeps what it had.
        let is_counted = |interface: &&Interface| interface.unobserved.is_none() || !interface.classes.is_empty();
        let mut counted = self.interfaces.iter().filter(is_counted).peekable();
        counted.peek()?;
        let classes = counted.flat_map(|interface| &interface.classes).filter(|(class, _)| &***class != UNCLASSIFIED);
        let add = |sum: Traffic, (_, traffic): (&Arc<str>, &Traffic)| sum.plus(traffic);
        let sum = classes.fold(Traffic::default(), add);
        Some((sum.receive_bytes, sum.transmit_bytes))
    }
}

/// Interfaces of one VM that are told by name; the rest are told together. The ledger's contract.
pub const NAMED: usize = 16;
/// The name of the rest.
pub const OTHER: &str = "other";

type Classes = BTreeMap<Arc<str>, Traffic>;

/// What the views are told of one VM's interfaces over its whole life: goes on from what an earlier agent told, names at
/// most [`NAMED`] interfaces (the first ones seen, for ever), and never falls.
#[derive(Clone, Debug, Default)]
pub struct Continued {
    /// What earlier agents told, by interface.
    told: BTreeMap<Arc<str>, Classes>,
    /// Interfaces with a name of their own.
    named: Vec<Arc<str>>,
    last: Option<Arc<NetworkUsage>>,
    /// The reading that was taken over last.
    read: Option<Arc<NetworkUsage>>,
}

impl Continued {
    /// Goes on from an earlier agent's newest line: interface, class and traffic.
    pub fn resume<'a>(told: impl IntoIterator<Item = (&'a str, &'a str, Traffic)>) -> Self {
        let mut all = Self::default();
        for (interface, class, traffic) in told {
            let name = all.name(interface);
            all.told.entry(name).or_default().insert(class.into(), traffic);
        }
        all.last = (!all.told.is_empty()).then(|| Arc::new(all.fold(&NetworkUsage::default())));
        all
    }

    /// The same where counts go on over agents: `base` is what was told before any of them, `told` what is told by now, less
    /// than which is never told again.
    pub fn resume_from<'a>(
        base: impl IntoIterator<Item = (&'a str, &'a str, Traffic)>,
        told: impl IntoIterator<Item = (&'a str, &'a str, Traffic)>,
    ) -> Self {
        let by_now = Self::resume(told);
        let mut all = Self { named: by_now.named, last: by_now.last, ..Self::default() };
        for (interface, class, traffic) in base {
            let name = all.name(interface);
            let sum = all.told.entry(name).or_default().entry(class.into()).or_default();
            *sum = sum.plus(&traffic);
        }
        all
    }

    /// The newest state; `None` if nothing was ever measured.
    #[must_use]
    pub const fn last(&self) -> Option<&Arc<NetworkUsage>> {
        self.last.as_ref()
    }

    /// As [`Self::take`]; the same reading again, as an idle VM's is, costs nothing.
    pub fn take_shared(&mut self, now: &Arc<NetworkUsage>) -> bool {
        let same = self.read.as_ref().is_some_and(|read| Arc::ptr_eq(read, now));
        if !same {
            self.read = Some(Arc::clone(now));
        }
        !same && self.take(now)
    }

    /// Takes a reading over. True when a counter would have fallen (it is kept instead).
    pub fn take(&mut self, now: &NetworkUsage) -> bool {
        let mut next = self.fold(now);
        let mut fell = false;
        for before in self.last.iter().flat_map(|last| &last.interfaces) {
            match next.interfaces.iter_mut().find(|interface| interface.name == before.name) {
                Some(interface) => fell |= hold(interface, before),
                // The reading forgot it: its totals stay.
                None => next.interfaces.push(Interface { held: false, ..before.clone() }),
            }
        }
        next.interfaces.sort_by(|a, b| a.name.cmp(&b.name));
        if self.last.as_deref() != Some(&next) {
            self.last = Some(Arc::new(next));
        }
        fell
    }

    fn name(&mut self, interface: &str) -> Arc<str> {
        if let Some(known) = self.named.iter().find(|known| ***known == *interface) {
            return Arc::clone(known);
        }
        if interface == OTHER || self.named.len() >= NAMED {
            return OTHER.into();
        }
        self.named.push(interface.into());
        interface.into()
    }

    fn fold(&mut self, now: &NetworkUsage) -> NetworkUsage {
        let mut all: BTreeMap<Arc<str>, Interface> = BTreeMap::new();
        for interface in &now.interfaces {
            let name = self.name(&interface.name);
            match all.get_mut(&name) {
                Some(first) => add(first, interface),
                None => drop(all.insert(Arc::clone(&name), Interface { name, ..interface.clone() })),
            }
        }
        for (name, told) in &self.told {
            let gone = Interface {
                name: Arc::clone(name),
                kind: InterfaceKind::Tap,
                unobserved: None,
                held: false,
                classes: BTreeMap::new(),
                receive_dropped: None,
                transmit_dropped: None,
            };
            let interface = all.entry(Arc::clone(name)).or_insert(gone);
            interface.classes = go_on(told, &interface.classes);
        }
        for interface in all.values_mut().filter(|interface| interface.unobserved.is_none()) {
            // Counted and nothing passed yet: that is a zero, so that the first packet is seen as one.
            interface.classes.entry(EXTERNAL.into()).or_default();
        }
        NetworkUsage { interfaces: all.into_values().collect() }
    }
}

/// Counts begin anew with each agent, and what the link had counted by then comes as `unclassified`. What an earlier
/// agent told is in that, so it is taken out there and stays with the classes it was told under. An interface that was
/// made anew meanwhile has a link that counts from zero: then the part up to what was told is lost, never told twice.
fn go_on(told: &Classes, now: &Classes) -> Classes {
    let before = told.values().fold(Traffic::default(), |sum, traffic| sum.plus(traffic));
    let mut all = now.clone();
    if let Some(unclassified) = all.get_mut(UNCLASSIFIED) {
        *unclassified = unclassified.beyond(&before);
    }
    for (class, traffic) in told {
        let sum = all.entry(Arc::clone(class)).or_default();
        *sum = sum.plus(traffic);
    }
    all
}

/// Adds one interface's numbers to those of another told under the same name.
fn add(to: &mut Interface, more: &Interface) {
    for (class, traffic) in &more.classes {
        let sum = to.classes.entry(Arc::clone(class)).or_default();
        *sum = sum.plus(traffic);
    }
    let plus = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    };
    to.receive_dropped = plus(to.receive_dropped, more.receive_dropped);
    to.transmit_dropped = plus(to.transmit_dropped, more.transmit_dropped);
    to.held |= more.held;
    if to.unobserved.is_none() {
        to.unobserved.clone_from(&more.unobserved);
    }
}

/// Keeps every number of `before` that is higher; says whether there was one.
fn hold(now: &mut Interface, before: &Interface) -> bool {
    let mut fell = false;
    for (class, old) in &before.classes {
        let new = now.classes.entry(Arc::clone(class)).or_default();
        let kept = new.at_least(old);
        fell |= kept != *new;
        *new = kept;
    }
    for (new, old) in
        [(&mut now.receive_dropped, before.receive_dropped), (&mut now.transmit_dropped, before.transmit_dropped)]
    {
        let kept = (*new).max(old);
        fell |= kept != *new && new.is_some();
        *new = kept;
    }
    fell
}

#[cfg(test)]
mod tests;
