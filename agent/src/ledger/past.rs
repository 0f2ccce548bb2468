//! What a ledger tells of lives that are over: which VMs have run, how they were left, and whose a snapshot is.
//!
//! Fed with every line, by a returning agent and as it writes. Names are kept as eight bytes of their hash, the newest
//! 65,536 of each kind; what is forgotten for that is counted, and then reads as never seen.

use std::collections::HashMap;

use super::digest::short;
use super::{Draft, Kind, Reason};

/// VMs remembered, and snapshots.
const REMEMBERED: usize = 65_536;
/// How many of the oldest are forgotten at once when there are too many.
const FORGOTTEN: usize = REMEMBERED / 8;

/// The cause of a stop that left the VM's state behind, to go on from.
pub const HIBERNATE: &str = "hibernate";

/// How a VM was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Left {
    /// Running, or ended for good.
    #[default]
    Nothing,
    /// Its state was kept; the snapshot is not named.
    Unnamed,
    /// Its state was kept in this snapshot.
    In(u64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known<T> {
    at: u64,
    what: T,
}

/// Whose a snapshot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// Nobody said.
    #[default]
    Unknown,
    /// The VM's own.
    Own,
    /// Another VM's.
    Others,
}

/// What was before a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// The VM has run before.
    pub ran: bool,
    /// Its state was kept when it ended last, and nothing says that it is another than the one it starts from.
    pub hibernated: bool,
    /// Whose snapshot it starts from.
    pub whose: Whose,
}

/// Lives that are over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    vms: HashMap<u64, Known<Left>>,
    snapshots: HashMap<u64, Known<u64>>,
    noted: u64,
    forgotten: u64,
}

impl Past {
    /// Takes the next line.
    pub fn note(&mut self, fact: &Draft) {
        if fact.vm_id.is_empty() {
            return;
        }
        match fact.kind {
            Kind::VmComputeStart => {
                self.remember(&fact.vm_id, Left::Nothing);
                self.started_from(fact);
            }
            Kind::VmComputeStop => self.left(fact),
            // It says what the line it replaces should have said, of a start or of a stop.
            Kind::Correction if fact.coverage.is_none() => self.started_from(fact),
            Kind::Correction => self.left(fact),
            Kind::SnapStorageStart => self.own(&fact.snapshot_id, &fact.vm_id, true),
            _ => {}
        }
    }

    /// What was before a VM starts, from this snapshot if it is from one that can be named.
    #[must_use]
    pub fn before(&self, vm_id: &str, snapshot_id: Option<&str>) -> Before {
        let vm = short(vm_id);
        let known = self.vms.get(&vm);
        let snapshot = snapshot_id.map(short);
        let hibernated = match (known.map_or(Left::Nothing, |known| known.what), snapshot) {
            (Left::Nothing, _) => false,
            (Left::In(kept), Some(snapshot)) => kept == snapshot,
            _ => true,
        };
        let whose = match snapshot.and_then(|snapshot| self.snapshots.get(&snapshot)) {
            None => Whose::Unknown,
            Some(owner) if owner.what == vm => Whose::Own,
            Some(_) => Whose::Others,
        };
        Before { ran: known.is_some(), hibernated, whose }
    }

    /// How many names were forgotten for lack of room since this was asked last.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    fn left(&mut self, fact: &Draft) {
        let left = match fact.snapshot_id.as_str() {
            "" if fact.cause == HIBERNATE => Left::Unnamed,
            "" => Left::Nothing,
            id => Left::In(short(id)),
        };
        self.remember(&fact.vm_id, left);
        self.own(&fact.snapshot_id, &fact.vm_id, true);
    }

    /// Who starts from a snapshot that is nobody's yet counts as its owner: who starts from it next is a copy. Only a path
    /// or an annotated id means the same for every VM.
    fn started_from(&mut self, fact: &Draft) {
        let shared = fact.source_snapshot_id.starts_with('/') || fact.evidence.annotated_by.is_some();
        if shared && matches!(fact.reason, Some(Reason::Restore | Reason::HibernateWake)) {
            self.own(&fact.source_snapshot_id, &fact.vm_id, false);
        }
    }

    fn remember(&mut self, vm_id: &str, what: Left) {
        let at = self.next();
        self.vms.insert(short(vm_id), Known { at, what });
        self.forgotten += forget(&mut self.vms);
    }

    fn own(&mut self, snapshot_id: &str, vm_id: &str, anew: bool) {
        let id = short(snapshot_id);
        if snapshot_id.is_empty() || (!anew && self.snapshots.contains_key(&id)) {
            return;
        }
        let at = self.next();
        self.snapshots.insert(id, Known { at, what: short(vm_id) });
        self.forgotten += forget(&mut self.snapshots);
    }

    fn next(&mut self) -> u64 {
        self.noted += 1;
        self.noted
    }
}

