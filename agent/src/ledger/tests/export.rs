//! Laws of handing over: ids that make a repetition harmless, sums that are the roll-up's, nothing skipped in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde_json::Value;

use super::super::rollup::{By, Form, Order, Period};
use super::golden;
use super::synth::{Book, Fleet};
use super::*;

const FORMS: [(ExportFormat, &str); 5] = [
    (ExportFormat::Cocoon, "cocoon.jsonl"),
    (ExportFormat::Cloudevents, "cloudevents.jsonl"),
    (ExportFormat::CloudeventsBatch, "cloudevents-batch.jsonl"),
    (ExportFormat::Openmeter, "openmeter.jsonl"),
    (ExportFormat::Lago, "lago.jsonl"),
];

fn exported(files: &[PathBuf], format: ExportFormat) -> Vec<u8> {
    let mut out = Vec::new();
    export(files.to_vec(), format, 10, &mut out).unwrap();
    out
}

fn events(text: &[u8]) -> Vec<Value> {
    std::str::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_form_is_what_its_golden_file_says() {
    let root = tempfile::tempdir().unwrap();
    let file = golden::book().save(&root.path().join(FILE_NAME));
    for (format, name) in FORMS {
        golden::compare(name, &exported(std::slice::from_ref(&file), format));
    }
}

#[test]
fn the_old_form_has_eight_keys_and_six_kinds_and_a_resize_is_a_stop_and_a_start() {
    let root = tempfile::tempdir().unwrap();
    let file = golden::book().save(&root.path().join(FILE_NAME));
    let old = events(&exported(&[file], ExportFormat::Cocoon));
    let keys = ["kind", "vm_id", "snapshot_id", "source_snapshot_id", "reason", "hypervisor", "shape", "emitted_at"];
    for event in &old {
        let places: Vec<_> =
            event.as_object().unwrap().keys().map(|k| keys.iter().position(|known| known == k)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{event}");
    }
    let kinds: BTreeSet<_> = old.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    let six = [
        "snap.storage.start",
        "snap.storage.stop",
        "vm.compute.start",
        "vm.compute.stop",
        "vm.storage.start",
        "vm.storage.stop",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), six);
    for kind in ["vm.compute", "vm.storage", "snap.storage"] {
        let count = |end: &str| old.iter().filter(|event| event["kind"] == format!("{kind}.{end}")).count();
        assert_eq!((count("start"), count("stop")), (2, 2), "{kind}");
    }
}

#[test]
fn a_cloud_event_carries_the_line_byte_for_byte() {
    let root = tempfile::tempdir().unwrap();
    let book = golden::book();
    let file = book.save(&root.path().join(FILE_NAME));
    let text = exported(&[file], ExportFormat::Cloudevents);
    for (event, line) in text.split_inclusive(|b| *b == b'\n').zip(&book.lines) {
        let line = line.strip_suffix(b"\n").unwrap();
        assert!(event.windows(line.len()).any(|part| part == line));
        let event: Value = serde_json::from_slice(event).unwrap();
        assert_eq!((&event["specversion"], &event["id"]), (&"1.0".into(), &event["data"]["id"]));
        assert!(["source", "type", "time"].iter().all(|key| !event[key].as_str().unwrap().is_empty()), "{event}");
    }
}

/// Sums by hour, tenant and metric.
type Sums = BTreeMap<(String, String, String), u128>;

fn hour(unix: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix - unix % 3600);
    humantime::format_rfc3339_seconds(at).to_string()
}

