//! The world that the model hears of: taps with a program on them as the kernel would have it, and what really passed.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::*;
use followed::Followed;
use kept::Kept;

mod followed;
mod kept;

pub(super) const VMS: u32 = 4;
pub(super) const TAPS: u32 = 3;

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A VM opens a tap, which is made if it is not there.
    Open(u32, u32),
    /// The same, and the kernel does not announce who it is.
    OpenUnseen(u32, u32),
    Close(u32),
    /// The tap is deleted, whoever holds it.
    Delete(u32),
    /// Packets from the holder; from the host.
    Transmit(u32, u64),
    Receive(u32, u64),
    /// The model hears the next announcement, of one namespace at a time.
    Hear(u32),
    /// Announcements were lost: everything is listed.
    List,
    Born(u32),
    Scan(u32),
    /// A process is looked at; what was seen is believed later, if no interface in it became another meanwhile.
    Look(u32),
    Believe,
    Sample,
    /// The agent is killed, and another goes on.
    Die,
}

/// A tap: each in a namespace of its own, so that announcements of different taps come in any order.
#[derive(Default)]
struct Tap {
    exists: bool,
    holder: Option<u32>,
    ups: u32,
    /// How often it was opened or closed.
    changes: u32,
    existence: u64,
    followed: Followed,
    stats: LinkStats,
    /// The program's accounts, the one in use last; `None` while it is not attached. And under which existence.
    program: Option<(LinkKey, Vec<Account>)>,
    announcements: VecDeque<LinkChange>,
    /// Who held it since the model last knew.
    holders: BTreeSet<u32>,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) model: Model,
    pub(super) kept: Kept,
    taps: [Tap; TAPS as usize],
    serial: u64,
    /// Programs follow openings.
    follows: bool,
    looked: Option<(u32, Scan, [u64; TAPS as usize])>,
    pub(super) now: u64,
    /// What programs counted, transmitted and received.
    pub(super) counted: (u64, u64),
    /// What each VM wrote while a program was there.
    pub(super) wrote: BTreeMap<u32, u64>,
    /// What each VM might have received: everything that came for a tap it ever held.
    pub(super) might: BTreeMap<u32, u64>,
    /// What each VM received while a program was there.
    pub(super) received: BTreeMap<u32, u64>,
    pub(super) told: BTreeMap<u32, (u64, u64)>,
}

fn netns(tap: u32) -> NetNsId {
    NetNsId { dev: 4, inode: u64::from(tap) + 10 }
}

impl World {
    pub(super) fn new(follows: bool) -> Self {
        Self { follows, now: 200 * SECOND, ..Self::default() }
    }

    fn link(&self, tap: u32) -> Link {
        let it = &self.taps[tap as usize];
        let (carrier, changes) = (it.holder.is_some(), Some(it.changes));
        let link = Link { carrier, carrier_ups: Some(it.ups), carrier_changes: changes, ..link(7, "tap0") };
        Link { stats: Some(it.stats), ..link }
    }

    fn announce(&mut self, tap: u32, gone: bool) {
        let link = self.link(tap);
        let change = if gone { LinkChange::Gone { link, moved: false } } else { LinkChange::New(link) };
        self.taps[tap as usize].announcements.push_back(change);
    }

    fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn step(&mut self, step: &Step) {
        self.now += SECOND / 100;
        match *step {
            Step::Open(vm, tap) => self.open(vm, tap, true),
            Step::OpenUnseen(vm, tap) => self.open(vm, tap, false),
            Step::Close(tap) => {
                if self.taps[tap as usize].holder.take().is_some() {
                    self.taps[tap as usize].changes += 1;
                    self.announce(tap, false);
                }
            }
            Step::Delete(tap) => {
                if self.taps[tap as usize].exists {
                    self.announce(tap, true);
                    let it = &mut self.taps[tap as usize];
                    (it.exists, it.holder, it.followed.sits) = (false, None, false);
                }
            }
            Step::Transmit(tap, packets) => self.transmit(tap, packets),
            Step::Receive(tap, packets) => self.receive(tap, packets),
            Step::Hear(tap) => self.hear(tap),
            Step::List => (0..TAPS).for_each(|tap| self.list(tap)),
            Step::Born(one) => self.model.born(vm(one), self.now),
            Step::Scan(one) => self.scan(one),
            Step::Look(one) => self.looked = Some((one, self.look(one), self.taps.each_ref().map(|tap| tap.existence))),
            Step::Believe => self.believe(),
            Step::Sample => self.sample(),
            Step::Die => self.die(),
        }
        self.carry_out();
        self.keep();
    }

    fn transmit(&mut self, tap: u32, packets: u64) {
        let serial = self.serial();
        let it = &mut self.taps[tap as usize];
        let Some(writer) = it.holder else { return };
        it.stats.rx_packets += packets;
        it.stats.rx_bytes += 10 * packets;
        if self.follows && !it.followed.sits {
            return;
        }
        let Some((_, accounts)) = &mut it.program else { return };
        // As the program does it: the writer's own account, or the one nobody wrote to yet, or a new one.
        let own = accounts.iter().position(|one| one.writer == writer);
        let open = accounts.iter().rposition(|one| one.writer == 0);
        let at = own.or(open.filter(|at| at + 1 == accounts.len()));
        let mut current = at.map_or_else(|| account(serial, writer, 0, 0), |at| accounts.remove(at));
        current.writer = writer;
        current.transmit[0].packets += packets;
        current.transmit[0].bytes += 10 * packets;
        accounts.push(current);
        self.counted.0 += packets;
        *self.wrote.entry(writer).or_default() += packets;
    }