/// Lets the oldest go where there are too many; how many those are.
fn forget<T>(all: &mut HashMap<u64, Known<T>>) -> u64 {
    if all.len() <= REMEMBERED {
        return 0;
    }
    let mut ages: Vec<u64> = all.values().map(|known| known.at).collect();
    let (_, oldest, _) = ages.select_nth_unstable(FORGOTTEN);
    let (before, oldest) = (all.len(), *oldest);
    all.retain(|_, known| known.at >= oldest);
    (before - all.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Coverage, Subject};

    fn line(kind: Kind, vm_id: &str) -> Draft {
        let mut draft = Draft::new(kind, Subject::Incarnation("i".into()), "b", 0, 0);
        draft.vm_id = vm_id.into();
        draft
    }

    fn start(vm_id: &str, reason: Reason, source: &str) -> Draft {
        Draft { reason: Some(reason), source_snapshot_id: source.into(), ..line(Kind::VmComputeStart, vm_id) }
    }

    fn stop(vm_id: &str, snapshot: &str, cause: &str) -> Draft {
        Draft { snapshot_id: snapshot.into(), cause: cause.into(), ..line(Kind::VmComputeStop, vm_id) }
    }

    #[test]
    fn a_vm_has_run_before_once_a_line_told_its_start() {
        let mut past = Past::default();
        assert_eq!(past.before("a", None), Before::default());
        past.note(&line(Kind::VmComputeStart, "a"));
        assert!(past.before("a", None).ran && !past.before("b", None).ran);
    }

    #[test]
    fn a_state_kept_at_the_stop_is_good_for_one_start() {
        let mut past = Past::default();
        past.note(&stop("a", "", HIBERNATE));
        past.note(&stop("b", "s", "exit"));
        assert!(past.before("a", Some("/any")).hibernated && past.before("b", None).hibernated);
        assert!(past.before("b", Some("s")).hibernated && !past.before("b", Some("other")).hibernated);
        past.note(&start("a", Reason::HibernateWake, ""));
        assert!(!past.before("a", None).hibernated);
        past.note(&stop("b", "", "exit"));
        assert!(!past.before("b", None).hibernated, "it ended otherwise since");
    }

    #[test]
    fn a_snapshot_is_whose_stop_named_it_else_who_started_from_it_first() {
        let mut past = Past::default();
        past.note(&stop("a", "golden", "exit"));
        past.note(&start("c", Reason::Restore, "/img"));
        past.note(&start("d", Reason::Restore, "/img"));
        past.note(&start("e", Reason::Restore, "snap1"));
        for (vm_id, snapshot, whose) in [
            ("a", "golden", Whose::Own),
            ("b", "golden", Whose::Others),
            ("c", "/img", Whose::Own),
            ("d", "/img", Whose::Others),
            ("f", "snap1", Whose::Unknown),
        ] {
            assert_eq!(past.before(vm_id, Some(snapshot)).whose, whose, "{vm_id} {snapshot}");
        }
    }

    #[test]
    fn a_correction_counts_as_the_line_it_replaces() {
        let mut past = Past::default();
        past.note(&stop("a", "", "exit"));
        let coverage = Some(Coverage::default());
        past.note(&Draft { kind: Kind::Correction, coverage, ..stop("a", "kept", "exit") });
        assert!(past.before("a", Some("kept")).hibernated);
        past.note(&start("a", Reason::Restart, ""));
        past.note(&Draft { kind: Kind::Correction, ..start("a", Reason::Restore, "/x") });
        assert!(!past.before("a", None).hibernated && past.before("b", Some("/x")).whose == Whose::Others);
    }

    #[test]
    fn memory_is_bounded_and_what_was_forgotten_is_counted() {
        let mut past = Past::default();
        past.note(&stop("first", "its", "exit"));
        // As many more as there is room for beside it, by numbers instead of hashes.
        for n in 1..REMEMBERED as u64 {
            past.vms.insert(n, Known { at: 2 + n, what: Left::Nothing });
            past.snapshots.insert(n, Known { at: 2 + n, what: n });
        }
        past.noted = 2 + REMEMBERED as u64;
        assert!(past.before("first", None).ran && past.take_forgotten() == 0);
        past.note(&stop("last", "its", "exit"));
        assert!(past.before("last", None).ran && !past.before("first", None).ran, "the oldest go");
        assert_eq!(past.take_forgotten(), FORGOTTEN as u64, "of the VMs: the snapshot is another's now");
        assert_eq!(past.before("last", Some("its")).whose, Whose::Own);
        assert_eq!(past.take_forgotten(), 0);
    }
}
