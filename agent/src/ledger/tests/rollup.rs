//! Laws of adding up: nothing is lost between buckets, nothing depends on files.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::rollup::{By, Form, Order, Period};
use super::synth::{Book, Fleet, HOUR};
use super::*;

pub(super) const ORDER: Order = Order { period: Period::Hour, by: By::Vm, form: Form::Jsonl, since: None, until: None };

pub(super) fn add_up(files: &[PathBuf], order: Order) -> (String, Notes) {
    let mut out = Vec::new();
    let notes = rollup(files.to_vec(), order, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), notes)
}

pub(super) fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The sum of a column over rows that have these keys.
pub(super) fn sum(rows: &[Value], keys: &[(&str, &str)], column: &str) -> Option<u128> {
    let these = rows.iter().filter(|row| keys.iter().all(|(key, value)| row[key] == *value));
    let numbers: Vec<u128> = these.filter_map(|row| row[column].as_str()).map(|text| text.parse().unwrap()).collect();
    (!numbers.is_empty()).then(|| numbers.iter().sum())
}

/// A ledger with one VM from 00:30 to 02:30 by whole numbers, in files of a directory.
fn two_hours(book: &mut Book, last: impl FnOnce(&Book, u64, u64) -> Draft) -> (u64, u64) {
    let begin = T0 - T0 % (24 * HOUR) + HOUR / 2;
    let mut start = book.vm(Kind::VmComputeStart, 1, begin, SECOND);
    start.shape = Shape { cpu: 4, mem_bytes: 1 << 30, storage_bytes: 0 };
    book.write(&start);
    let stop = last(book, begin + 2 * HOUR, SECOND + 2 * HOUR);
    book.write(&stop);
    (begin, SECOND)
}

fn stop(book: &Book, unix: u64, mono: u64, cpu: u64) -> Draft {
    let mut stop = book.vm(Kind::VmComputeStop, 1, unix, mono);
    stop.shape = Shape { cpu: 4, mem_bytes: 1 << 30, storage_bytes: 0 };
    stop.usage = Some(Usage { cpu_vcpu_ns: Some(cpu), cpu_vmm_ns: Some(0), ..Usage::default() });
    stop
}

fn saved(book: &Book) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let path = book.save(&root.path().join("ledger.jsonl"));
    (root, path)
}

