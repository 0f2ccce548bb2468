//! What passed before our program was attached, and what the link dropped: from the link's own counters.
//!
//! Link minus ours, read in this order, is never more than passed before; the highest value seen is told, which is exact
//! from the first quiet moment on. Whose it is must be certain: an interface that outlives its holders counted for
//! others too, so there the counters at the last moment nobody held it are the start.

use std::{collections::HashMap, sync::Arc};

use super::{
    LinkKey, Model, VmKey,
    links::Known,
    port::{Owner, Port},
    tally,
};
use crate::{
    account::network::{InterfaceKind, Traffic},
    host::{NetNsId, link::LinkStats},
};

/// The class of what passed before.
const UNCLASSIFIED: &str = "unclassified";

/// What is known of the time before the program was attached.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// Whose that time was; `None` if not known.
    pub(super) owner: Option<VmKey>,
    /// The link's counters when that VM took it.
    pub(super) start: Traffic,
    /// Drops at that moment, receive and transmit; `None` if not known.
    pub(super) dropped: Option<(u64, u64)>,
    /// Told so far.
    pub(super) told: Traffic,
}

impl Before {
    /// For a VM that holds the link now.
    pub(super) fn of(known: &Known, persistent: Option<bool>, vm: VmKey) -> Self {
        let reversed = known.kind == InterfaceKind::Macvtap;
        let from = |stats: LinkStats| Self {
            owner: Some(vm),
            start: guest(stats, reversed),
            dropped: Some(dropped(stats, reversed)),
            told: Traffic::default(),
        };
        if persistent == Some(false) {
            // It exists through its files alone, so it was made for whoever holds them.
            return from(LinkStats::default());
        }
        if reversed {
            // Nothing tells of earlier holders. Management makes one a VM; what it had before the VM began is not its.
            let early = known.first.filter(|(at_ns, _)| *at_ns <= vm.start_ticks.saturating_mul(10_000_000));
            return from(early.map_or_else(LinkStats::default, |(_, stats)| stats));
        }
        match (known.carrier_ups, known.unheld) {
            // Made, let go of, and taken once: by the one who holds it now.
            (Some(0 | 1), _) => from(LinkStats::default()),
            (Some(ups), Some((before, stats))) if ups == before.saturating_add(1) => from(stats),
            _ => Self::default(),
        }
    }
}

impl Port {
    /// What of the link's counters is told or belongs to others.
    pub(super) fn told(&self) -> Traffic {
        let mut sum = self.before.start;
        tally::add(&mut sum, self.before.told);
        tally::add(&mut sum, self.counted);
        sum
    }
}

impl Model {
    /// The counters of a namespace's links. To be called before the accounts are read again; then [`Model::narrowed`].
    pub fn stats(&mut self, netns: NetNsId, stats: &HashMap<u32, LinkStats>) {
        for (key, port) in self.ports.iter_mut().filter(|(key, port)| key.netns == netns && port.is_attached()) {
            let Some(now) = stats.get(&key.ifindex) else { continue };
            let reversed = port.reversed();
            let (receive, transmit) = dropped(*now, reversed);
            let last = port.stats.map(|stats| dropped(stats, reversed)).or(port.before.dropped);
            port.stats = Some(*now);
            let (last, Owner::Vm(vm)) = (last.unwrap_or((receive, transmit)), port.holder()) else { continue };
            if let Some(vm) = self.vms.get_mut(&vm) {
                let add = |sum: &mut Option<u64>, more: u64| *sum = Some(sum.unwrap_or(0).saturating_add(more));
                let more = (receive.saturating_sub(last.0), transmit.saturating_sub(last.1));
                if more != (0, 0) || !vm.knows_drops(*key) {
                    let tally = vm.tally(*key, &port.label);
                    add(&mut tally.receive_dropped, more.0);
                    add(&mut tally.transmit_dropped, more.1);
                }
            }
        }
    }

    /// After [`Model::stats`] and the accounts: what passed before is known better.
    pub fn narrowed(&mut self) {
        let known = |port: &Port| port.stats.filter(|_| port.is_attached() && port.before.owner.is_some());
        let all: Vec<_> = self.ports.iter().filter_map(|(key, port)| Some((*key, known(port)?))).collect();
        all.into_iter().for_each(|(key, stats)| self.narrow(key, stats));
    }

    pub(super) fn narrow(&mut self, link: LinkKey, stats: LinkStats) {
        let Some(port) = self.ports.get_mut(&link) else { return };
        let Some(owner) = port.before.owner.filter(|vm| self.vms.contains_key(vm)) else { return };
        let more = tally::minus(guest(stats, port.reversed()), port.told());
        if more != Traffic::default() {
            self.decided = true;
            tally::add(&mut port.before.told, more);
            let label = port.label.clone();
            self.give(Owner::Vm(owner), link, &label, Arc::from(UNCLASSIFIED), more);
        }
    }
}

/// The link's counters as the guest sees them.
pub(super) fn guest(stats: LinkStats, reversed: bool) -> Traffic {
    if reversed {
        return Traffic {
            receive_bytes: stats.rx_bytes,
            receive_packets: stats.rx_packets,
            transmit_bytes: stats.tx_bytes,
            transmit_packets: stats.tx_packets.saturating_add(stats.tx_dropped),
        };
    }
    Traffic {
        receive_bytes: stats.tx_bytes,
        receive_packets: stats.tx_packets.saturating_add(stats.tx_dropped),
        transmit_bytes: stats.rx_bytes,
        transmit_packets: stats.rx_packets,
    }
}

/// Packets to the guest and of the guest that the link dropped.
pub(super) fn dropped(stats: LinkStats, reversed: bool) -> (u64, u64) {
    if reversed { (stats.rx_dropped, stats.tx_dropped) } else { (stats.tx_dropped, stats.rx_dropped) }
}
