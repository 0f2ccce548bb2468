use super::*;
use crate::ledger::{LaidOver, Reason};

fn names(vm_id: &str, tgid: u32, start_ns: u64) -> Names {
    Names { vm_id: vm_id.into(), uuid: format!("u-{vm_id}"), tgid, start_ns }
}

fn stop(whom: Whom, reason: Option<Reason>, snapshot: Option<&str>, until_ns: u64) -> Pending {
    let stop = Stated { reason, snapshot: snapshot.map(str::to_owned), by: "uid:0".into() };
    Pending { id: 0, after_seq: 0, whom, owner: None, start: Stated::default(), stop, until_ns }
}

/// Process 1, which began in the tick from 50 to 59 and was there at 57.
fn process() -> Whom {
    Whom::Process { tgid: 1, start_tick: 5, tick_ns: 10, there_ns: 57 }
}

#[test]
fn a_statement_is_for_one_transition_of_whom_it_names() {
    for whom in [Whom::VmId("a".into()), Whom::Uuid("u-a".into()), process()] {
        let mut store = Store::default();
        assert_eq!(store.keep(stop(whom, Some(Reason::StopUser), None, 100), 0), Keeping::Waits(1));
        assert!(store.take_stop(&names("b", 2, 50), 50).is_empty());
        assert!(store.take_start(&names("a", 1, 50), 50).0.is_empty(), "it is about the stop");
        assert_eq!(store.take_stop(&names("a", 1, 50), 50).reason, Some(Reason::StopUser));
        assert!(store.take_stop(&names("a", 1, 50), 50).is_empty() && store.waiting.is_empty());
    }
}

#[test]
fn one_for_a_process_does_not_hold_for_the_next_of_its_id() {
    let mut store = Store::default();
    assert_eq!(store.keep(stop(process(), Some(Reason::StopUser), None, 1_000), 0), Keeping::Waits(1));
    assert!(store.take_stop(&names("a", 1, 60), 500).is_empty());
    assert!(store.take_stop(&names("a", 1, 58), 500).is_empty(), "in the same tick, but after the other was seen");
    assert!(!store.take_stop(&names("a", 1, 57), 500).is_empty());
}

#[test]
fn it_expires() {
    let mut store = Store::default();
    assert_eq!(store.keep(stop(Whom::VmId("a".into()), Some(Reason::StopUser), None, 100), 0), Keeping::Waits(1));
    assert!(store.take_stop(&names("a", 1, 50), 100).is_empty());
}

#[test]
fn a_later_one_wins_and_what_it_leaves_out_stands() {
    let mut store = Store::default();
    let whom = || Whom::VmId("a".into());
    assert_eq!(store.keep(stop(whom(), Some(Reason::StopCrash), Some("s"), 100), 0), Keeping::Waits(1));
    assert_eq!(store.keep(stop(whom(), Some(Reason::StopUser), None, 100), 0), Keeping::Waits(2));
    let stated = store.take_stop(&names("a", 1, 50), 50);
    assert_eq!((stated.reason, stated.snapshot.as_deref()), (Some(Reason::StopUser), Some("s")));
}

#[test]
fn their_number_is_bounded_and_those_that_are_over_make_room() {
    let mut store = Store::default();
    let one = |until| stop(Whom::VmId("a".into()), Some(Reason::StopUser), None, until);
    for _ in 0..MAX_PENDING {
        assert_ne!(store.keep(one(100), 0), Keeping::Full);
    }
    assert_eq!(store.keep(one(200), 0), Keeping::Full);
    assert_ne!(store.keep(one(200), 100), Keeping::Full);
    assert_eq!(store.take_changed().len(), MAX_PENDING, "those that expired");
}

fn laid(kind: Kind, seq: u64) -> Laid {
    let incarnation = "0123456789ab-1-50".into();
    [LaidOver { seq, kind, vm_id: "a".into(), uuid: String::new(), incarnation }].into_iter().collect()
}

#[test]
fn what_the_ledger_shows_to_have_been_used_is_not_said_again_and_what_it_leaves_stands() {
    let clone = Stated { reason: Some(Reason::Clone), snapshot: None, by: "uid:0".into() };
    let kept = || {
        let both = Pending { start: clone.clone(), ..stop(process(), None, Some("s"), 100) };
        vec![Pending { id: 7, after_seq: 5, ..both }]
    };
    let mut store = Store::resume(kept(), 9, &laid(Kind::VmComputeStart, 5));
    assert_eq!(store.take_start(&names("a", 1, 50), 0).0.reason, Some(Reason::Clone), "that line was before it");
    let mut store = Store::resume(kept(), 9, &laid(Kind::VmComputeStart, 6));
    assert!(store.take_start(&names("a", 1, 50), 0).0.is_empty());
    assert_eq!(store.take_stop(&names("a", 1, 50), 0).snapshot.as_deref(), Some("s"));
    assert_eq!(store.keep(stop(process(), None, Some("t"), 100), 0), Keeping::Waits(10), "no number is given twice");
    let store = Store::resume(kept(), 9, &laid(Kind::VmComputeStop, 6));
    assert_eq!(store.get(7).map(|p| (p.start.reason, p.stop.is_empty())), Some((Some(Reason::Clone), true)));
}

#[test]
fn what_is_used_is_told_as_changed_and_what_was_only_looked_at_is_not() {
    let mut store = Store::default();
    assert_eq!(store.keep(stop(process(), None, Some("s"), 100), 0), Keeping::Waits(1));
    store.take_start(&names("a", 1, 50), 0);
    assert!(store.take_changed().is_empty());
    store.take_stop(&names("a", 1, 50), 0);
    assert_eq!(store.take_changed().into_iter().collect::<Vec<_>>(), [1]);
    assert!(store.get(1).is_none());
}