#[test]
fn a_stretch_over_hours_is_spread_by_time_and_the_last_hour_takes_the_rest() {
    let mut book = Book::new(1);
    two_hours(&mut book, |book, unix, mono| stop(book, unix, mono, 7));
    let (_root, path) = saved(&book);
    let rows = rows(&add_up(&[path], ORDER).0);
    let column = |name: &str| rows.iter().map(|row| row[name].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(column("from"), ["2026-05-20T00:00:00Z", "2026-05-20T01:00:00Z", "2026-05-20T02:00:00Z"]);
    assert_eq!(column("cpu_used_ns"), ["1", "4", "2"]);
    assert_eq!(column("vcpu_allocated_seconds"), ["7200.000000000", "14400.000000000", "7200.000000000"]);
    assert_eq!(column("mem_allocated_gib_seconds"), ["1800.000000000", "3600.000000000", "1800.000000000"]);
    assert!(rows.iter().all(|row| row.get("mem_used_byte_ns").is_none()), "what was not measured is absent");
}

#[test]
fn a_correction_takes_the_place_of_its_line_wherever_it_lies() {
    let mut book = Book::new(1);
    let mut id = String::new();
    two_hours(&mut book, |book, unix, mono| stop(book, unix, mono, 7));
    id.push_str(&Line::parse(book.lines[1].strip_suffix(b"\n").unwrap()).unwrap().id);
    let mut correction = stop(&book, T0 - T0 % (24 * HOUR) + HOUR, SECOND + HOUR / 2, 5);
    (correction.kind, correction.corrects) = (Kind::Correction, id);
    book.write(&correction);
    let (_root, path) = saved(&book);
    let (text, notes) = add_up(&[path], ORDER);
    assert_eq!((notes.faults_total, notes.corrected), (0, 1), "{:?}", notes.faults);
    let rows = rows(&text);
    assert_eq!(sum(&rows, &[], "running_ns"), Some(u128::from(HOUR / 2)));
    assert_eq!(sum(&rows, &[], "cpu_used_ns"), Some(5));
}

#[test]
fn damage_holes_and_contradictions_are_told_and_nothing_else_is_lost() {
    let mut book = Book::new(1);
    two_hours(&mut book, |book, unix, mono| stop(book, unix, mono, 7));
    let root = tempfile::tempdir().unwrap();
    let mut other = Book::new(1);
    two_hours(&mut other, |book, unix, mono| stop(book, unix, mono, 9));
    let files = [book.save(&root.path().join("a.jsonl")), other.save(&root.path().join("b.jsonl"))];
    let (text, notes) = add_up(&files, ORDER);
    assert_eq!((notes.faults_total, notes.repeated), (1, 1));
    assert!(notes.faults[0].contains("2 different things"), "{:?}", notes.faults);
    let backwards = [files[1].clone(), files[0].clone()];
    assert_eq!(add_up(&backwards, ORDER).0, text, "which one counts does not depend on the order of files");

    let mut damaged = book.lines.concat();
    let at = damaged.len() - 400;
    damaged[at] ^= 1;
    let path = root.path().join("c.jsonl");
    fs::write(&path, &damaged).unwrap();
    let (_, notes) = add_up(&[path], ORDER);
    assert_eq!((notes.faults_total, notes.open_vms), (1, 1), "{:?}", notes.faults);

    let mut holed = Book::new(3);
    two_hours(&mut holed, |book, unix, mono| book.vm(Kind::VmComputeUsage, 1, unix, mono));
    let last = stop(&holed, T0 + 3 * HOUR, SECOND + 3 * HOUR, 9);
    holed.write(&last);
    holed.lines.remove(1);
    let (_root, path) = saved(&holed);
    let (text, notes) = add_up(&[path], ORDER);
    assert!(notes.faults[0].contains("lines 2 to 2 of ledger"), "{:?}", notes.faults);
    assert_eq!(sum(&rows(&text), &[], "running_ns"), Some(u128::from(3 * HOUR)), "cumulative usage spans the hole");
}

#[test]
fn storage_counts_by_its_size_up_to_the_last_line_of_its_boot_and_belongs_to_the_vms_tenant() {
    let mut book = Book::new(1);
    let begin = T0 - T0 % HOUR;
    let storage = |book: &Book, kind, after: u64, bytes| {
        let subject = Subject::Storage("vm-1".to_owned());
        let mut line = Draft::new(kind, subject, &book.boot, begin + after, SECOND + after);
        (line.vm_id, line.shape.storage_bytes) = ("vm-1".to_owned(), bytes);
        line
    };
    book.write(&storage(&book, Kind::VmStorageStart, 0, 10));
    let mut start = book.vm(Kind::VmComputeStart, 1, begin, SECOND);
    start.tenant = "acme".to_owned();
    book.write(&start);
    book.write(&storage(&book, Kind::VmStorageResize, 60, 30));
    book.write(&book.vm(Kind::VmComputeUsage, 1, begin + 100, SECOND + 100));
    let (_root, path) = saved(&book);
    let (text, notes) = add_up(&[path], ORDER);
    assert_eq!((notes.faults_total, notes.open_vms, notes.open_storage), (0, 1, 1), "{:?}", notes.faults);
    assert_eq!(sum(&rows(&text), &[("tenant", "acme"), ("vm_id", "vm-1")], "storage_byte_ns"), Some(600 + 30 * 40));
}

#[test]
fn a_tenant_learned_late_has_the_life_so_far_and_one_that_takes_over_what_follows() {
    let mut book = Book::new(1);
    let beat = |book: &mut Book, after: u64| {
        let after = after * SECOND;
        book.write(&book.vm(Kind::VmComputeUsage, 1, T0 + after, SECOND + after))
    };
    let learn = |book: &mut Book, after: u64, tenant: &str| {
        let mut line = book.vm(Kind::VmIdentity, 1, T0 + after * SECOND, SECOND + after * SECOND);
        line.tenant = tenant.to_owned();
        book.write(&line)
    };
    book.write(&book.vm(Kind::VmComputeStart, 1, T0, SECOND));
    beat(&mut book, 100);
    learn(&mut book, 150, "first");
    beat(&mut book, 200);
    learn(&mut book, 250, "second");
    beat(&mut book, 300);
    beat(&mut book, 450);
    let (_root, path) = saved(&book);
    let rows = rows(&add_up(&[path], Order { by: By::Tenant, ..ORDER }).0);
    let of = |tenant| sum(&rows, &[("tenant", tenant)], "running_ns");
    assert_eq!((of("first"), of("second")), (Some(300_000_000_000), Some(150_000_000_000)));
}

#[test]
fn two_ledgers_that_tell_of_one_life_bill_it_once() {
    let mut moved = Book::new(1);
    let mut book = Book::new(1);
    two_hours(&mut book, |book, unix, mono| stop(book, unix, mono, 7));
    moved.ledger = "ffff".to_owned();
    two_hours(&mut moved, |book, unix, mono| stop(book, unix, mono, 7));
    let root = tempfile::tempdir().unwrap();
    let files = [book.save(&root.path().join("a.jsonl")), moved.save(&root.path().join("b.jsonl"))];
    let (text, notes) = add_up(&files, ORDER);
    assert_eq!((notes.faults_total, notes.repeated), (0, 2), "{:?}", notes.faults);
    assert_eq!(text, add_up(&files[..1], ORDER).0);
}

#[test]
fn a_directory_is_its_ledgers_and_an_export_beside_one_is_none() {
    let root = tempfile::tempdir().unwrap();
    let names =
        ["a/ledger.jsonl", "a/ledger-00000000000000000001.jsonl", "a/out.jsonl", "a/lock", "b/host.jsonl", "b/x.csv"];
    for name in names {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::hard_link(root.path().join("a/ledger.jsonl"), root.path().join("b/again.jsonl")).unwrap();
    let found = ledger_files(&[root.path().to_owned()]).unwrap();
    let found: Vec<_> = found.iter().map(|path| path.strip_prefix(root.path()).unwrap().to_str().unwrap()).collect();
    assert_eq!(found, ["a/ledger-00000000000000000001.jsonl", "a/ledger.jsonl", "b/host.jsonl"]);
    assert!(ledger_files(&[root.path().join("none")]).is_err());
}

#[test]
fn a_fleets_day_sums_to_its_last_heartbeats() {
    let root = tempfile::tempdir().unwrap();
    let fleet = Fleet { hosts: 2, vms: 10, hours: 49, heartbeat_s: 600 };
    let lines = fleet.write(root.path());
    let files = ledger_files(&[root.path().to_owned()]).unwrap();
    let (text, notes) = add_up(&files, ORDER);
    assert_eq!((notes.faults_total, notes.lines, notes.hosts), (0, lines, 2), "{:?}", notes.faults);
    let mut last: BTreeMap<String, u128> = BTreeMap::new();
    for file in &files {
        for line in fs::read_to_string(file).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(cpu) = line["usage"]["cpu_ns"].as_str() {
                last.insert(line["incarnation"].to_string(), cpu.parse().unwrap());
            }
        }
        assert_eq!(verify_files(std::slice::from_ref(file), false, Anchor::default()).faults_total, 0);
    }
    assert_eq!(sum(&rows(&text), &[], "cpu_used_ns"), Some(last.values().sum()));
}

/// The whole form: `KVMETER_FLEET=<dir>:<hosts>:<vms>:<hours>:<heartbeat s> cargo test … -- --ignored` writes a fleet's
/// ledgers for `kvmeter ledger rollup <dir>` to be timed with (docs/ledger.md has the figures).
#[test]
#[ignore = "writes as many gigabytes as it is asked for"]
fn write_a_synthetic_fleet() {
    let order = std::env::var("KVMETER_FLEET").unwrap();
    let parts: Vec<_> = order.split(':').collect();
    let number = |at: usize| parts[at].parse().unwrap();
    let vms = u32::try_from(number(2)).unwrap();
    let fleet = Fleet { hosts: u32::try_from(number(1)).unwrap(), vms, hours: number(3), heartbeat_s: number(4) };
    println!("{} lines", fleet.write(Path::new(parts[0])));
}
