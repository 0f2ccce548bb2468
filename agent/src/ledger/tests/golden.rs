//! Golden files: a ledger with a line of every kind, and what each reader makes of it. `KVMETER_GOLDEN=write` writes
//! them anew, for a person to read the difference.

use super::super::rollup::{By, Form, Order, Period};
use super::synth::{Book, HOUR};
use super::*;

/// Half past eleven in the evening, so that hours and days end within the ledger.
const BEGIN: u64 = T0 - T0 % (24 * HOUR) + 47 * HOUR / 2;
const MONO: u64 = 100 * SECOND;

/// Compares with a golden file.
pub(super) fn compare(name: &str, found: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger/tests/golden").join(name);
    if std::env::var("KVMETER_GOLDEN").is_ok_and(|what| what == "write") {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read(&path).unwrap();
    assert!(
        expected == found,
        "{} is not what is written now; KVMETER_GOLDEN=write writes it anew. Now:\n{}",
        path.display(),
        String::from_utf8_lossy(found)
    );
}

fn of_ledger(book: &Book, kind: Kind, after: u64) -> Draft {
    let mut draft = Draft::new(kind, Subject::Ledger, &book.boot, BEGIN + after, MONO + after);
    draft.cause = if kind == Kind::LedgerRecovered { "torn-tail".to_owned() } else { String::new() };
    draft.cut_bytes = (kind == Kind::LedgerRecovered).then_some(17);
    draft.stepped_from = (kind == Kind::ClockStep).then_some(BEGIN + after - 86_400 * SECOND);
    draft.suspended_ns = (kind == Kind::HostSuspend).then_some(28_800 * SECOND);
    if kind == Kind::AgentUp {
        draft.clean = Some(true);
        draft.shape = Shape { cpu: 8, mem_bytes: 64 << 30, storage_bytes: 0 };
        draft.resumed_after = Some(Mark { seq: 41, id: "0123456789abcdef0123456789abcdef".to_owned() });
    }
    draft
}

fn of_vm(book: &Book, kind: Kind, after: u64, cpu: u32) -> Draft {
    let mut draft = book.vm(kind, 1, BEGIN + after, MONO + after);
    draft.shape = Shape { cpu, mem_bytes: 1 << 30, storage_bytes: 0 };
    let net = |class: &str, bytes| NetUsage {
        interface: "tap0".into(),
        class: class.into(),
        receive_bytes: bytes,
        receive_packets: bytes / 1000,
        transmit_bytes: bytes / 2,
        transmit_packets: bytes / 2000,
    };
    if matches!(kind, Kind::VmComputeUsage | Kind::VmComputeResize | Kind::VmComputeStop) {
        draft.usage = Some(Usage {
            cpu_vcpu_ns: Some(after / 2),
            cpu_vmm_ns: Some(after / 50),
            cpu_io_ns: Some(after / 60),
            cpu_vhost_ns: Some(0),
            guest_ns: Some(after / 3),
            halt_poll_ns: Some(after / 100),
            run_delay_ns: Some(after / 70),
            mem_byte_ns: Some(u128::from(after) << 29),
            mem_peak_bytes: Some(1 << 30),
            disk_read_bytes: Some(after / 1_000_000),
            disk_written_bytes: Some(after / 3_000_000),
            net: vec![net("external", after / 1_000), net("internal", after / 3_000)],
            net_unobserved: vec![NetUnobserved { interface: "net1".into(), kind: "vfio".into() }],
        });
        draft.coverage = Some(Coverage { observed_ns: after - after / 10, unobserved_ns: after / 10, lost_events: 3 });
    }
    draft
}

fn of_storage(book: &Book, kind: Kind, after: u64, gib: u64) -> Draft {
    let of_snapshot = matches!(kind, Kind::SnapStorageStart | Kind::SnapStorageResize | Kind::SnapStorageStop);
    let subject = Subject::Storage(if of_snapshot { "9f3a:1201:1779238923000000000" } else { "vm-1" }.to_owned());
    let mut draft = Draft::new(kind, subject, &book.boot, BEGIN + after, MONO + after);
    draft.shape.storage_bytes = gib << 30;
    if of_snapshot {
        (draft.snapshot_id, draft.source_snapshot_id) = ("snap-7".to_owned(), "base-1".to_owned());
    } else {
        draft.vm_id = "vm-1".to_owned();
    }
    draft
}

/// A ledger with a line of every kind and every key.
pub(super) fn book() -> Book {
    let mut book = Book::new(0xfeed);
    book.write(&of_ledger(&book, Kind::LedgerRecovered, 0));
    book.write(&of_ledger(&book, Kind::AgentUp, SECOND));
    let mut start = of_vm(&book, Kind::VmComputeStart, 0, 2);
    start.reason = Some(Reason::Restore);
    start.source_snapshot_id = "snap-6".to_owned();
    start.evidence.first_run_at = Some(BEGIN + 1_000);
    (start.name, start.uuid) = ("db \"one\"".to_owned(), "0b5e1b70-7d0f-4c2e-9d5c-0d7a3f1f2a02".to_owned());
    book.write(&start);
    book.write(&of_storage(&book, Kind::VmStorageStart, SECOND, 10));
    book.write(&of_storage(&book, Kind::SnapStorageStart, 2 * SECOND, 4));
    book.write(&of_vm(&book, Kind::VmComputeUsage, HOUR / 2 - SECOND, 2));
    let mut identity = of_vm(&book, Kind::VmIdentity, HOUR / 2, 2);
    (identity.tenant, identity.name) = ("acme".to_owned(), "db".to_owned());
    identity.labels.insert("tier".to_owned(), "gold, \u{fc}".to_owned());
    identity.evidence.annotated_by = Some("uid 0".to_owned());
    book.write(&identity);
    book.write(&of_vm(&book, Kind::VmComputeResize, HOUR / 2 + 60 * SECOND, 4));
    book.write(&of_ledger(&book, Kind::ClockStep, HOUR));
    book.write(&of_ledger(&book, Kind::HostSuspend, HOUR + SECOND));
    book.write(&of_ledger(&book, Kind::AgentGap, HOUR + 2 * SECOND));
    book.write(&of_storage(&book, Kind::VmStorageResize, HOUR + 3 * SECOND, 20));
    book.write(&of_storage(&book, Kind::SnapStorageResize, HOUR + 4 * SECOND, 5));
    book.write(&of_vm(&book, Kind::VmComputeUsage, HOUR + 5 * SECOND, 4));
    let mut stop = of_vm(&book, Kind::VmComputeStop, 2 * HOUR, 4);
    stop.reason = Some(Reason::StopCrash);
    stop.cause = "signal".to_owned();
    stop.time_quality = TimeQuality::Bounded { not_before: stop.emitted_at, not_after: stop.emitted_at + SECOND };
    stop.evidence = Evidence {
        exit_code: Some(-1),
        signal: Some(9),
        core_dumped: Some(false),
        oom: Some(true),
        killer_pid: Some(77),
        killer_comm: Some("kill".to_owned()),
        kvm_exit: Some("shutdown".to_owned()),
        ..Evidence::default()
    };
    let id = book.write(&stop);
    book.write(&of_storage(&book, Kind::VmStorageStop, 2 * HOUR + SECOND, 20));
    book.write(&of_storage(&book, Kind::SnapStorageStop, 2 * HOUR + 2 * SECOND, 5));
    let mut correction = Draft { kind: Kind::Correction, corrects: id, ..stop };
    correction.reason = Some(Reason::StopUser);
    correction.labels.insert("cut".to_owned(), "x".repeat(20_000));
    book.write(&correction);
    book.write(&of_ledger(&book, Kind::AgentDown, 2 * HOUR + 3 * SECOND));
    book
}

#[test]
fn the_golden_ledger_has_every_kind_and_is_whole() {
    let book = book();
    let root = tempfile::tempdir().unwrap();
    let file = book.save(&root.path().join(FILE_NAME));
    compare("ledger.jsonl", &book.lines.concat());
    let parsed: Vec<_> = book.lines.iter().map(|l| Line::parse(l.strip_suffix(b"\n").unwrap()).unwrap()).collect();
    assert!(Kind::ALL.iter().all(|kind| parsed.iter().any(|line| line.fact.kind == *kind)));
    let report = verify_files(&[file], false, Anchor::default());
    assert_eq!(report.faults_total, 0, "{report}");
}

#[test]
fn the_rollup_of_the_golden_ledger_is_what_its_golden_files_say() {
    let root = tempfile::tempdir().unwrap();
    let file = book().save(&root.path().join(FILE_NAME));
    for (form, period, by, name) in [
        (Form::Csv, Period::Hour, By::Vm, "rollup-hour.csv"),
        (Form::Json, Period::Day, By::Tenant, "rollup-day-tenant.json"),
    ] {
        let mut out = Vec::new();
        let order = Order { period, by, form, since: None, until: None };
        let notes = rollup(vec![file.clone()], order, &mut out).unwrap();
        assert_eq!(notes.faults_total, 0, "{:?}", notes.faults);
        compare(name, &out);
    }
}
