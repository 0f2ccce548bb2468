//! Statements whose transition is still to come. Instants are CLOCK_BOOTTIME nanoseconds.
//!
//! Each has a number, under which it is also kept outside of this process; [`Store::take_changed`] says of which that copy
//! is out of date.

use std::collections::BTreeSet;

use super::Stated;
use crate::{
    ledger::{Kind, Laid},
    vm::Owner,
};

/// Statements that may wait at once.
pub const MAX_PENDING: usize = 4_096;

/// A VM as statements name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Its vm_id.
    pub vm_id: String,
    /// Its UUID; empty if it has none.
    pub uuid: String,
    /// Its process.
    pub tgid: u32,
    /// When that process started.
    pub start_ns: u64,
}

impl Names {
    /// As lines of the ledger name it: the incarnation is `<boot>-<tgid>-<start_ns>`.
    #[must_use]
    pub fn of_line(vm_id: &str, uuid: &str, incarnation: &str) -> Self {
        let mut parts = incarnation.rsplit('-').map(|part| part.parse::<u64>().unwrap_or(0));
        let (start_ns, tgid) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Self { vm_id: vm_id.to_owned(), uuid: uuid.to_owned(), tgid: u32::try_from(tgid).unwrap_or(0), start_ns }
    }
}

/// Whom a waiting statement is about: one of the names is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Whoever has this vm_id.
    VmId(String),
    /// Whoever has this UUID.
    Uuid(String),
    /// This very process, and none that gets its id later.
    Process {
        /// Its id.
        tgid: u32,
        /// The clock tick it started in, and how long one is.
        start_tick: u64,
        /// Nanoseconds of a tick.
        tick_ns: u64,
        /// When it was there: one that began later, though in the same tick, is another.
        there_ns: u64,
    },
}

impl Whom {
    /// Whether this VM is meant.
    #[must_use]
    pub fn is(&self, names: &Names) -> bool {
        match self {
            Self::VmId(vm_id) => *vm_id == names.vm_id,
            Self::Uuid(uuid) => *uuid == names.uuid,
            Self::Process { tgid, start_tick, tick_ns, there_ns } => {
                let began = names.start_ns / (*tick_ns).max(1);
                (*tgid, *start_tick) == (names.tgid, began) && names.start_ns <= *there_ns
            }
        }
    }
}

/// One that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its number; given by the store.
    pub id: u64,
    /// The number that the ledger's newest line had, or was sure to get, when this was stated.
    pub after_seq: u64,
    /// Whom it is about.
    pub whom: Whom,
    /// Whose that is, and who says so; for the next start.
    pub owner: Option<(Owner, String)>,
    /// For the next start.
    pub start: Stated,
    /// For the next stop.
    pub stop: Stated,
    /// Until when it waits.
    pub until_ns: u64,
}

impl Pending {
    /// Who states it.
    #[must_use]
    pub fn by(&self) -> &str {
        let owner = self.owner.as_ref().map(|(_, by)| by.as_str());
        let stated = [&self.start, &self.stop].into_iter().find(|stated| !stated.is_empty());
        owner.or(stated.map(|stated| stated.by.as_str())).unwrap_or_default()
    }

    fn is_over(&self) -> bool {
        self.owner.is_none() && self.start.is_empty() && self.stop.is_empty()
    }
}

/// What becomes of a statement that is to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Nothing of it waits.
    Over,
    /// It waits, under this number.
    Waits(u64),
    /// There is no room.
    Full,
}

/// All that wait, in the order they came.
#[derive(Clone, Debug, Default)]
pub struct Store {
    waiting: Vec<Pending>,
    last_id: u64,
    changed: BTreeSet<u64>,
}

impl Store {
    /// Those that an earlier agent kept, in the order they came; its numbers went up to `last_id`. What the ledger shows to
    /// have been used since is not said again.
    #[must_use]
    pub fn resume(waiting: Vec<Pending>, last_id: u64, laid: &Laid) -> Self {
        let mut store = Self { waiting, last_id, changed: BTreeSet::new() };
        for line in laid.iter() {
            let names = Names::of_line(&line.vm_id, &line.uuid, &line.incarnation);
            for pending in store.waiting.iter_mut().filter(|p| line.seq > p.after_seq && p.whom.is(&names)) {
                store.changed.insert(pending.id);
                if line.kind == Kind::VmComputeStop {
                    pending.stop = Stated::default();
                } else {
                    (pending.start, pending.owner) = (Stated::default(), None);
                }
            }
        }
        store.waiting.retain(|pending| !pending.is_over());
        store
    }

    /// Keeps one.
    #[must_use]
    pub fn keep(&mut self, mut pending: Pending, now_ns: u64) -> Keeping {
        self.expire(now_ns);
        if pending.is_over() {
            return Keeping::Over;
        }
        if self.waiting.len() >= MAX_PENDING {
            return Keeping::Full;
        }
        self.last_id += 1;
        pending.id = self.last_id;
        self.waiting.push(pending);
        Keeping::Waits(self.last_id)
    }

    /// Lets one go that was never taken.
    pub fn forget(&mut self, id: u64) {
        self.waiting.retain(|pending| pending.id != id);
    }

    /// The one of this number, if it still waits.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Pending> {
        self.waiting.iter().find(|pending| pending.id == id)
    }

    /// All that wait, in the order they came.
    #[must_use]
    pub fn waiting(&self) -> &[Pending] {
        &self.waiting
    }

    /// Numbers of those that changed, or are over, since this was asked last.
    pub fn take_changed(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.changed)
    }

    /// What was said of the start of this VM, and of whose it is, the newest last; it is not said again.
    pub fn take_start(&mut self, names: &Names, now_ns: u64) -> (Stated, Vec<(Owner, String)>) {
        let (mut stated, mut owners) = (Stated::default(), Vec::new());
        for pending in self.of(names, now_ns, |pending| !pending.start.is_empty() || pending.owner.is_some()) {
            stated.lay(std::mem::take(&mut pending.start));
            owners.extend(pending.owner.take());
        }
        self.waiting.retain(|pending| !pending.is_over());
        (stated, owners)
    }

    /// What was said of the stop of this VM; it is not said again.
    pub fn take_stop(&mut self, names: &Names, now_ns: u64) -> Stated {
        let mut stated = Stated::default();
        for pending in self.of(names, now_ns, |pending| !pending.stop.is_empty()) {
            stated.lay(std::mem::take(&mut pending.stop));
        }
        self.waiting.retain(|pending| !pending.is_over());
        stated
    }

    /// Those about this VM that say something, noted as changed.
    fn of(
        &mut self,
        names: &Names,
        now_ns: u64,
        says: impl Fn(&Pending) -> bool,
    ) -> impl Iterator<Item = &mut Pending> {
        let Self { waiting, changed, .. } = self;
        let meant = move |pending: &&mut Pending| pending.until_ns > now_ns && pending.whom.is(names) && says(pending);
        waiting.iter_mut().filter(meant).inspect(move |pending| {
            changed.insert(pending.id);
        })
    }

    fn expire(&mut self, now_ns: u64) {
        let before = self.changed.len();
        let expired = self.waiting.extract_if(.., |pending| pending.until_ns <= now_ns).map(|pending| pending.id);
        self.changed.extend(expired);
        let expired = self.changed.len() - before;
        if expired > 0 {
            tracing::info!(expired, "annotations expired before anything happened to their VMs");
        }
    }
}

#[cfg(test)]
mod tests;
