//! Laws of the schema: it is what the types say, every line that is written holds it, and it refuses what no reader
//! takes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::line::drafts;
use super::strict::faults;
use super::synth::Fleet;
use super::*;

fn value(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap()
}

#[test]
fn the_published_schema_is_the_one_the_types_give() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ledger.schema.json");
    let published: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(published, schema().unwrap(), "run `cargo xtask docs`");
}

#[test]
fn every_line_of_every_ledger_of_these_tests_holds_the_schema() {
    let schema = schema().unwrap();
    let root = tempfile::tempdir().unwrap();
    Fleet { hosts: 1, vms: 10, hours: 25, heartbeat_s: 3600 }.write(root.path());
    let (mut journal, _) = open(&root.path().join("day"));
    journal.append(&day(), at(0)).unwrap();
    let golden = golden::book().save(&root.path().join("golden.jsonl"));
    let mut lines = 0;
    for file in [root.path().join("host-0000").join(FILE_NAME), file(&root.path().join("day")), golden] {
        for line in fs::read(&file).unwrap().split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line = value(line);
            assert_eq!(faults(&schema, &line), Vec::<String>::new(), "{line}");
            lines += 1;
        }
    }
    assert!(lines > 200, "{lines}");
}

proptest! {
    #[test]
    fn whatever_is_written_holds_the_schema(draft in drafts(), seq in any::<u64>()) {
        let (ledger, prev) = ("00112233aabbccdd", "0".repeat(64));
        let place = Place { ledger, host: HOST, seq, ordinal: 0, prev: &prev, recorded_at: T0 };
        let line = encode(&draft, &place).unwrap();
        prop_assert_eq!(faults(&schema().unwrap(), &value(&line.bytes)), Vec::<String>::new());
    }
}

#[test]
fn what_no_reader_takes_is_refused() {
    let schema = schema().unwrap();
    let book = golden::book();
    let stop = book.lines.iter().map(|line| value(line)).find(|line| line["kind"] == "vm.compute.stop").unwrap();
    assert_eq!(faults(&schema, &stop), Vec::<String>::new());
    let wrong: [(&str, Value); 12] = [
        ("kind", json!("vm.compute.pause")),
        ("emitted_at", json!("2026-05-20T01:02:03Z")),
        ("mono_ns", json!(5)),
        ("mono_ns", json!("007")),
        ("mono_ns", json!("123456789012345678901")),
        ("seq", json!("1")),
        ("seq", json!(-1)),
        ("v", json!(2)),
        ("id", json!("ABC")),
        ("time_quality", json!("exact")),
        ("shape", json!({ "cpu": 4_294_967_296_u64 })),
        ("labels", json!({ "a": 1 })),
    ];
    for (key, new) in wrong {
        let mut line = stop.clone();
        line[key] = new;
        assert!(!faults(&schema, &line).is_empty(), "{key}: {}", line[key]);
    }
    for key in schema["required"].as_array().unwrap() {
        let mut line = stop.clone();
        line.as_object_mut().unwrap().remove(key.as_str().unwrap());
        assert!(!faults(&schema, &line).is_empty(), "without {key}");
    }
    let mut line = stop;
    line.as_object_mut().unwrap().remove("not_after");
    assert!(!faults(&schema, &line).is_empty(), "bounded without a bound");
}

#[test]
fn every_key_of_a_line_has_its_meaning_in_the_schema() {
    let schema = schema().unwrap();
    for (key, node) in schema["properties"].as_object().unwrap() {
        assert!(node["description"].is_string(), "{key} has no meaning in ledger/schema.rs");
    }
    assert_eq!(schema["properties"]["usage"]["properties"]["mem_byte_ns"]["pattern"], "^(0|[1-9][0-9]{0,38})$");
    assert_eq!(schema["properties"]["usage"]["properties"]["net"]["items"]["required"].as_array().unwrap().len(), 6);
}
