//! Readings of accounts: whose each is, and giving away what it grew by.

use std::sync::Arc;

use super::{
    Command, LinkKey, Model, VmKey,
    port::{Owner, Port, Seen},
    tally::{self, Classes, Label},
};
use crate::{
    account::network::Traffic,
    host::writer::Writer,
    sample::network::programs::{Account, CLASSES, Flow, NOBODY},
};

/// How long a writer may stay undecided: a VM is found within a second or at the next reconcile.
pub(super) const DECIDE_NS: u64 = 60_000_000_000;
/// Undecided writers at a time.
const MAX_PENDING: usize = 4_096;
/// Clock ticks of `/proc/PID/stat` in nanoseconds (USER_HZ is 100 on every architecture with KVM).
pub(super) const TICK_NS: u64 = 10_000_000;
/// Readings without a change after which a former account is given back: its writer would get another.
pub(super) const QUIET: u8 = 2;

/// So many accounts in use mean that the interface changes hands fast: former ones are given back at once.
const BUSY: usize = 3;

/// What an undecided writer wrote.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) classes: Classes,
    pub(super) label: Label,
    pub(super) since_ns: u64,
    pub(super) first_seen_ns: u64,
}

impl Model {
    /// What the accounts of an interface hold now, oldest first. `whose` says which process stands behind a writer.
    pub fn accounts(&mut self, link: LinkKey, list: &[Account], whose: &dyn Fn(u32) -> Writer, now_ns: u64) {
        let Some(mut port) = self.ports.remove(&link) else { return };
        port.opened &= port.follows.is_none();
        for account in list {
            self.account(link, &mut port, account, whose, now_ns);
        }
        port.opened = false;
        port.left_ns = None;
        port.current = list.last().map(|account| account.serial);
        let real = |seen: &Seen| seen.last.writer != NOBODY;
        let former = port.accounts.iter().filter(|(serial, seen)| Some(**serial) != port.current && real(seen));
        // Who writes again after its account was given back gets another: giving back early loses nothing.
        let busy = list.iter().filter(|account| account.writer != NOBODY).count() >= BUSY;
        let ended = |writer: u32| writer != 0 && whose(writer) == Writer::Gone;
        let done = former.take_while(|(_, seen)| busy || seen.quiet >= QUIET || ended(seen.last.writer));
        if let Some(up_to) = done.map(|(serial, _)| *serial).last() {
            self.out.push(Command::Retire(link, up_to));
        }
        self.ports.insert(link, port);
    }

    /// The last figures of accounts that the program has given back.
    pub fn retired(&mut self, link: LinkKey, list: &[Account], whose: &dyn Fn(u32) -> Writer, now_ns: u64) {
        let Some(mut port) = self.ports.remove(&link) else { return };
        for account in list {
            self.account(link, &mut port, account, whose, now_ns);
            port.accounts.remove(&account.serial);
            port.settled.push(account.serial);
        }
        self.decided = true;
        self.ports.insert(link, port);
    }

    /// The last figures of an interface whose counting ended; its totals stay.
    pub fn detached(&mut self, link: LinkKey, list: &[Account], whose: &dyn Fn(u32) -> Writer, now_ns: u64) {
        self.accounts(link, list, whose, now_ns);
        // What the link itself counted at its end is the last word on what passed before us.
        if let Some(stats) = self.ports.get(&link).and_then(|port| port.stats) {
            self.narrow(link, stats);
        }
        self.out.retain(|command| !matches!(command, Command::Retire(of, _) if *of == link));
        let Some(port) = self.ports.remove(&link) else { return };
        self.decided = true;
        for (key, vm) in &mut self.vms {
            if port.moved && port.holders.contains(key) {
                vm.moved.insert(port.label.clone(), port.before.owner.map(|_known| port.told()));
            }
            self.unowned.folded += u64::from(vm.close(link));
        }
    }

