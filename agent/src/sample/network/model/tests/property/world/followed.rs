//! A tap whose program follows openings, as `agent-ebpf` `network/carrier` does it.

use super::*;

/// What the program has in its header.
#[derive(Default)]
pub(super) struct Followed {
    /// The program is on the tap.
    pub(super) sits: bool,
    /// Who opened it as the kernel announced it, and which generation that began.
    pub(super) opener: Option<(u32, u32)>,
    held: Option<Held>,
    generation: Option<u32>,
}

impl Followed {
    pub(super) fn attach(&mut self, held: Held) {
        *self = Self { sits: true, held: Some(held), ..Self::default() };
    }

    pub(super) fn hold(&mut self, held: Held) {
        (self.held, self.generation) = (Some(held), None);
    }

    /// Puts the account of whoever holds it last, as the one in use.
    pub(super) fn choose(&mut self, now: u32, accounts: &mut Vec<Account>, serial: u64) {
        if self.generation.replace(now) == Some(now) {
            return;
        }
        let seen = self.held.filter(|held| held.generation == now).map(|held| held.tgid);
        let opener = self.opener.filter(|(generation, _)| *generation == now).map(|(_, tgid)| tgid);
        let writer = seen.or(opener).unwrap_or(NOBODY);
        let at = accounts.iter().position(|one| one.writer == writer);
        let chosen = at.map_or_else(|| account(serial, writer, 0, 0), |at| accounts.remove(at));
        accounts.push(chosen);
    }
}

impl World {
    pub(super) fn open(&mut self, vm: u32, tap: u32, seen: bool) {
        let it = &mut self.taps[tap as usize];
        if it.holder.is_some() {
            return;
        }
        if it.exists {
            (it.ups, it.changes) = (it.ups + 1, it.changes + 1);
        } else {
            (it.ups, it.changes, it.stats) = (0, 0, LinkStats::default());
            it.existence += 1;
        }
        if seen {
            it.followed.opener = Some((it.changes, vm));
        }
        (it.exists, it.holder) = (true, Some(vm));
        it.holders.insert(vm);
        self.announce(tap, false);
    }

    pub(super) fn believe(&mut self) {
        self.hear_all();
        let Some((one, scan, existences)) = self.looked.take() else { return };
        let same = |tap: &Tap, then: u64| tap.exists && tap.existence == then;
        let all = self.taps.iter().zip(existences);
        if self.follows && all.into_iter().all(|(tap, then)| same(tap, then)) {
            self.model.held(vm(one), &scan, self.now);
        }
    }

    pub(super) fn look(&self, one: u32) -> Scan {
        let held = (0..TAPS).filter(|tap| self.taps[*tap as usize].holder == Some(one));
        let holding = |tap: u32| {
            let generation = self.follows.then_some(self.taps[tap as usize].changes);
            Holding { netns: netns(tap), link: self.link(tap), persistent: Some(true), generation }
        };
        scan(&held.map(holding).collect::<Vec<_>>())
    }

    pub(super) fn hear(&mut self, tap: u32) {
        if let Some(change) = self.taps[tap as usize].announcements.pop_front() {
            self.model.change(netns(tap), &change, self.now);
        }
    }

    pub(super) fn hear_all(&mut self) {
        for tap in 0..TAPS {
            while !self.taps[tap as usize].announcements.is_empty() {
                self.hear(tap);
                self.carry_out();
            }
        }
    }
}
