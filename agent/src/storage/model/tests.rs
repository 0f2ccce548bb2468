//! Laws of the model, one story each; `property` has a world of its own.

use super::*;
use crate::{
    ledger::{Kind, OpenStorage, Reason, Shape, StoredFile, Subject, TimeQuality},
    storage::{FileState, Found, Pattern, PlaceState, Use},
    units::Bytes,
};

mod owners;
mod property;
mod returning;

use returning::left;

const SECOND: u64 = 1_000_000_000;
const EPOCH: u64 = 1_700_000_000;

/// An instant, seconds after boot.
fn at(second: u64) -> Instant2 {
    Instant2 { boot_ns: second * SECOND, unix_ns: (EPOCH + second) * SECOND }
}

fn pools() -> Vec<Pool> {
    let pattern = |text, is| vec![Pattern::parse(text, is).unwrap()];
    vec![Pool {
        path: "/pool".into(),
        images: pattern("{vm_id}.img", Use::Image),
        snapshots: pattern("{vm_id}@{snapshot_id}.img", Use::Snapshot),
        resize_step: Bytes(100),
        interval: std::time::Duration::from_secs(30),
    }]
}

fn model() -> Model {
    let mut model = Model::new("boot", &pools(), at(10));
    model.judge();
    model
}

/// A file born so many seconds after boot.
fn id(inode: u64, born: u64) -> FileId {
    FileId { fsid: 7, inode, birth_ns: (EPOCH + born) * SECOND }
}

fn found(id: FileId, path: &str, bytes: u64, state: FileState) -> Found {
    let name = pools()[0].name_of(path);
    let (capacity_bytes, allocated_bytes) = (Some(bytes), bytes);
    Found { id, path: path.to_owned(), name, capacity_bytes, allocated_bytes, backing: None, state }
}

fn look(model: &mut Model, place: Place, second: u64, files: Vec<Found>) -> Vec<Draft> {
    model.report(Report { place, at: at(second), files, state: PlaceState::default() });
    model.settle()
}

fn pool(model: &mut Model, second: u64, files: Vec<Found>) -> Vec<Draft> {
    look(model, Place::Pool(0), second, files)
}

fn disk(id: FileId, path: &str, bytes: u64, writable: bool) -> Disk {
    Disk { id, path: path.into(), via: "via".into(), bytes: Some(bytes), is_disk: true, writable }
}

fn hold(model: &mut Model, vm_id: &str, disks: &[Disk], second: u64) -> Vec<Draft> {
    model.hold(vm_id, Holder { hypervisor: "qemu".into(), ..Holder::default() }, disks, false, at(11), at(second));
    model.settle()
}

/// Kind, subject, second, bytes, cause and reason of a line.
type Told<'a> = (&'static str, String, u64, u64, &'a str, Option<Reason>);

fn told(lines: &[Draft]) -> Vec<Told<'_>> {
    let told =
        |d: &'_ Draft| (d.kind.as_str(), d.subject.text("").to_owned(), d.mono_ns / SECOND, d.shape.storage_bytes);
    lines.iter().map(|d| (told(d), d.cause.as_str(), d.reason)).map(|((a, b, c, d), e, f)| (a, b, c, d, e, f)).collect()
}

fn one(lines: &[Draft]) -> Told<'_> {
    assert_eq!(lines.len(), 1, "{:?}", told(lines));
    told(lines).remove(0)
}

const START: &str = "vm.storage.start";
const RESIZE: &str = "vm.storage.resize";
const STOP: &str = "vm.storage.stop";

#[test]
fn a_file_born_since_the_look_before_begins_at_its_birth_and_an_older_one_when_it_is_seen() {
    let mut model = model();
    let lines = pool(&mut model, 20, vec![found(id(1, 15), "/pool/a.img", 5, FileState::There)]);
    assert_eq!((one(&lines), lines[0].time_quality), ((START, "a".into(), 15, 5, "", None), TimeQuality::Exact));
    let files = vec![
        found(id(1, 15), "/pool/a.img", 5, FileState::There),
        found(id(2, 3), "/pool/a@s.img", 9, FileState::There),
    ];
    let lines = pool(&mut model, 30, files);
    assert_eq!(one(&lines), ("snap.storage.start", id(2, 3).to_string(), 30, 9, "", None));
    let bounded = TimeQuality::Bounded { not_before: at(20).unix_ns, not_after: at(30).unix_ns };
    assert_eq!((lines[0].time_quality, &*lines[0].snapshot_id, &*lines[0].vm_id), (bounded, "s", "a"));
}

#[test]
fn what_is_deleted_but_kept_by_the_kernel_ends_when_it_is_let_go() {
    let mut model = model();
    let file = |state| found(id(1, 12), "/pool/a.img", 5, state);
    pool(&mut model, 20, vec![file(FileState::There)]);
    assert_eq!(told(&pool(&mut model, 30, vec![file(FileState::Nameless)])), []);
    let lines = pool(&mut model, 50, vec![file(FileState::Freed(at(44)))]);
    assert_eq!(
        (one(&lines), lines[0].time_quality),
        ((STOP, "a".into(), 44, 5, "deleted", Some(Reason::VmRm)), TimeQuality::Exact)
    );
}

