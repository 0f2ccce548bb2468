//! Statements that wait outlive this agent: what an earlier one kept is taken up, what is taken now is told as taken once it
//! is kept and the lines it made are durable, and what has been used is kept no more once the line that used it is durable.

use std::{collections::BTreeSet, path::PathBuf};

use super::{
    Engine, Remote,
    annotate::{AFTER_NS, Annotations},
    keeper::{self, Answer, Change, Keeper, Taken},
};
use crate::{
    clock::Instant2,
    ledger::{Laid, Lately, OpenInterval, Ticket},
    lifecycle::annotation::{Names, Pending, Stated, kept},
};

/// What keeps them.
#[derive(Default)]
pub(super) struct Keeping {
    /// Where, and how the keeper reaches this engine; unset where no ledger file is kept either.
    pub(super) place: Option<(PathBuf, Remote)>,
    keeper: Option<Keeper>,
    /// Taken in this turn.
    taken: Vec<JustTaken>,
    /// Numbers of those whose use is in lines up to this ticket.
    used: (BTreeSet<u64>, Ticket),
}

struct JustTaken {
    /// Under this number something of it waits.
    id: Option<u64>,
    /// It made lines.
    told: bool,
    answer: Answer,
}

impl Keeping {
    /// One was taken; its answer is given when it is settled.
    pub(super) fn took(&mut self, id: Option<u64>, told: bool, answer: Answer) {
        self.taken.push(JustTaken { id, told, answer });
    }

    /// The thread writes what it was given and ends.
    pub(super) fn finish(&mut self) {
        self.keeper = None;
    }
}

impl Engine {
    /// Takes up what an earlier agent kept.
    pub(super) fn resume_statements(&mut self, laid: &Laid, now: Instant2) {
        let Some((path, remote)) = self.why.annotations.keeping.place.clone() else { return };
        let (store, unread) = keeper::find(&path, laid, &self.boot_id, now);
        self.count_error("annotations", unread);
        let line = |pending: &Pending| kept::line(pending.id, Some(pending), &self.boot_id, now);
        let lines = store.waiting().iter().map(|pending| (pending.id, line(pending))).collect();
        match keeper::start(path, lines, self.ledger.clone(), remote) {
            Ok(keeper) => self.why.annotations.keeping.keeper = Some(keeper),
            Err(error) => tracing::error!(%error, "no thread to keep annotations; they end with this agent"),
        }
        self.why.annotations.store = store;
        // The file was written anew, without these.
        self.why.annotations.store.take_changed();
    }

    /// What an earlier agent told a moment ago can still be corrected.
    pub(super) fn resume_recent(&mut self, lately: &Lately, now: Instant2) {
        for told in lately.since(now.unix_ns.saturating_sub(AFTER_NS)) {
            self.why.annotations.note(&told.fact, now.boot_of(told.recorded_at));
        }
    }

    /// What was stated of the stop of a VM that ended while no agent ran.
    pub(super) fn stated_unseen(&mut self, interval: &OpenInterval, now: Instant2) -> Stated {
        let names = Names::of_line(&interval.vm_id, &interval.uuid, &interval.incarnation);
        self.why.annotations.store.take_stop(&names, now.boot_ns)
    }

    /// The number that the newest line so far has, or is sure to get.
    pub(super) fn newest_seq(&self) -> u64 {
        let stats = self.ledger.stats();
        stats.last_seq.saturating_add((stats.spooled + self.out.len()) as u64)
    }

    /// Once a turn, when its lines were handed over: sees to what was taken in it, and to what has been used.
    pub(super) fn settle_statements(&mut self, at: Instant2) {
        let (boot_id, out, newest) = (&self.boot_id, self.out.len(), self.newest_ticket);
        let Annotations { store, keeping, .. } = &mut self.why.annotations;
        // Lines that the ledger could not be given yet are waited for.
        if out > 0 {
            return;
        }
        let changed = store.take_changed();
        if !changed.is_empty() {
            keeping.used.0.extend(changed);
            keeping.used.1 = newest;
        }
        let change = |id| {
            let left = store.get(id);
            Change { id, line: kept::line(id, left, boot_id, at), waits: left.is_some() }
        };
        for JustTaken { id, told, answer } in keeping.taken.drain(..) {
            let Some(keeper) = &keeping.keeper else {
                // Who asked may be gone.
                let _ = answer.send(Ok(()));
                continue;
            };
            let taken = Taken { change: id.map(change), ticket: told.then_some(newest), answer };
            if !keeper.take(taken) {
                tracing::error!("the thread that keeps annotations is gone; this is a bug, please report it");
            }
        }
        if !keeping.used.0.is_empty() && keeping.used.1 <= self.ledger.durable() {
            let changes = std::mem::take(&mut keeping.used.0).into_iter().map(change).collect();
            if let Some(keeper) = &keeping.keeper {
                keeper.note(changes);
            }
        }
    }

    /// One that was taken cannot be kept, and who made it was told so.
    pub(super) fn unkept(&mut self, id: u64) {
        self.why.annotations.store.forget(id);
    }
}
