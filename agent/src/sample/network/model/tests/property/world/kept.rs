//! Agents that are killed: what the last book and the programs' accounts make of the model in the next one.

use super::*;
use crate::{account::network::Traffic, sample::network::book::Book};

/// What is left.
#[derive(Default)]
pub(in super::super) struct Kept {
    /// The newest book, and what was nobody's when it was written.
    book: Option<(Vec<u8>, Traffic)>,
    /// What was nobody's for agents that are no more.
    pub(in super::super) unowned: (u64, u64),
}

impl World {
    /// As the thread does it at the end of each turn.
    pub(super) fn keep(&mut self) {
        if self.model.is_decided() {
            let number = |link: LinkKey| u32::try_from(link.netns.inode).ok().map(|inode| inode - 10);
            let counted =
                |link: LinkKey| self.taps.iter().any(|tap| matches!(tap.program, Some((key, _)) if key == link));
            let book = self.model.book("", |link| number(link).filter(|_| counted(link)));
            self.kept.book = Some((book.bytes(), self.model.unowned().traffic));
            self.model.written();
        }
    }

    pub(super) fn die(&mut self) {
        let Some((bytes, unowned)) = self.kept.book.take() else { return };
        self.kept.unowned.0 += unowned.transmit_packets;
        self.kept.unowned.1 += unowned.receive_packets;
        let known: Vec<VmKey> = self.model.vms().collect();
        self.looked = None;
        self.model = Model::default();
        let taps = &self.taps;
        let left = |number: u32| match &taps[number as usize] {
            tap if tap.program.is_none() => Left::Lost,
            tap if tap.followed.sits => Left::Attached,
            _gone => Left::Gone,
        };
        let book = Book::parse(&bytes).unwrap();
        let links = self.model.resume(book, left, |_| true, (self.now, self.now));
        let mut found = BTreeSet::new();
        for (key, number) in links {
            if let Some((link, _)) = &mut self.taps[number as usize].program {
                *link = key;
                found.insert(number);
            }
        }
        for tap in 0..TAPS {
            self.taps[tap as usize].announcements.clear();
            match &self.taps[tap as usize].program {
                // What is not in the book is let go, and had counted for nobody yet.
                Some((_, accounts)) if !found.contains(&tap) => {
                    assert!(accounts.iter().all(|one| one.transmit[0].packets + one.receive[0].packets == 0));
                    self.taps[tap as usize].program = None;
                }
                Some((key, accounts)) => self.model.accounts(*key, accounts, &strangers, self.now),
                None => {}
            }
        }
        known.into_iter().for_each(|vm| self.model.born(vm, self.now));
        self.carry_out();
        (0..TAPS).for_each(|tap| self.list(tap));
    }
}