#[test]
fn a_deletion_that_only_a_look_found_ends_at_the_look_before() {
    let mut model = model();
    let file = |state| found(id(1, 12), "/pool/a@s.img", 5, state);
    pool(&mut model, 20, vec![file(FileState::There)]);
    let lines = pool(&mut model, 50, vec![file(FileState::Gone { by_unix_ns: at(40).unix_ns })]);
    assert_eq!(one(&lines), ("snap.storage.stop", id(1, 12).to_string(), 20, 5, "deleted", Some(Reason::SnapRm)));
    assert_eq!(lines[0].time_quality, TimeQuality::Bounded { not_before: at(20).unix_ns, not_after: at(40).unix_ns });
}

#[test]
fn a_vanished_pool_ends_nothing() {
    let mut model = model();
    let file = |state| found(id(1, 12), "/pool/a.img", 5, state);
    pool(&mut model, 20, vec![file(FileState::There)]);
    assert_eq!(told(&pool(&mut model, 30, vec![file(FileState::Unknown("not mounted".into()))])), []);
    assert_eq!((model.counts(None).unknown, model.counts(None).vms), (1, 1));
    assert_eq!(told(&pool(&mut model, 40, vec![file(FileState::There)])), []);
    assert_eq!(model.counts(None).unknown, 0);
}

#[test]
fn growth_is_told_past_a_step_and_once_it_has_come_to_rest() {
    let mut model = model();
    let file = |bytes| vec![found(id(1, 12), "/pool/a@s.img", bytes, FileState::There)];
    pool(&mut model, 20, file(10));
    assert_eq!(told(&pool(&mut model, 30, file(60))), []);
    assert_eq!(one(&pool(&mut model, 40, file(110))).3, 110, "a step from what was told");
    assert_eq!(told(&pool(&mut model, 50, file(120))), []);
    assert_eq!(one(&pool(&mut model, 60, file(120))).3, 120, "at rest");
    assert_eq!(told(&pool(&mut model, 70, file(120))), []);
    let lines = pool(&mut model, 80, file(0));
    assert_eq!((one(&lines).2, one(&lines).3), (70, 0), "what shrank is billed to the look before");
}

#[test]
fn a_stopped_vms_disks_stay_its_own_until_they_are_deleted() {
    let mut model = model();
    let disks = [disk(id(1, 1), "/d/1", 30, true), disk(id(2, 1), "/d/2", 4, true), disk(id(3, 1), "/d/iso", 1, false)];
    assert_eq!(one(&hold(&mut model, "a", &disks, 20)), (START, "a".into(), 20, 35, "", None));
    model.stopped("a", at(25));
    assert_eq!(one(&model.settle()), (RESIZE, "a".into(), 25, 34, "detached", None), "what it only read is not kept");
    assert_eq!(model.wanted(Place::Loose).len(), 2);
    let seen = |n, path: &str, state| found(id(n, 1), path, 0, state);
    assert_eq!(
        told(&look(
            &mut model,
            Place::Loose,
            30,
            vec![seen(1, "/d/1", FileState::There), seen(2, "/d/2", FileState::There)]
        )),
        []
    );
    let lines = look(&mut model, Place::Loose, 40, vec![seen(1, "/d/1", FileState::Freed(at(33)))]);
    assert_eq!(one(&lines), (RESIZE, "a".into(), 33, 4, "deleted", None));
    let lines = look(&mut model, Place::Loose, 50, vec![seen(2, "/d/2", FileState::Freed(at(45)))]);
    assert_eq!(one(&lines), (STOP, "a".into(), 45, 4, "deleted", Some(Reason::VmRm)));
    assert_eq!((model.wanted(Place::Loose).len(), model.bytes_of("a")), (0, None));
}

#[test]
fn a_vm_that_runs_again_goes_on_with_its_storage() {
    let mut model = model();
    let disks = [disk(id(1, 1), "/d/1", 30, true)];
    hold(&mut model, "a", &disks, 20);
    model.stopped("a", at(25));
    assert_eq!(told(&model.settle()), []);
    assert_eq!(told(&hold(&mut model, "a", &disks, 40)), []);
    assert_eq!(
        one(&hold(&mut model, "a", &[disk(id(1, 1), "/d/1", 50, true)], 50)),
        (RESIZE, "a".into(), 50, 50, "", None)
    );
    let lines = hold(&mut model, "a", &[], 60);
    assert_eq!(one(&lines), (STOP, "a".into(), 50, 50, "detached", None), "a disk taken out is not deleted");
}

