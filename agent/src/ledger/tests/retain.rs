//! Laws of files that go: what readers need stays, what is open is not forgotten, whenever a crash comes.

use super::super::files as names;
use super::rotate::{rotated, rotated_day, small, whole};
use super::*;

/// Everything goes as soon as nobody waits for it.
fn all_goes(readers: &[&str]) -> Keeping {
    let readers = readers.iter().map(|name| (*name).to_owned()).collect();
    Keeping { max_total_bytes: Some(1), readers, ..small() }
}

fn tended(journal: &mut Journal) -> u64 {
    let mut unread = 0;
    for _ in 0..20 {
        let look = journal.tend(at(70)).unwrap();
        assert!(look.troubles.is_empty() && look.hurt.is_none(), "{look:?}");
        unread += look.unread;
        if !look.more {
            return unread;
        }
    }
    panic!("it does not end");
}

#[test]
fn what_is_open_is_known_when_the_lines_that_told_it_are_gone() {
    let (_root, dir) = fresh_dir();
    let mut journal = rotated_day(&dir);
    let (_copy, whole_dir) = fresh_dir();
    fs::create_dir(&whole_dir).unwrap();
    for path in rotated(&dir).into_iter().chain([file(&dir)]) {
        fs::copy(&path, whole_dir.join(path.file_name().unwrap())).unwrap();
    }
    let of_all = open(&whole_dir).1;
    journal.keep(all_goes(&[])).unwrap();
    assert_eq!(tended(&mut journal), 0);
    assert_eq!(rotated(&dir).len(), 0);
    whole(&dir, 3);
    drop(journal);
    assert_eq!(verify_dir(&dir).first_seq, Some(13));
    for manifest in [true, false] {
        if !manifest {
            fs::remove_file(dir.join("manifest.json")).unwrap();
        }
        let (_, found) = open(&dir);
        assert_eq!((found.next_seq, &found.prev, &found.last), (16, &of_all.prev, &of_all.last));
        assert_eq!((&found.open, &found.open_storage), (&of_all.open, &of_all.open_storage));
        let stored = Subject::Storage("vm-1".to_owned());
        for (subject, kind) in [
            (Subject::Incarnation(incarnation(2)), Kind::VmComputeResize),
            (Subject::Incarnation(incarnation(2)), Kind::VmIdentity),
            (stored.clone(), Kind::VmStorageStart),
            (stored, Kind::VmStorageStop),
        ] {
            assert_eq!(found.ordinals.count(&subject, kind), of_all.ordinals.count(&subject, kind), "{kind}");
        }
    }
    // The life goes on, and its ids do not begin anew.
    let (mut journal, _) = open(&dir);
    journal.append(&[vm(Kind::VmComputeResize, 2, 60), vm(Kind::VmComputeStop, 2, 61)], at(61)).unwrap();
    drop(journal);
    whole(&dir, 5);
    assert!(open(&dir).1.open.is_empty());
}

#[test]
fn a_file_that_a_reader_has_not_acknowledged_stays_unless_a_hard_bound_is_set_and_told() {
    let (_root, dir) = fresh_dir();
    let mut journal = rotated_day(&dir);
    journal.keep(all_goes(&["billing"])).unwrap();
    assert_eq!((tended(&mut journal), rotated(&dir).len()), (0, 4), "it has said nothing yet");
    for (seq, left) in [(2, 4), (3, 3), (8, 2), (9, 1)] {
        acknowledge(&dir, "billing", seq).unwrap();
        assert_eq!((tended(&mut journal), rotated(&dir).len()), (0, left), "acknowledged {seq}");
    }
    // One that is not configured but is there counts as well.
    acknowledge(&dir, "audit", 5).unwrap();
    acknowledge(&dir, "billing", 99).unwrap();
    assert_eq!((tended(&mut journal), rotated(&dir).len()), (0, 1));
    journal.keep(Keeping { max_unread_bytes: Some(1), ..all_goes(&["billing"]) }).unwrap();
    assert_eq!((tended(&mut journal), rotated(&dir).len()), (3, 0), "three lines that nobody else has");
    drop(journal);
    whole(&dir, 3);
}

