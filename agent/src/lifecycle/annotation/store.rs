//! Statements whose transition is still to come. Instants are CLOCK_BOOTTIME nanoseconds.

use super::Stated;
use crate::vm::Owner;

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
    fn is_over(&self) -> bool {
        self.owner.is_none() && self.start.is_empty() && self.stop.is_empty()
    }
}

/// All that wait, in the order they came.
#[derive(Clone, Debug, Default)]
pub struct Store(Vec<Pending>);

impl Store {
    /// Keeps one; false if there is no room.
    #[must_use]
    pub fn keep(&mut self, pending: Pending, now_ns: u64) -> bool {
        self.expire(now_ns);
        if pending.is_over() {
            return true;
        }
        let room = self.0.len() < MAX_PENDING;
        if room {
            self.0.push(pending);
        }
        room
    }

    /// What was said of the start of this VM, and of whose it is, the newest last; it is not said again.
    pub fn take_start(&mut self, names: &Names, now_ns: u64) -> (Stated, Vec<(Owner, String)>) {
        let (mut stated, mut owners) = (Stated::default(), Vec::new());
        for pending in self.of(names, now_ns) {
            stated.lay(std::mem::take(&mut pending.start));
            owners.extend(pending.owner.take());
        }
        self.0.retain(|pending| !pending.is_over());
        (stated, owners)
    }

    /// What was said of the stop of this VM; it is not said again.
    pub fn take_stop(&mut self, names: &Names, now_ns: u64) -> Stated {
        let mut stated = Stated::default();
        for pending in self.of(names, now_ns) {
            stated.lay(std::mem::take(&mut pending.stop));
        }
        self.0.retain(|pending| !pending.is_over());
        stated
    }

    fn of(&mut self, names: &Names, now_ns: u64) -> impl Iterator<Item = &mut Pending> {
        self.0.iter_mut().filter(move |pending| pending.until_ns > now_ns && pending.whom.is(names))
    }

    fn expire(&mut self, now_ns: u64) {
        let before = self.0.len();
        self.0.retain(|pending| pending.until_ns > now_ns);
        let expired = before - self.0.len();
        if expired > 0 {
            tracing::info!(expired, "annotations expired before anything happened to their VMs");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Reason;

    fn names(vm_id: &str, tgid: u32, start_ns: u64) -> Names {
        Names { vm_id: vm_id.into(), uuid: format!("u-{vm_id}"), tgid, start_ns }
    }

    fn stop(whom: Whom, reason: Option<Reason>, snapshot: Option<&str>, until_ns: u64) -> Pending {
        let stop = Stated { reason, snapshot: snapshot.map(str::to_owned), by: "uid:0".into() };
        Pending { whom, owner: None, start: Stated::default(), stop, until_ns }
    }

    /// Process 1, which began in the tick from 50 to 59 and was there at 57.
    fn process() -> Whom {
        Whom::Process { tgid: 1, start_tick: 5, tick_ns: 10, there_ns: 57 }
    }

    #[test]
    fn a_statement_is_for_one_transition_of_whom_it_names() {
        for whom in [Whom::VmId("a".into()), Whom::Uuid("u-a".into()), process()] {
            let mut store = Store::default();
            assert!(store.keep(stop(whom, Some(Reason::StopUser), None, 100), 0));
            assert!(store.take_stop(&names("b", 2, 50), 50).is_empty());
            assert!(store.take_start(&names("a", 1, 50), 50).0.is_empty(), "it is about the stop");
            assert_eq!(store.take_stop(&names("a", 1, 50), 50).reason, Some(Reason::StopUser));
            assert!(store.take_stop(&names("a", 1, 50), 50).is_empty() && store.0.is_empty());
        }
    }

    #[test]
    fn one_for_a_process_does_not_hold_for_the_next_of_its_id() {
        let mut store = Store::default();
        assert!(store.keep(stop(process(), Some(Reason::StopUser), None, 1_000), 0));
        assert!(store.take_stop(&names("a", 1, 60), 500).is_empty());
        assert!(store.take_stop(&names("a", 1, 58), 500).is_empty(), "in the same tick, but after the other was seen");
        assert!(!store.take_stop(&names("a", 1, 57), 500).is_empty());
    }

    #[test]
    fn it_expires() {
        let mut store = Store::default();
        assert!(store.keep(stop(Whom::VmId("a".into()), Some(Reason::StopUser), None, 100), 0));
        assert!(store.take_stop(&names("a", 1, 50), 100).is_empty());
    }

    #[test]
    fn a_later_one_wins_and_what_it_leaves_out_stands() {
        let mut store = Store::default();
        let whom = || Whom::VmId("a".into());
        assert!(store.keep(stop(whom(), Some(Reason::StopCrash), Some("s"), 100), 0));
        assert!(store.keep(stop(whom(), Some(Reason::StopUser), None, 100), 0));
        let stated = store.take_stop(&names("a", 1, 50), 50);
        assert_eq!((stated.reason, stated.snapshot.as_deref()), (Some(Reason::StopUser), Some("s")));
    }

    #[test]
    fn their_number_is_bounded_and_those_that_are_over_make_room() {
        let mut store = Store::default();
        let one = |until| stop(Whom::VmId("a".into()), Some(Reason::StopUser), None, until);
        for _ in 0..MAX_PENDING {
            assert!(store.keep(one(100), 0));
        }
        assert!(!store.keep(one(200), 0));
        assert!(store.keep(one(200), 100));
    }
}
