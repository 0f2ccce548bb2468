//! From evidence of a VM's start to its reason. Pure.
//!
//! What the command line says of a saved state goes first, then what the ledger says of earlier lives. A VM that was
//! found running is never called booted: it may have run before the ledger was begun.

use crate::{
    ledger::{Before, Reason, Whose},
    vm::identity::Incoming,
};

/// What is told of a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Why; absent without evidence.
    pub reason: Option<Reason>,
    /// The snapshot it started from; empty if it is not known.
    pub source_snapshot_id: String,
    /// Who stated the reason or the snapshot, if somebody did.
    pub annotated_by: Option<String>,
}

/// Judges a start by what the VMM's command line and the ledger say. `adopted`: found running, not seen starting.
#[must_use]
pub fn start(incoming: &Incoming, before: Before, adopted: bool) -> Start {
    let reason = match incoming {
        Incoming::Snapshot { .. } if before.whose == Whose::Others => Some(Reason::Clone),
        Incoming::Snapshot { .. } if before.hibernated => Some(Reason::HibernateWake),
        Incoming::Snapshot { .. } => Some(Reason::Restore),
        Incoming::Stream => before.hibernated.then_some(Reason::HibernateWake),
        // Its state was kept, and nobody says whether it goes on from there.
        Incoming::Untold if before.hibernated => None,
        Incoming::Untold | Incoming::None if before.ran => Some(Reason::Restart),
        Incoming::None if !adopted => Some(Reason::Boot),
        Incoming::Untold | Incoming::None => None,
    };
    let source = match incoming {
        Incoming::Snapshot { id, .. } => id.clone().unwrap_or_default(),
        _ => String::new(),
    };
    Start { reason, source_snapshot_id: source, annotated_by: None }
}

/// The snapshot to ask the ledger about: one whose id means the same for every VM.
#[must_use]
pub fn shared_id(incoming: &Incoming) -> Option<&str> {
    match incoming {
        Incoming::Snapshot { id, shared: true } => id.as_deref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Before = Before { ran: false, hibernated: false, whose: Whose::Unknown };
    const RAN: Before = Before { ran: true, ..NEVER };
    const HIBERNATED: Before = Before { ran: true, hibernated: true, ..NEVER };

    fn snapshot() -> Incoming {
        Incoming::Snapshot { id: Some("/s".into()), shared: true }
    }

    fn why(incoming: &Incoming, before: Before) -> Option<Reason> {
        start(incoming, before, false).reason
    }

    #[test]
    fn the_first_life_is_a_boot_and_a_later_one_a_restart() {
        assert_eq!(why(&Incoming::None, NEVER), Some(Reason::Boot));
        assert_eq!(why(&Incoming::None, RAN), Some(Reason::Restart));
        assert_eq!(why(&Incoming::Untold, RAN), Some(Reason::Restart));
        assert_eq!(why(&Incoming::None, HIBERNATED), Some(Reason::Restart), "it did not go on from what was kept");
    }

    #[test]
    fn a_snapshot_is_the_vms_own_or_anothers() {
        assert_eq!(why(&snapshot(), NEVER), Some(Reason::Restore));
        assert_eq!(why(&snapshot(), RAN), Some(Reason::Restore));
        assert_eq!(why(&snapshot(), Before { whose: Whose::Own, ..RAN }), Some(Reason::Restore));
        assert_eq!(why(&snapshot(), Before { whose: Whose::Others, ..HIBERNATED }), Some(Reason::Clone));
        assert_eq!(start(&snapshot(), NEVER, true).source_snapshot_id, "/s");
    }

    #[test]
    fn a_wake_is_a_restore_after_a_stop_that_kept_the_state() {
        assert_eq!(why(&snapshot(), HIBERNATED), Some(Reason::HibernateWake));
        assert_eq!(why(&Incoming::Stream, HIBERNATED), Some(Reason::HibernateWake));
    }

    #[test]
    fn without_evidence_there_is_no_reason() {
        for before in [NEVER, RAN] {
            assert_eq!(why(&Incoming::Stream, before), None, "it may have moved here");
        }
        assert_eq!(why(&Incoming::Untold, NEVER), None);
        assert_eq!(why(&Incoming::Untold, HIBERNATED), None);
        assert_eq!(start(&Incoming::None, NEVER, true).reason, None, "it may have run before there was a ledger");
        assert_eq!(start(&Incoming::None, RAN, true).reason, Some(Reason::Restart));
    }
}
