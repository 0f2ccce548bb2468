//! When which process is scanned: a new VM several times, one concerned by an event at once, all of a namespace rarely.

use std::collections::{BTreeMap, BTreeSet};

use super::{LinkKey, Model, VmKey};
use crate::host::NetNsId;

/// When a new VM is looked at: VMMs open taps before or after the first entry into the guest.
const NEW_VM_NS: [u64; 4] = [0, 200_000_000, 1_000_000_000, 5_000_000_000];
/// From an event to the sweep it causes: several events make one.
const SWEEP_NS: u64 = 50_000_000;
/// A sweep that took one second is followed by a hundred without one.
const SWEEP_SHARE: u64 = 100;

#[derive(Debug, Default)]
pub(super) struct Schedule {
    at: BTreeSet<(u64, VmKey)>,
    turns: BTreeSet<(u64, LinkKey)>,
    sweeps: BTreeMap<NetNsId, u64>,
    /// No sweep before this instant.
    quiet_until_ns: u64,
}

impl Schedule {
    pub(super) fn born(&mut self, vm: VmKey, now_ns: u64) {
        self.at.extend(NEW_VM_NS.map(|after| (now_ns.saturating_add(after), vm)));
    }

    pub(super) fn forget(&mut self, vm: VmKey) {
        self.at.retain(|(_, of)| *of != vm);
    }

    pub(super) fn soon(&mut self, vms: &[VmKey], now_ns: u64) {
        self.at.extend(vms.iter().map(|vm| (now_ns, *vm)));
    }

    pub(super) fn turn(&mut self, link: LinkKey, at_ns: u64) {
        self.turns.insert((at_ns, link));
    }

    pub(super) fn sweep(&mut self, netns: NetNsId, now_ns: u64) {
        let at = now_ns.saturating_add(SWEEP_NS).max(self.quiet_until_ns);
        self.sweeps.entry(netns).or_insert(at);
    }
}

impl Model {
    /// A VM is looked at now (it moved to another cgroup, a scan could not be finished).
    pub fn look(&mut self, vm: VmKey, at_ns: u64) {
        if self.vms.contains_key(&vm) {
            self.schedule.soon(&[vm], at_ns);
        }
    }

    /// All processes of a namespace are looked at soon (announcements were lost).
    pub fn sweep(&mut self, netns: NetNsId, now_ns: u64) {
        self.schedule.sweep(netns, now_ns);
    }

    /// The processes to scan now; the flag says that it is a sweep, whose cost [`Model::swept`] wants to know.
    pub fn due(&mut self, now_ns: u64) -> (BTreeSet<VmKey>, bool) {
        let later = self.schedule.at.split_off(&(now_ns.saturating_add(1), VmKey { tgid: 0, start_ticks: 0 }));
        let now = std::mem::replace(&mut self.schedule.at, later);
        while let Some((_, link)) = self.schedule.turns.first().copied().filter(|(at, _)| *at <= now_ns) {
            self.schedule.turns.pop_first();
            self.want_turn(link);
        }
        let mut vms: BTreeSet<VmKey> = now.into_iter().map(|(_, vm)| vm).collect();
        let swept: Vec<NetNsId> =
            self.schedule.sweeps.iter().filter(|(_, at)| **at <= now_ns).map(|(netns, _)| *netns).collect();
        for netns in &swept {
            self.schedule.sweeps.remove(netns);
            vms.extend(self.vms.iter().filter(|(_, vm)| vm.spaces.contains(netns)).map(|(key, _)| *key));
        }
        (vms, !swept.is_empty())
    }

    /// A sweep took this long.
    pub fn swept(&mut self, took_ns: u64, now_ns: u64) {
        self.schedule.quiet_until_ns = now_ns.saturating_add(took_ns.saturating_mul(SWEEP_SHARE));
    }

    /// When [`Model::due`] has something next.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        let scan = self.schedule.at.first().map(|(at, _)| *at);
        let sweep = self.schedule.sweeps.values().min().copied();
        let turn = self.schedule.turns.first().map(|(at, _)| *at);
        scan.into_iter().chain(sweep).chain(turn).min()
    }
}
