//! Reading what is counted: at every sample, and for the last time when a VM ends.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    model::{LinkKey, VmKey},
    programs::Programs,
    thread::{Worker, now_ns},
};
use crate::{host::NetNsId, units::Tgid};

impl<P: Programs> Worker<P> {
    pub(super) fn read(&mut self, links: &[LinkKey]) {
        let whose = |writer: u32| self.procfs.writer(writer);
        for link in links {
            if let Some(port) = self.ports.get(link) {
                self.model.accounts(*link, &self.programs.read(*port), &whose, now_ns());
            }
        }
    }

    /// An interface changed hands: who writes next begins an account, unless the next one has written already.
    pub(super) fn turn(&mut self, link: LinkKey) {
        let whose = |writer: u32| self.procfs.writer(writer);
        let Some(port) = self.ports.get(&link).copied() else { return };
        let list = self.programs.read(port);
        self.model.accounts(link, &list, &whose, now_ns());
        if self.model.follows(link) {
            return;
        }
        if list.len() > 2 {
            // A turn ends all accounts, and there are few: those that are done make room first.
            let last = self.programs.retire(port, self.model.done(link));
            self.model.retired(link, &last, &whose, now_ns());
            // They are free only once that is written down.
            self.save();
            let whose = |writer: u32| self.procfs.writer(writer);
            self.model.accounts(link, &self.programs.read(port), &whose, now_ns());
        }
        let whose = |writer: u32| self.procfs.writer(writer);
        if self.model.turn(link, now_ns()) {
            self.programs.next_account(port);
            self.model.accounts(link, &self.programs.read(port), &whose, now_ns());
        }
    }

    /// The links' counters first, the accounts after them: that order makes the difference a lower bound.
    fn measure(&mut self, links: &[LinkKey]) {
        let spaces: BTreeSet<NetNsId> = links.iter().map(|link| link.netns).collect();
        for netns in spaces {
            match self.spaces.stats(netns) {
                Ok(stats) => self.model.stats(netns, &stats),
                Err(error) => self.fail("link counters cannot be read", &error),
            }
        }
        self.read(links);
        self.model.narrowed();
    }

    /// Behind the figures, which others wait for: this may wait for the kernel's lock.
    fn look_at_queues(&mut self) {
        for netns in self.model.queued() {
            match self.spaces.queues(netns) {
                Ok(queues) => self.model.queues(netns, &queues),
                Err(error) => self.fail("queueing disciplines cannot be read", &error),
            }
        }
    }

    pub(super) fn sample(&mut self) {
        let counted = self.model.counted();
        self.measure(&counted);
        self.model.expire(now_ns());
        self.model.let_go(now_ns());
        self.execute();
        let vms: Vec<VmKey> = self.model.vms().collect();
        let usages = vms.into_iter().filter_map(|vm| Some((vm, self.model.usage(vm)?))).collect();
        self.tally.unowned = self.model.unowned();
        self.tally.undecided = self.model.undecided();
        self.tally.shared_packets = self.programs.shared_packets();
        self.tally.interfaces = self.ports.len();
        self.tally.namespaces = self.spaces.len();
        self.shared.publish(Arc::new(usages), self.tally);
        self.look_at_queues();
    }

    /// VMs whose end was told: read for the last time once their process holds nothing any more. The kernel tells of an
    /// exit before it closes the files.
    pub(super) fn end(&mut self) {
        let now = now_ns();
        let holds = |vm: &VmKey| self.is_same(*vm) && self.procfs.has_tap_files(Tgid(vm.tgid));
        let gone = self.ending.iter().filter(|(vm, until)| now >= **until || !holds(vm));
        let gone: Vec<VmKey> = gone.map(|(vm, _)| *vm).collect();
        if gone.is_empty() {
            return;
        }
        for vm in gone {
            self.ending.remove(&vm);
            self.asked.remove(&vm);
            self.hear();
            let interfaces = self.model.interfaces_of(vm);
            self.measure(&interfaces);
            self.look_at_queues();
            self.model.ended(vm, now_ns());
            self.execute();
            if let Some(usage) = self.model.finish(vm) {
                self.shared.finish(vm, usage);
            }
        }
        self.leave();
    }
}