#[test]
fn what_a_metering_service_sums_over_an_hour_is_the_rollup_of_it() {
    let root = tempfile::tempdir().unwrap();
    Fleet { hosts: 2, vms: 10, hours: 27, heartbeat_s: 675 }.write(root.path());
    let files = ledger_files(&[root.path().to_owned()]).unwrap();
    let order = Order { period: Period::Hour, by: By::Tenant, form: Form::Jsonl, since: None, until: None };
    let mut rows = Vec::new();
    rollup(files.clone(), order, &mut rows).unwrap();
    let mut expected = Sums::new();
    for row in events(&rows) {
        for (name, value) in row.as_object().unwrap() {
            let number = value.as_str().unwrap().parse::<u128>();
            let (Ok(number), false) = (number, name == "host") else { continue };
            let key =
                (row["from"].as_str().unwrap().to_owned(), row["tenant"].as_str().unwrap().to_owned(), name.clone());
            *expected.entry(key).or_default() += number;
        }
    }
    expected.retain(|_, sum| *sum > 0);
    let (mut openmeter, mut lago) = (Sums::new(), Sums::new());
    for event in events(&exported(&files, ExportFormat::Openmeter)) {
        let at = humantime::parse_rfc3339(event["time"].as_str().unwrap()).unwrap();
        let at = hour(at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());
        for (name, value) in event["data"].as_object().unwrap() {
            let ours = name.ends_with("_ns") || name.ends_with("_bytes") || name.ends_with("_packets");
            if ours {
                let key = (at.clone(), event["subject"].as_str().unwrap().to_owned(), name.clone());
                *openmeter.entry(key).or_default() += value.as_str().unwrap().parse::<u128>().unwrap();
            }
        }
    }
    let mut ids = BTreeSet::new();
    for event in events(&exported(&files, ExportFormat::Lago)) {
        let event = &event["event"];
        assert!(ids.insert(event["transaction_id"].to_string()), "{event}");
        let name = event["code"].as_str().unwrap().strip_prefix("kvmeter_").unwrap().to_owned();
        let key = (
            hour(event["timestamp"].as_u64().unwrap()),
            event["external_subscription_id"].as_str().unwrap().to_owned(),
            name,
        );
        *lago.entry(key).or_default() += event["properties"]["value"].as_str().unwrap().parse::<u128>().unwrap();
    }
    assert_eq!(openmeter, expected);
    assert_eq!(lago, expected);
}

/// Reads on until there is nothing more; stops dead after `dies` lines, its cursor left where it was.
fn run(dir: &Path, cursor: &Path, dies: Option<usize>, got: &mut Vec<String>) -> Result<(), FollowError> {
    let mut follower = Follower::new(dir, Cursor::load(cursor).unwrap());
    let mut seen = 0;
    loop {
        let lines = follower.next(3)?;
        let Some(last) = lines.last().map(|(line, ..)| Cursor::at(line)) else { return follower.check_cursor() };
        for (line, _, new) in &lines {
            if dies.is_some_and(|dies| seen == dies) {
                return Ok(());
            }
            seen += 1;
            got.extend(new.then(|| line.id.clone()));
        }
        if lines.iter().any(|(_, _, new)| *new) {
            last.store(cursor).unwrap();
        }
    }
}

#[test]
fn a_follower_that_dies_anywhere_hands_over_every_line_in_order_and_repeats_only_what_was_under_way() {
    let root = tempfile::tempdir().unwrap();
    let book = golden::book();
    let (live, count) = (root.path().join(FILE_NAME), book.lines.len());
    let ids: Vec<_> = book.lines.iter().map(|l| Line::parse(l.strip_suffix(b"\n").unwrap()).unwrap().id).collect();
    for dies in 0..count {
        let cursor = root.path().join(format!("cursor-{dies}"));
        let rotated = root.path().join("ledger-00000000000000000001.jsonl");
        let _ = fs::remove_file(&rotated);
        fs::write(&live, book.lines[..5].concat()).unwrap();
        let mut got = Vec::new();
        run(root.path(), &cursor, Some(dies), &mut got).unwrap();
        let mut half = fs::OpenOptions::new().append(true).open(&live).unwrap();
        half.write_all(&book.lines[5][..20]).unwrap();
        run(root.path(), &cursor, None, &mut got).unwrap();
        half.write_all(&book.lines[5][20..]).unwrap();
        fs::rename(&live, &rotated).unwrap();
        fs::write(&live, book.lines[6..].concat()).unwrap();
        run(root.path(), &cursor, None, &mut got).unwrap();
        let repeated = got.len() - count;
        assert!(repeated < 3, "{repeated} repeated");
        let mut once = Vec::new();
        for id in got {
            if !once.contains(&id) {
                once.push(id);
            }
        }
        assert_eq!(once, ids, "dead after {dies}");
    }
}