#[test]
fn a_disk_is_billed_to_the_vm_that_writes_it_and_to_no_other() {
    let mut model = model();
    let file = |state| found(id(1, 12), "/pool/a.img", 5, state);
    pool(&mut model, 20, vec![file(FileState::There)]);
    let lines = hold(&mut model, "other", &[disk(id(1, 12), "/pool/a.img", 5, true)], 30);
    let expected = [(STOP, "a".into(), 11, 5, "taken-over", None), (START, "other".into(), 30, 5, "", None)];
    let told_stop = told(&lines);
    assert_eq!((&told_stop[0].0, &told_stop[0].1, &told_stop[0].4), (&expected[0].0, &expected[0].1, &expected[0].4));
    assert_eq!(told_stop[1], expected[1]);
    // What only reads it leaves it where it is.
    assert_eq!(told(&hold(&mut model, "reader", &[disk(id(1, 12), "/pool/a.img", 5, false)], 35)), []);
    // Taken out, it is again whose its name says.
    let lines = told(&hold(&mut model, "other", &[], 40)).into_iter().map(|l| (l.0, l.1)).collect::<Vec<_>>();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.contains(&(STOP, "other".into())) && lines.contains(&(START, "a".into())));
}

#[test]
fn a_list_that_is_not_whole_takes_nothing_away() {
    let mut model = model();
    hold(&mut model, "a", &[disk(id(1, 1), "/d/1", 30, true)], 20);
    model.hold("a", Holder::default(), &[], true, at(11), at(30));
    assert_eq!(told(&model.settle()), []);
    assert_eq!(model.bytes_of("a"), Some(30));
}

#[test]
fn a_size_that_is_not_known_is_absent_until_it_is() {
    let mut model = model();
    let unknown = Disk { bytes: None, ..disk(id(1, 1), "/d/1", 0, true) };
    assert_eq!(one(&hold(&mut model, "a", &[unknown], 20)), (START, "a".into(), 20, 0, "", None));
    assert_eq!(model.bytes_of("a"), None);
    assert_eq!(one(&hold(&mut model, "a", &[disk(id(1, 1), "/d/1", 8, true)], 30)).3, 8);
}

#[test]
fn a_replaced_file_of_the_same_name_is_another_storage() {
    let mut model = model();
    let snap = |n, born, state| found(id(n, born), "/pool/a@s.img", 5, state);
    pool(&mut model, 20, vec![snap(1, 12, FileState::There)]);
    let lines = pool(&mut model, 30, vec![snap(1, 12, FileState::Freed(at(25))), snap(1, 25, FileState::There)]);
    let short: Vec<_> = told(&lines).into_iter().map(|l| (l.0, l.1, l.2)).collect();
    let expected =
        [("snap.storage.stop", id(1, 12).to_string(), 25), ("snap.storage.start", id(1, 25).to_string(), 25)];
    assert_eq!(short, expected);
}

#[test]
fn a_renamed_image_is_the_other_vms_from_then_on() {
    let mut model = model();
    pool(&mut model, 20, vec![found(id(1, 12), "/pool/a.img", 5, FileState::There)]);
    let lines = pool(&mut model, 30, vec![found(id(1, 12), "/pool/b.img", 5, FileState::There)]);
    let short: Vec<_> = told(&lines).into_iter().map(|l| (l.0, l.1, l.2, l.4)).collect();
    assert_eq!(short, [(STOP, "a".into(), 20, "moved"), (START, "b".into(), 30, "")]);
    let lines = pool(&mut model, 40, vec![found(id(1, 12), "/pool/b@s.img", 5, FileState::There)]);
    assert!(told(&lines).iter().any(|l| (l.0, &*l.1) == (STOP, "b")), "{:?}", told(&lines));
    assert!(told(&lines).iter().any(|l| l.0 == "snap.storage.start"), "{:?}", told(&lines));
}

#[test]
fn a_clone_names_the_snapshot_it_was_made_from() {
    let mut model = model();
    let snap = found(id(1, 12), "/pool/a@gold.img", 5, FileState::There);
    let clone =
        Found { backing: Some("/pool/a@gold.img".into()), ..found(id(2, 14), "/pool/b.img", 9, FileState::There) };
    let lines = pool(&mut model, 20, vec![snap, clone]);
    let vm = lines.iter().find(|line| line.kind == Kind::VmStorageStart).unwrap();
    assert_eq!(vm.source_snapshot_id, "gold");
}

#[test]
fn a_snapshot_is_what_it_takes_and_a_disk_what_it_offers() {
    let mut model = model();
    let sparse = |path: &str| vec![Found { allocated_bytes: 3, ..found(id(1, 12), path, 900, FileState::There) }];
    assert_eq!(one(&pool(&mut model, 20, sparse("/pool/a@s.img"))).3, 3);
    let lines = pool(&mut model, 30, sparse("/pool/a.img"));
    assert!(told(&lines).iter().any(|line| (line.0, line.3) == (START, 900)), "{:?}", told(&lines));
    let lines = pool(&mut model, 40, sparse("/pool/a@t.img"));
    assert!(told(&lines).iter().any(|line| (line.0, line.3) == ("snap.storage.start", 3)), "{:?}", told(&lines));
}