    /// Once a sample: writers that stayed undecided wrote for no VM.
    pub fn expire(&mut self, now_ns: u64) {
        let late = |pending: &Pending| now_ns.saturating_sub(pending.since_ns) >= DECIDE_NS;
        let expired: Vec<_> = self.pending.iter().filter(|(_, one)| late(one)).map(|(key, _)| *key).collect();
        expired.into_iter().for_each(|key| self.disown(key));
        self.drop_unclaimed(now_ns);
    }

    fn account(
        &mut self,
        link: LinkKey,
        port: &mut Port,
        account: &Account,
        whose: &dyn Fn(u32) -> Writer,
        now_ns: u64,
    ) {
        let is_new = !port.accounts.contains_key(&account.serial);
        self.decided |= is_new;
        let seen = port.accounts.entry(account.serial).or_insert_with(|| Seen {
            last: nothing(account),
            owner: port.expected,
            by_writer: false,
            doubted: false,
            first_seen_ns: port.left_ns.map_or(now_ns, |off_ns| account.serial.saturating_add(off_ns)),
            quiet: 0,
        });
        if seen.last.writer == 0 && !(is_new && port.left_ns.is_some()) {
            // An account may be older than its writer.
            seen.first_seen_ns = now_ns;
        }
        let (had, made_for_writer) = (seen.owner, is_new && !port.opened);
        let unwritten = seen.last.writer == 0 && !made_for_writer;
        if account.writer == NOBODY {
            seen.owner = Owner::Nobody;
        } else if account.writer != 0 && !seen.by_writer {
            match self.judge(account.writer, seen.first_seen_ns, whose) {
                Some(vm) => {
                    seen.owner = Owner::Vm(vm);
                    seen.by_writer = true;
                    self.decided = true;
                    self.settle_pending((link, account.writer), vm, true);
                }
                None => seen.owner = Owner::Writer(account.writer),
            }
        }
        let doubted = std::mem::take(&mut seen.doubted) && !(seen.by_writer && seen.owner == had);
        if doubted && account.writer == 0 {
            seen.owner = Owner::Nobody;
        }
        // What was received since the last reading may have come before the first writer did, and then it was for
        // whoever had the interface until then; unless the program made the account for that writer.
        let earlier = unwritten.then_some(if doubted { Owner::Nobody } else { had });
        // What is told of a holder is told of another existence.
        let earlier = if port.landed || port.follows.is_none() { earlier } else { Some(Owner::Nobody) };
        let (classes, fell) = difference(&seen.last, account);
        self.unowned.regressions += u64::from(fell);
        seen.quiet =
            if classes.iter().all(|traffic| *traffic == Traffic::default()) { seen.quiet.saturating_add(1) } else { 0 };
        seen.last.clone_from(account);
        let (owner, first_seen_ns) = (seen.owner, seen.first_seen_ns);
        for (class, traffic) in classes.into_iter().enumerate().filter(|(_, traffic)| *traffic != Traffic::default()) {
            tally::add(&mut port.counted, traffic);
            let name = self.names[class].clone().unwrap_or_else(|| Arc::from("external"));
            let (receive, transmit) = tally::split(traffic);
            for (owner, traffic) in [(earlier.unwrap_or(owner), receive), (owner, transmit)] {
                match owner {
                    _ if traffic == Traffic::default() => {}
                    Owner::Writer(writer) => {
                        let name = Arc::clone(&name);
                        self.defer((link, writer), &port.label, name, traffic, now_ns, first_seen_ns);
                    }
                    owner => self.give(owner, link, &port.label, Arc::clone(&name), traffic),
                }
            }
        }
    }