#[test]
fn one_follower_goes_on_over_a_rotation_and_sees_what_was_written_before_it() {
    let root = tempfile::tempdir().unwrap();
    let book = golden::book();
    let live = root.path().join(FILE_NAME);
    let mut follower = Follower::new(root.path(), None);
    assert!(follower.next(100).unwrap().is_empty());
    fs::write(&live, book.lines[..3].concat()).unwrap();
    assert_eq!(follower.next(100).unwrap().len(), 3);
    fs::OpenOptions::new().append(true).open(&live).unwrap().write_all(&book.lines[3]).unwrap();
    fs::rename(&live, root.path().join("ledger-00000000000000000001.jsonl")).unwrap();
    fs::write(&live, &book.lines[4]).unwrap();
    let got: Vec<_> = (0..2).flat_map(|_| follower.next(100).unwrap()).map(|(line, ..)| line.seq).collect();
    assert_eq!(got, [4, 5]);
}

#[test]
fn a_follower_refuses_to_go_on_past_what_it_cannot_answer_for() {
    let root = tempfile::tempdir().unwrap();
    let book = golden::book();
    let (live, cursor) = (root.path().join(FILE_NAME), root.path().join("cursor"));
    let tried = |lines: &[Vec<u8>]| {
        fs::write(&live, lines.concat()).unwrap();
        run(root.path(), &cursor, None, &mut Vec::new())
    };
    tried(&book.lines[..4]).unwrap();
    assert!(matches!(tried(&book.lines[6..]), Err(FollowError::Gone { first: 7, due: 5, .. })));
    assert!(matches!(tried(&book.lines[..2]), Err(FollowError::Foreign { seq: 4, .. })), "the cursor is ahead");
    let mut other = Book::new(9);
    (0..5).for_each(|_| drop(other.write(&agent(Kind::AgentUp, 0))));
    assert!(matches!(tried(&other.lines), Err(FollowError::Foreign { .. })), "another ledger");
    let hole = [&book.lines[..4], &book.lines[5..]].concat();
    assert!(matches!(tried(&hole), Err(FollowError::Damaged { source: LineError::Seq { expected: 5, .. }, .. })));
    let mut damaged = book.lines.clone();
    damaged[4][30] ^= 1;
    assert!(matches!(tried(&damaged), Err(FollowError::Damaged { .. })));

    fs::write(&live, book.lines.concat()).unwrap();
    let mut follower = Follower::new(root.path(), None);
    follower.next(100).unwrap();
    fs::write(&live, &book.lines[0]).unwrap();
    assert!(matches!(follower.next(100), Err(FollowError::Shorter { .. })));
    fs::write(&cursor, "{}").unwrap();
    assert!(matches!(Cursor::load(&cursor), Err(CursorError::Json { .. })));
}

#[test]
fn an_event_of_a_line_is_the_same_whether_all_is_handed_over_or_what_follows_a_cursor() {
    let book = golden::book();
    let lines: Vec<_> = book.lines.iter().map(|l| l.strip_suffix(b"\n").unwrap()).collect();
    for (format, _) in FORMS {
        let all = |from: usize| {
            let (mut exporter, mut notes) = (Exporter::new(format), Notes::default());
            let made = lines.iter().map(|l| exporter.accept(&Line::parse(l).unwrap(), l, &mut notes));
            made.skip(from).flatten().collect::<Vec<_>>()
        };
        let whole = all(0);
        let ids: BTreeSet<_> = whole.iter().map(|event| &event.id).collect();
        assert_eq!(ids.len(), whole.len(), "no id twice");
        assert!((1..lines.len()).all(|from| whole.ends_with(&all(from))));
    }
}
