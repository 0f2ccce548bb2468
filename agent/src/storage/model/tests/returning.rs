//! Laws of coming back to what an earlier agent left open.

use super::*;

/// What an earlier agent left open: image or snapshot, last known at second 18.
pub(super) fn left(kind: Kind, subject: &str, file: FileId, path: &str, boot: &str) -> OpenStorage {
    OpenStorage {
        subject: Subject::Storage(subject.into()),
        kind,
        vm_id: "a".into(),
        snapshot_id: if kind == Kind::VmStorageStart { "" } else { "s" }.into(),
        source_snapshot_id: String::new(),
        hypervisor: "qemu".into(),
        name: String::new(),
        uuid: String::new(),
        tenant: "acme".into(),
        labels: [("tier".into(), "gold".into())].into(),
        shape: Shape { storage_bytes: 5, ..Shape::default() },
        files: vec![StoredFile { file: file.to_string(), path: path.into(), bytes: Some(5) }],
        boot_id: boot.into(),
        started_at: at(12).unix_ns,
        started_mono_ns: at(12).boot_ns,
        start_seq: 1,
        last_seen_at: at(18).unix_ns,
        last_seen_mono_ns: at(18).boot_ns,
    }
}

fn returning(open: Vec<OpenStorage>) -> (Model, Vec<Draft>) {
    let mut model = Model::new("boot", &pools(), at(18));
    model.resume(open, &pools(), at(30));
    let lines = model.settle();
    (model, lines)
}

#[test]
fn what_came_and_went_while_no_agent_ran_is_told_once_and_bounded() {
    let snap = id(2, 12);
    let open = vec![
        left(Kind::VmStorageStart, "a", id(1, 12), "/d/1", "boot"),
        left(Kind::SnapStorageStart, &snap.to_string(), snap, "/pool/a@s.img", "boot"),
    ];
    let (mut model, lines) = returning(open);
    assert_eq!(told(&lines), [], "nothing is opened twice");
    assert_eq!((model.wanted(Place::Loose).len(), model.wanted(Place::Pool(0)).len()), (1, 1));
    let gone = FileState::Gone { by_unix_ns: at(29).unix_ns };
    let files =
        vec![found(snap, "/pool/a@s.img", 5, gone.clone()), found(id(3, 22), "/pool/b.img", 6, FileState::There)];
    assert_eq!(one(&pool(&mut model, 31, files)), (START, "b".into(), 22, 6, "", None), "at its birth, exactly");
    assert_eq!(
        told(&look(&mut model, Place::Loose, 31, vec![found(id(1, 12), "/d/1", 0, gone)])),
        [],
        "not judged yet"
    );
    model.judge();
    let lines = model.settle();
    let short: Vec<_> = told(&lines).into_iter().map(|l| (l.0, l.2, l.5)).collect();
    assert_eq!(short, [("snap.storage.stop", 18, Some(Reason::SnapRm)), (STOP, 18, Some(Reason::VmRm))]);
    for line in &lines {
        assert_eq!(line.time_quality, TimeQuality::Bounded { not_before: at(18).unix_ns, not_after: at(29).unix_ns });
    }
}

#[test]
fn what_a_running_vm_still_holds_is_not_gone_though_it_has_no_name() {
    let (mut model, _) = returning(vec![left(Kind::VmStorageStart, "a", id(1, 12), "/d/1", "boot")]);
    look(
        &mut model,
        Place::Loose,
        31,
        vec![found(id(1, 12), "/d/1", 0, FileState::Gone { by_unix_ns: at(29).unix_ns })],
    );
    assert_eq!(told(&hold(&mut model, "a", &[disk(id(1, 12), "/d/1", 5, true)], 32)), []);
    model.judge();
    assert_eq!(told(&model.settle()), []);
    assert_eq!(model.wanted(Place::Loose)[0].via.as_deref(), Some("via"));
    look(&mut model, Place::Loose, 40, vec![found(id(1, 12), "/d/1", 0, FileState::Freed(at(39)))]);
    model.stopped("a", at(39));
    assert_eq!(one(&model.settle()), (STOP, "a".into(), 39, 5, "deleted", Some(Reason::VmRm)));
}

#[test]
fn another_boot_ends_intervals_and_what_is_still_there_is_there_since_it_began() {
    let snap = id(2, 12);
    let open = vec![
        left(Kind::VmStorageStart, "a", id(1, 12), "/d/1", "before"),
        left(Kind::SnapStorageStart, &snap.to_string(), snap, "/pool/a@s.img", "before"),
    ];
    let (mut model, lines) = returning(open);
    for line in &lines {
        assert_eq!(
            (&*line.boot_id, &*line.cause, line.mono_ns, line.reason),
            ("before", "host-reboot", 18 * SECOND, None)
        );
    }
    assert_eq!(lines.len(), 2);
    let line = one(&look(&mut model, Place::Loose, 31, vec![found(id(1, 12), "/d/1", 0, FileState::There)])).clone().0;
    assert_eq!(line, START);
    let lines = pool(&mut model, 31, vec![found(snap, "/pool/a@s.img", 5, FileState::There)]);
    assert_eq!(
        (one(&lines), lines[0].time_quality),
        (("snap.storage.start", snap.to_string(), 0, 5, "", None), TimeQuality::Exact)
    );
}

#[test]
fn what_was_renamed_while_no_agent_ran_is_the_others_from_then_on() {
    let (mut model, _) = returning(vec![left(Kind::VmStorageStart, "a", id(1, 12), "/pool/a.img", "boot")]);
    let lines = pool(&mut model, 31, vec![found(id(1, 12), "/pool/b.img", 5, FileState::There)]);
    let short: Vec<_> = told(&lines).into_iter().map(|l| (l.0, l.1, l.2, l.4)).collect();
    assert_eq!(short, [(STOP, "a".into(), 18, "moved"), (START, "b".into(), 31, "")]);
    // One that another VM held last stays that VM's, whatever its name says.
    let (mut model, _) = returning(vec![left(Kind::VmStorageStart, "uuid", id(1, 12), "/pool/a.img", "boot")]);
    assert_eq!(told(&pool(&mut model, 31, vec![found(id(1, 12), "/pool/a.img", 5, FileState::There)])), []);
}

#[test]
fn whose_it_is_comes_back_with_the_ledger_and_the_newest_word_is_told_at_the_end() {
    let (image, snap) = (id(1, 11), id(2, 12));
    let open = vec![
        left(Kind::VmStorageStart, "a", image, "/pool/a.img", "boot"),
        left(Kind::SnapStorageStart, &snap.to_string(), snap, "/pool/a@s.img", "boot"),
    ];
    let (mut model, _) = returning(open);
    model.belongs("a", "globex", &BTreeMap::new());
    model.judge();
    let gone = FileState::Gone { by_unix_ns: at(20).unix_ns };
    let files = vec![found(image, "/pool/a.img", 5, gone.clone()), found(snap, "/pool/a@s.img", 5, gone)];
    model.report(Report { place: Place::Pool(0), at: at(31), files, state: PlaceState::default() });
    let lines = model.settle();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        assert!(matches!(line.kind, Kind::VmStorageStop | Kind::SnapStorageStop));
        assert_eq!((line.tenant.as_str(), line.labels["tier"].as_str()), ("globex", "gold"), "labels left out stand");
    }
}
