//! Links as announced and listed: what exists, under which existence, and what was last seen of it.
//!
//! Only taps and macvtaps are kept. A stranger's tap costs its entry here and, at most, a share of a rare sweep.

use std::{collections::HashSet, sync::Arc};

use super::{
    Command, LinkKey, Model,
    port::{Port, State},
};
use crate::{
    account::network::InterfaceKind,
    host::{
        NetNsId,
        link::{Link, LinkChange, LinkStats},
    },
};

/// What is known of a link.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) existence: u64,
    pub(super) kind: InterfaceKind,
    pub(super) name: String,
    pub(super) carrier: bool,
    pub(super) carrier_ups: Option<u32>,
    /// Its carrier changes, and since when they are known to be so many.
    pub(super) changes: Option<(u32, u64)>,
    /// When it was first seen, and its counters then.
    pub(super) first: Option<(u64, LinkStats)>,
    /// Its carrier count and counters when it was last seen in nobody's hands.
    pub(super) unheld: Option<(u32, LinkStats)>,
}

impl Model {
    /// An announcement. True if it is about whether the link exists or what it is called, so that a scan under way may
    /// have seen the one before.
    pub fn change(&mut self, netns: NetNsId, change: &LinkChange, now_ns: u64) -> bool {
        match change {
            LinkChange::New(link) => self.seen(netns, link, now_ns),
            LinkChange::Gone { link, moved } => {
                let stats = link.stats;
                self.vanished(netns, link.ifindex, stats, *moved, now_ns)
            }
        }
    }

    /// All links of a namespace, after announcements were lost or for the first time. Ports whose program is no longer
    /// attached are to be told by [`Model::lost`] first.
    pub fn listed(&mut self, netns: NetNsId, links: &[Link], now_ns: u64) {
        let there: HashSet<u32> = links.iter().map(|link| link.ifindex).collect();
        let gone = self.links.keys().filter(|(of, ifindex)| *of == netns && !there.contains(ifindex));
        let gone: Vec<u32> = gone.map(|(_, ifindex)| *ifindex).collect();
        for ifindex in gone {
            self.vanished(netns, ifindex, None, false, now_ns);
        }
        for link in links {
            self.seen(netns, link, now_ns);
        }
    }

    /// The program is no longer attached: the interface is gone, whatever has its index now.
    pub fn lost(&mut self, link: LinkKey, now_ns: u64) {
        if self.links.get(&(link.netns, link.ifindex)).is_some_and(|known| known.existence == link.existence) {
            self.vanished(link.netns, link.ifindex, None, false, now_ns);
        }
    }

    /// Nobody listens there any more.
    pub fn unwatched(&mut self, netns: NetNsId) {
        self.links.retain(|(of, _), _| *of != netns);
    }

    /// The link with this index now.
    #[must_use]
    pub fn current(&self, netns: NetNsId, ifindex: u32) -> Option<LinkKey> {
        let known = self.links.get(&(netns, ifindex))?;
        Some(LinkKey { netns, ifindex, existence: known.existence })
    }

    /// A link that is open, and how often it was opened before: as long as both stay, so do its holders' files.
    #[must_use]
    pub fn open_since(&self, netns: NetNsId, ifindex: u32) -> Option<(LinkKey, u32)> {
        let known = self.links.get(&(netns, ifindex)).filter(|known| known.carrier)?;
        Some((self.current(netns, ifindex)?, known.carrier_ups?))
    }

    /// Whether a link's carrier was at this count already before that instant, for all that was heard.
    #[must_use]
    pub fn stood(&self, netns: NetNsId, ifindex: u32, changes: u32, before_ns: u64) -> bool {
        let known = self.links.get(&(netns, ifindex)).and_then(|known| known.changes);
        known.is_some_and(|(then, since_ns)| then == changes && since_ns < before_ns)
    }

    pub(super) fn seen(&mut self, netns: NetNsId, link: &Link, now_ns: u64) -> bool {
        let Some(kind) = link.kind else {
            // The index of one that was ours belongs to something else: its end was not told.
            return self.vanished(netns, link.ifindex, None, false, now_ns);
        };
        let place = (netns, link.ifindex);
        if self.links.get(&place).is_some_and(|known| known.kind != kind) {
            self.vanished(netns, link.ifindex, None, false, now_ns);
        }
        let mut touched = false;
        let known = self.links.entry(place).or_insert_with(|| {
            touched = true;
            self.existences += 1;
            Known {
                existence: self.existences,
                kind,
                name: link.name.clone(),
                carrier: false,
                carrier_ups: None,
                changes: None,
                first: link.stats.map(|stats| (now_ns, stats)),
                unheld: None,
            }
        });
        let new_holder = link.carrier && (!known.carrier || known.carrier_ups != link.carrier_ups);
        let changed = known.carrier != link.carrier || new_holder || known.name != link.name;
        touched |= known.name != link.name;
        known.name.clone_from(&link.name);
        (known.carrier, known.carrier_ups) = (link.carrier, link.carrier_ups);
        if known.changes.map(|(changes, _)| changes) != link.carrier_changes {
            known.changes = link.carrier_changes.map(|changes| (changes, now_ns));
        }
        if let (false, Some(ups), Some(stats)) = (link.carrier, link.carrier_ups, link.stats) {
            known.unheld = Some((ups, stats));
        }
        let key = LinkKey { netns, ifindex: link.ifindex, existence: known.existence };
        if self.ports.get(&key).is_some_and(Port::is_attached) && !self.out.contains(&Command::Changed(key)) {
            self.out.push(Command::Changed(key));
        }
        let port = self.ports.get_mut(&key);
        if let Some(port) = port
            && changed
        {
            if port.holders.is_empty() {
                port.label.0 = Arc::from(link.name.as_str());
            }
            self.schedule.soon(&port.holders, now_ns);
            if port.is_attached() {
                // Its accounts are few, and each process that opens it may take one.
                self.want_turn(key);
            }
        }
        if changed && new_holder {
            self.schedule.sweep(netns, now_ns);
        }
        touched
    }

    fn vanished(&mut self, netns: NetNsId, ifindex: u32, stats: Option<LinkStats>, moved: bool, now_ns: u64) -> bool {
        let Some(known) = self.links.remove(&(netns, ifindex)) else { return false };
        let key = LinkKey { netns, ifindex, existence: known.existence };
        if let Some(port) = self.ports.get_mut(&key)
            && port.state != State::Closing
        {
            port.moved = moved;
            if stats.is_some() && port.is_attached() {
                port.stats = stats;
            }
            self.schedule.soon(&port.holders, now_ns);
            port.state = State::Closing;
            self.out.push(Command::Detach(key));
        }
        true
    }
}