    fn receive(&mut self, tap: u32, packets: u64) {
        let serial = self.serial();
        let it = &mut self.taps[tap as usize];
        if !it.exists {
            return;
        }
        it.stats.tx_packets += packets;
        it.stats.tx_bytes += 10 * packets;
        if self.follows {
            let Some((_, accounts)) = it.program.as_mut().filter(|_| it.followed.sits) else { return };
            it.followed.choose(it.changes, accounts, serial);
            *self.received.entry(it.holder.unwrap_or(0)).or_default() += packets;
        }
        let Some(current) = it.program.as_mut().and_then(|(_, accounts)| accounts.last_mut()) else { return };
        current.receive[0].packets += packets;
        current.receive[0].bytes += 10 * packets;
        self.counted.1 += packets;
        for vm in &it.holders {
            *self.might.entry(*vm).or_default() += packets;
        }
    }

    fn list(&mut self, tap: u32) {
        self.taps[tap as usize].announcements.clear();
        // A program whose tap is gone says so.
        let program = self.taps[tap as usize].program.as_ref().map(|(key, _)| *key);
        let sits = self.taps[tap as usize].exists && program == self.model.current(netns(tap), 7);
        if let Some(key) = program.filter(|_| !sits) {
            self.model.lost(key, self.now);
        }
        let links: Vec<Link> = self.taps[tap as usize].exists.then(|| self.link(tap)).into_iter().collect();
        self.model.listed(netns(tap), &links, self.now);
    }

    /// A scan hears what is announced first, as the thread does.
    fn scan(&mut self, one: u32) {
        self.hear_all();
        let scan = self.look(one);
        self.model.held(vm(one), &scan, self.now);
    }

    fn sample(&mut self) {
        for tap in 0..TAPS {
            let stats = self.taps[tap as usize].stats;
            self.model.stats(netns(tap), &[(7, stats)].into());
            if let Some((key, accounts)) = &self.taps[tap as usize].program {
                self.model.accounts(*key, accounts, &strangers, self.now);
            }
        }
        self.model.narrowed();
    }

    fn carry_out(&mut self) {
        loop {
            let commands = self.model.commands();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                let (Command::Attach { link, .. }
                | Command::Turn(link)
                | Command::Changed(link)
                | Command::Held(link, _)
                | Command::Retire(link, _)
                | Command::Detach(link)) = command;
                let tap = u32::try_from(link.netns.inode).unwrap() - 10;
                let serial = self.serial();
                let it = &mut self.taps[tap as usize];
                match command {
                    Command::Attach { held: Some(held), .. } if it.exists => {
                        let accounts = vec![account(0, NOBODY, 0, 0)];
                        it.program = Some((link, accounts));
                        it.followed.attach(held);
                        // As the thread does: what was announced meanwhile comes before the answer.
                        while !self.taps[tap as usize].announcements.is_empty() {
                            self.hear(tap);
                        }
                        self.model.attached(link, Ok(()));
                    }
                    Command::Held(_, held) => it.followed.hold(held),
                    Command::Attach { .. } if it.exists => {
                        let accounts = vec![account(serial, 0, 0, 0)];
                        self.model.attached(link, Ok(()));
                        self.model.accounts(link, &accounts, &strangers, self.now);
                        it.program = Some((link, accounts));
                    }
                    Command::Attach { .. } => self.model.attached(link, Err("gone".to_owned())),
                    Command::Changed(_) => {}
                    Command::Turn(_) => {
                        let Some((_, accounts)) = it.program.as_mut().filter(|(key, _)| *key == link) else { continue };
                        self.model.accounts(link, accounts, &strangers, self.now);
                        if self.model.turn(link, self.now) {
                            accounts.push(account(serial, 0, 0, 0));
                            self.model.accounts(link, accounts, &strangers, self.now);
                        }
                    }
                    Command::Retire(_, up_to) => {
                        let Some((_, accounts)) = it.program.as_mut().filter(|(key, _)| *key == link) else { continue };
                        let current = accounts.last().map(|one| one.serial);
                        let old = |one: &mut Account| one.serial <= up_to && Some(one.serial) != current;
                        let old: Vec<Account> = accounts.extract_if(.., old).collect();
                        self.model.retired(link, &old, &strangers, self.now);
                    }
                    Command::Detach(_) => {
                        let program = it.program.take_if(|(key, _)| *key == link);
                        let accounts = program.map(|(_, accounts)| accounts).unwrap_or_default();
                        self.model.detached(link, &accounts, &strangers, self.now);
                    }
                }
            }
        }
    }

    /// What each VM is told, without what passed before.
    fn sums(&mut self) -> BTreeMap<u32, (u64, u64)> {
        let all: Vec<VmKey> = self.model.vms().collect();
        let sum = |model: &mut Model, vm: VmKey| {
            let (all, before) = (packets(model, vm, "tap0", None), packets(model, vm, "tap0", Some("unclassified")));
            (all.0 - before.0, all.1 - before.1)
        };
        all.into_iter().map(|vm| (vm.tgid, sum(&mut self.model, vm))).collect()
    }

    /// No figure fell since the last look.
    pub(super) fn check_growth(&mut self) -> Result<(), TestCaseError> {
        let now = self.sums();
        for (vm, before) in &self.told {
            prop_assert!(now[vm].0 >= before.0 && now[vm].1 >= before.1, "VM {vm} fell");
        }
        self.told = now;
        Ok(())
    }
}