    /// The VM behind a writer, if there is one by now. A VM younger than the account cannot have begun it.
    fn judge(&mut self, writer: u32, first_seen_ns: u64, whose: &dyn Fn(u32) -> Writer) -> Option<VmKey> {
        let of = |vms: &std::collections::BTreeMap<VmKey, super::tally::Vm>, tgid: u32| {
            let range = VmKey { tgid, start_ticks: 0 }..=VmKey { tgid, start_ticks: u64::MAX };
            let fits = |key: &&VmKey| key.start_ticks.saturating_mul(TICK_NS) <= first_seen_ns;
            vms.range(range).map(|(key, _)| key).rfind(fits).copied()
        };
        let known = of(&self.vms, writer);
        if known.is_some() {
            return known;
        }
        let Writer::Process(owner) = whose(writer) else {
            return self.vms.iter().find(|(_, vm)| vm.workers.contains(&writer)).map(|(key, _)| *key);
        };
        // Whoever has this id now: a worker of this VM that ended may have had it before.
        for vm in self.vms.values_mut() {
            vm.workers.remove(&writer);
        }
        let vm = of(&self.vms, owner)?;
        if owner != writer {
            self.vms.entry(vm).and_modify(|vm| {
                vm.workers.insert(writer);
            });
        }
        Some(vm)
    }

    pub(super) fn give(&mut self, owner: Owner, link: LinkKey, label: &Label, class: Arc<str>, traffic: Traffic) {
        let vm = match owner {
            Owner::Vm(vm) => self.vms.get_mut(&vm),
            Owner::Nobody | Owner::Writer(_) => None,
        };
        match vm {
            Some(vm) => tally::add(vm.tally(link, label).classes.entry(class).or_default(), traffic),
            None => tally::add(&mut self.unowned.traffic, traffic),
        }
    }

    fn defer(
        &mut self,
        key: (LinkKey, u32),
        label: &Label,
        class: Arc<str>,
        traffic: Traffic,
        now_ns: u64,
        first_seen_ns: u64,
    ) {
        if self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&key) {
            self.unowned.folded += 1;
            tally::add(&mut self.unowned.traffic, traffic);
            return;
        }
        let pending = self.pending.entry(key).or_insert_with(|| Pending {
            classes: Classes::new(),
            label: label.clone(),
            since_ns: now_ns,
            first_seen_ns,
        });
        tally::add(pending.classes.entry(class).or_default(), traffic);
    }

    /// An undecided writer turned out to be this VM, if it is not younger than what was written. `exists`: so
    /// does the interface.
    pub(super) fn settle_pending(&mut self, key: (LinkKey, u32), vm: VmKey, exists: bool) {
        let fits = |pending: &Pending| vm.start_ticks.saturating_mul(TICK_NS) <= pending.first_seen_ns;
        if !self.pending.get(&key).is_some_and(fits) {
            return;
        }
        let Some(pending) = self.pending.remove(&key) else { return };
        for (class, traffic) in pending.classes {
            self.give(Owner::Vm(vm), key.0, &pending.label, class, traffic);
        }
        if !exists {
            self.vms.entry(vm).and_modify(|vm| {
                vm.close(key.0);
            });
        }
    }

    fn disown(&mut self, key: (LinkKey, u32)) {
        if let Some(pending) = self.pending.remove(&key) {
            pending.classes.values().for_each(|traffic| tally::add(&mut self.unowned.traffic, *traffic));
        }
    }
}

/// An account before it counted.
fn nothing(account: &Account) -> Account {
    let none = [Flow::default(); CLASSES];
    Account { serial: account.serial, writer: 0, transmit: none, receive: none }
}

/// What an account grew by, by class, and whether anything in it was smaller than before.
fn difference(last: &Account, now: &Account) -> ([Traffic; CLASSES], bool) {
    let mut out = [Traffic::default(); CLASSES];
    let mut fell = false;
    let mut grew = |now: Flow, last: Flow| {
        fell |= now.bytes < last.bytes || now.packets < last.packets;
        (now.bytes.saturating_sub(last.bytes), now.packets.saturating_sub(last.packets))
    };
    for (class, out) in out.iter_mut().enumerate() {
        (out.receive_bytes, out.receive_packets) = grew(now.receive[class], last.receive[class]);
        (out.transmit_bytes, out.transmit_packets) = grew(now.transmit[class], last.transmit[class]);
    }
    (out, fell)
}
