//! Between agents: what an earlier one left is gone on with, and what this one decides is written down for the next.

use std::collections::BTreeMap;

use super::{
    book::Book,
    model::{Left, LinkKey, VmKey},
    programs::Programs,
    thread::{Worker, now_ns},
};
use crate::{
    clock,
    host::{NetNs, NetNsId},
    units::Tgid,
};

impl<P: Programs> Worker<P> {
    /// Goes on from an earlier agent's book. What was counted since it was written is given away at once.
    pub(super) fn take_up(&mut self, book: Option<Book>) {
        let Some(book) = book else { return };
        self.programs.take_up(&book.settled());
        self.look_for(&book);
        let now = now_ns();
        let off_ns = now.saturating_sub(clock::monotonic_ns().unwrap_or(now));
        let mut model = std::mem::take(&mut self.model);
        let left = |number| match self.programs.left(number) {
            Some(port) if self.programs.is_attached(port) => Left::Attached,
            Some(port) if self.programs.is_gone(port) => Left::Gone,
            // Out of sight: what it counted is told, and whoever has it is counted anew.
            _unseen => Left::Lost,
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
    fn look_for(&mut self, book: &Book) {
        let unseen = |(number, ..): &(u32, NetNsId, u32)| {
            self.programs.left(*number).is_some_and(|port| !self.programs.is_attached(port))
        };
        let unseen: Vec<_> = book.places().filter(unseen).collect();
        if unseen.is_empty() {
            return;
        }
        let of_vms = book.vms().filter(|vm| self.is_same(*vm)).flat_map(|vm| self.spaces_of(vm));
        let spaces = of_vms.chain(NetNs::own()).map(|netns| (netns.id(), netns));
        let spaces: BTreeMap<NetNsId, NetNs> = spaces.collect();
        for (number, netns, ifindex) in unseen {
            if let (Some(port), Some(netns)) = (self.programs.left(number), spaces.get(&netns)) {
                self.programs.adopt(port, netns, ifindex);
            }
        }
    }

    /// The namespaces that a VM's process is in and has interfaces in.
    fn spaces_of(&self, vm: VmKey) -> Vec<NetNs> {
        let held = self.procfs.held_taps(Tgid(vm.tgid), &|_| None).unwrap_or_default();
        let of_taps = held.taps.into_iter().map(|tap| tap.netns);
        NetNs::of_process(&self.root, vm.tgid).into_iter().chain(of_taps).collect()
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