#[test]
fn a_removal_that_a_crash_cut_short_is_finished_by_the_next_agent() {
    // Steps: carried over, forgotten by the manifest, removed.
    for step in 0..3 {
        let (_root, dir) = fresh_dir();
        let mut journal = rotated_day(&dir);
        journal.tend(at(60)).unwrap();
        let manifest = fs::read(dir.join("manifest.json")).unwrap();
        let oldest = dir.join(names::rotated_name(1));
        let bytes = fs::read(&oldest).unwrap();
        journal.keep(all_goes(&[])).unwrap();
        assert!(journal.tend(at(70)).unwrap().more);
        drop(journal);
        if step < 2 {
            fs::write(&oldest, &bytes).unwrap();
        }
        if step < 1 {
            fs::write(dir.join("manifest.json"), &manifest).unwrap();
        }
        let report = verify_dir(&dir);
        assert_eq!((report.exit_code(), report.lines, report.first_seq), (0, 12, Some(4)), "step {step}: {report}");
        let (_, found) = open(&dir);
        assert_eq!((found.next_seq, found.open.len(), oldest.exists()), (16, 1, false), "step {step}");
        whole(&dir, 12);
    }
}

#[test]
fn lines_carried_over_from_another_ledger_remove_nothing() {
    let (_root, dir) = fresh_dir();
    drop(rotated_day(&dir));
    let (_other, other) = fresh_dir();
    let mut journal = rotated_day(&other);
    journal.keep(all_goes(&[])).unwrap();
    tended(&mut journal);
    drop(journal);
    fs::copy(other.join("carried.jsonl"), dir.join("carried.jsonl")).unwrap();
    fs::remove_file(dir.join("manifest.json")).unwrap();
    assert!(matches!(Journal::open(&dir, HOST, BOOT, at(80)), Err(LedgerError::Damaged { .. })));
    assert_eq!(rotated(&dir).len(), 4);
}

#[test]
fn a_follower_goes_on_while_files_go_and_ends_where_lines_went_before_it_had_them() {
    let (_root, dir) = fresh_dir();
    let mut journal = rotated_day(&dir);
    journal.keep(all_goes(&["f"])).unwrap();
    let mut follower = Follower::new(&dir, None);
    let mut got = Vec::new();
    loop {
        let lines = follower.next(2).unwrap();
        let Some((last, ..)) = lines.last() else { break };
        acknowledge(&dir, "f", last.seq).unwrap();
        got.extend(lines.iter().map(|(line, ..)| line.seq));
        tended(&mut journal);
    }
    assert_eq!(got, (1..=15).collect::<Vec<_>>());
    assert_eq!(rotated(&dir).len(), 0);
    let late = Cursor { ledger: journal.ledger_id().to_owned(), seq: 5, id: String::new() };
    assert!(matches!(Follower::new(&dir, Some(late)).next(9), Err(FollowError::Gone { first: 13, due: 6, .. })));
}

#[test]
fn how_long_the_host_slept_is_known_when_the_lines_that_told_it_are_gone() {
    let slept = |kind, second, ns| {
        let mut draft = agent(kind, second);
        draft.suspended_ns = ns;
        draft
    };
    let (_root, dir) = fresh_dir();
    let mut journal = open(&dir).0;
    journal.keep(all_goes(&[])).unwrap();
    // What an agent before it told is in its first line.
    journal.append(&[slept(Kind::AgentUp, 0, Some(3)), slept(Kind::HostSuspend, 1, Some(5))], at(1)).unwrap();
    journal.append(&[slept(Kind::AgentUp, 2, Some(8)), slept(Kind::HostSuspend, 3, Some(20))], at(3)).unwrap();
    journal.append(&[slept(Kind::HostSuspend, 4, Some(100))], at(4)).unwrap();
    for second in 5..20 {
        journal.append(&[agent(Kind::ClockStep, second)], at(second)).unwrap();
    }
    assert_eq!((tended(&mut journal), rotated(&dir).len()), (0, 0));
    drop(journal);
    assert!(verify_dir(&dir).first_seq > Some(5), "nothing was removed");
    let (mut journal, found) = open(&dir);
    assert_eq!(found.asleep_ns, Some(128));
    // One that does not know it.
    journal.append(&[agent(Kind::AgentUp, 21), slept(Kind::HostSuspend, 22, Some(1))], at(22)).unwrap();
    drop(journal);
    assert_eq!(open(&dir).1.asleep_ns, None);
}
