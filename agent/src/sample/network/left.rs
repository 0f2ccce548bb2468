//! Between agents: what an earlier one left is gone on with, and what this one decides is written down for the next.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    book::{Book, KeptPort},
    model::{Left, LinkKey, VmKey},
    programs::Programs,
    thread::{Worker, now_ns},
};
use crate::{
    clock,
    host::{NetNs, NetNsId, tap::HeldTap},
    units::Tgid,
};

impl<P: Programs> Worker<P> {
    /// Goes on from an earlier agent's book. What was counted since it was written is given away at once.
    pub(super) fn take_up(&mut self, book: Option<Book>) {
        let Some(book) = book else { return };
        self.programs.take_up(&book.settled());
        let elsewhere = self.look_for(&book);
        let now = now_ns();
        let off_ns = now.saturating_sub(clock::monotonic_ns().unwrap_or(now));
        let mut model = std::mem::take(&mut self.model);
        let left = |number| match self.programs.left(number) {
            Some(port) if self.programs.is_unseen(port) => {
                // Out of sight: what it counted is told, and whoever has it is counted anew.
                if self.programs.is_gone(port) && !elsewhere.contains(&number) { Left::Gone } else { Left::Lost }
            }
            Some(port) if self.programs.is_attached(port) => Left::Attached,
            Some(_) => Left::Gone,
            None => Left::Lost,
        };
        let interfaces = model.resume(book, left, |vm| self.is_same(vm), (now, off_ns));
        self.model = model;
        tracing::info!(interfaces = interfaces.len(), "counting of interfaces goes on");
        for (link, number) in interfaces {
            if let Some(port) = self.programs.left(number) {
                self.ports.insert(link, port);
            }
        }
        self.read(&self.model.counted());
        self.execute();
    }

    /// Where programs are found in their namespace alone, all are looked for in those of the agent and of the VMs that live.
    /// Returns the numbers of interfaces that their holders have in another namespace by now.
    fn look_for(&mut self, book: &Book) -> BTreeSet<u32> {
        let unseen = |port: &&KeptPort| self.programs.left(port.number).is_some_and(|id| self.programs.is_unseen(id));
        let unseen: Vec<&KeptPort> = book.ports.iter().filter(unseen).collect();
        if unseen.is_empty() {
            return BTreeSet::new();
        }
        let vms: Vec<VmKey> = book.vms.iter().map(|kept| kept.vm).filter(|vm| self.is_same(*vm)).collect();
        let held = vms.iter().filter_map(|vm| Some((*vm, self.procfs.held_taps(Tgid(vm.tgid), &|_| None).ok()?.taps)));
        let held: BTreeMap<VmKey, Vec<HeldTap>> = held.collect();
        let homes = vms.iter().filter_map(|vm| NetNs::of_process(&self.root, vm.tgid).ok());
        let spaces = homes.chain(held.values().flatten().map(|tap| tap.netns.clone())).chain(NetNs::own());
        let spaces: BTreeMap<NetNsId, NetNs> = spaces.map(|netns| (netns.id(), netns)).collect();
        for port in &unseen {
            if let (Some(id), Some(netns)) = (self.programs.left(port.number), spaces.get(&port.netns)) {
                self.programs.adopt(id, netns, port.ifindex);
            }
        }
        // Others may have one of its name anywhere.
        let elsewhere = |port: &&KeptPort| {
            let taps = port.holders.iter().filter_map(|vm| held.get(vm)).flatten();
            taps.into_iter().any(|tap| tap.name == port.label.0 && tap.netns.id() != port.netns)
        };
        unseen.into_iter().filter(elsewhere).map(|port| port.number).collect()
    }

    /// A namespace is entered: interfaces in it that were left are looked after again.
    pub(super) fn adopt(&mut self, netns: &NetNs) {
        let here: Vec<(LinkKey, P::Port)> =
            self.ports.iter().filter(|(link, _)| link.netns == netns.id()).map(|(link, port)| (*link, *port)).collect();
        for (link, port) in here {
            if self.programs.adopt(port, netns, link.ifindex) {
                self.programs.recheck(port);
            } else {
                // The number of the namespace is another's now, or the interface went elsewhere.
                self.model.lost(link, now_ns());
            }
        }
    }

    /// Writes down what was decided; what waited for that is done.
    pub(super) fn save(&mut self) {
        let (model, ports) = (&self.model, &self.ports);
        self.programs.save(&mut |code| model.book(code, |link| ports.get(&link).map(|port| P::number(*port))).bytes());
        self.model.written();
    }
}
