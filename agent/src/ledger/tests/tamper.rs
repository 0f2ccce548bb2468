//! Laws of the readers: what `verify` finds, what it lets pass, what `show` prints.

use std::io::BufReader;

use proptest::prelude::*;

use super::*;

/// A ledger of these facts, and what verify says of it.
fn report(facts: &[Draft]) -> Report {
    written(facts, at(50))
}

/// The same, written then.
fn written(facts: &[Draft], when: Stamp) -> Report {
    let (_root, dir) = fresh_dir();
    open(&dir).0.append(facts, when).unwrap();
    verified(&dir)
}

fn faults(facts: &[Draft]) -> String {
    let report = report(facts);
    assert_eq!(report.exit_code(), 3, "no fault found");
    report.to_string()
}

fn day_bytes() -> Vec<u8> {
    let (_root, dir) = fresh_dir();
    open(&dir).0.append(&day(), at(50)).unwrap();
    fs::read(file(&dir)).unwrap()
}

fn verify_bytes(bytes: &[u8], live: bool) -> Report {
    let mut verifier = Verifier::new(Anchor::default());
    verifier.read("ledger", bytes, live).unwrap();
    verifier.finish()
}

#[test]
fn open_intervals_and_told_gaps_are_reported_not_failed() {
    let report = report(&day());
    assert_eq!((report.exit_code(), report.open.len(), report.gaps), (0, 1, 1), "{report}");
    assert_eq!(report.open[0].incarnation, incarnation(2));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["lines"], &json["faults_total"]), (&15.into(), &0.into()));
}

#[test]
fn an_unreadable_ledger_is_told_from_a_faulty_one() {
    let (_root, dir) = fresh_dir();
    assert_eq!(verify_dir(&dir).exit_code(), 1);
    open(&dir);
    assert_eq!(verify_dir(&dir).exit_code(), 0);
}

#[test]
fn a_tail_is_being_written_while_an_agent_lives_and_torn_when_none_does() {
    let bytes = day_bytes();
    let cut = &bytes[..bytes.len() - 9];
    assert_eq!((verify_bytes(cut, true).exit_code(), verify_bytes(cut, false).exit_code()), (0, 3));
    let (_root, dir) = fresh_dir();
    let journal = open(&dir).0;
    fs::write(file(&dir), cut).unwrap();
    assert!(verify_dir(&dir).tail.unwrap().being_written);
    drop(journal);
    assert_eq!(verify_dir(&dir).exit_code(), 3);
}

#[test]
fn a_life_is_told_once_and_in_order() {
    let (start, stop) = (|second| vm(Kind::VmComputeStart, 1, second), |second| vm(Kind::VmComputeStop, 1, second));
    assert!(faults(&[start(0), start(0)]).contains("second start"));
    assert!(faults(&[start(0), stop(1), start(2)]).contains("has ended"));
    assert!(faults(&[stop(1)]).contains("without a start"));
    assert!(faults(&[start(0), stop(1), vm(Kind::VmComputeUsage, 1, 2)]).contains("after its stop"));
    assert!(faults(&[start(5), vm(Kind::VmComputeStop, 1, 4)]).contains("before its start"));
    let mut other = vm(Kind::VmComputeStart, 2, 3);
    other.vm_id = "vm-1".to_owned();
    assert!(faults(&[start(0), other.clone()]).contains("before"));
    assert_eq!(report(&[start(0), stop(1), other]).exit_code(), 0);
}

#[test]
fn a_disk_may_come_back_but_not_twice_at_once() {
    let (start, stop) = (stored(Kind::VmStorageStart, "vm-1", 0), stored(Kind::VmStorageStop, "vm-1", 1));
    assert_eq!(report(&[start.clone(), stop.clone(), start.clone(), stop.clone()]).exit_code(), 0);
    assert!(faults(&[start.clone(), start]).contains("which is open"));
    assert!(faults(&[stop]).contains("which is not open"));
}

#[test]
fn usage_only_grows() {
    let mut less = vm(Kind::VmComputeUsage, 1, 20);
    less.usage.as_mut().unwrap().mem_byte_ns = Some(1);
    less.usage.as_mut().unwrap().net[0].receive_bytes = 1;
    let found = faults(&[vm(Kind::VmComputeStart, 1, 0), vm(Kind::VmComputeUsage, 1, 10), less]);
    assert!(found.contains("`mem_byte_ns` fell") && found.contains("receive_bytes` fell"), "{found}");
}

#[test]
fn no_cpu_runs_longer_than_time_passed() {
    let with = |vcpu: u64, vmm: u64| {
        let mut beat = vm(Kind::VmComputeUsage, 1, 10);
        let usage = beat.usage.as_mut().unwrap();
        (usage.cpu_vcpu_ns, usage.cpu_vmm_ns) = (Some(vcpu * SECOND), Some(vmm * SECOND));
        vec![agent(Kind::AgentUp, 0), vm(Kind::VmComputeStart, 1, 0), beat]
    };
    assert_eq!(written(&with(20, 60), at(10)).exit_code(), 0);
    assert!(written(&with(21, 0), at(10)).to_string().contains("more than 2 vCPUs"));
    assert!(written(&with(20, 61), at(10)).to_string().contains("more than 8 host CPUs"));
    // What is charged behind the line's instant is in its counters, too.
    assert_eq!(written(&with(22, 66), at(11)).exit_code(), 0);
    assert!(written(&with(22, 67), at(11)).to_string().contains("more than 8 host CPUs"));
}

#[test]
fn an_adopted_start_may_carry_the_usage_of_the_years_before() {
    let mut start = vm(Kind::VmComputeStart, 1, 0);
    start.usage.as_mut().unwrap().cpu_vcpu_ns = Some(50 * SECOND);
    start.coverage = Some(Coverage { observed_ns: 0, unobserved_ns: 30 * SECOND, lost_events: 0 });
    assert_eq!(report(std::slice::from_ref(&start)).exit_code(), 0);
    start.coverage = None;
    assert_eq!(report(&[start]).exit_code(), 0);
}

#[test]
fn a_stored_thing_starts_once_until_its_stop_and_stays_what_it_is() {
    let start = || stored(Kind::VmStorageStart, "vm-1", 1);
    let stop = || stored(Kind::VmStorageStop, "vm-1", 5);
    let again = [start(), stop(), stored(Kind::VmStorageStart, "vm-1", 6)];
    let whole = report(&again);
    assert_eq!((whole.exit_code(), whole.open_storage.len()), (0, 1), "{whole}");
    assert!(faults(&[start(), start()]).contains("open since line 1"));
    assert!(faults(&[start(), stop(), stop()]).contains("not open"));
    assert!(faults(&[stored(Kind::SnapStorageResize, "a:1:2", 1)]).contains("not open"));
    let early = stored(Kind::VmStorageStop, "vm-1", 0);
    assert!(faults(&[start(), early]).contains("lies before its start"));
    assert!(faults(&[start(), stored(Kind::SnapStorageStop, "vm-1", 5)]).contains("another kind"));
    let mut other = stop();
    other.boot_id = "another".to_owned();
    assert!(faults(&[start(), other]).contains("counts in another"));
    let mut other = start();
    other.vm_id = "vm-2".to_owned();
    assert!(faults(&[other]).contains("not its `vm_id`"));
}

#[test]
fn what_is_stored_and_its_last_sign_are_known_to_a_returning_agent() {
    let (_root, dir) = fresh_dir();
    let mut larger = stored(Kind::VmStorageResize, "vm-1", 3);
    larger.files[0].path = "/pool/moved".to_owned();
    larger.shape.storage_bytes = 11 << 30;
    let snap = stored(Kind::SnapStorageStart, "a:1:2", 4);
    let facts = [stored(Kind::VmStorageStart, "vm-1", 1), larger.clone(), snap, agent(Kind::AgentDown, 9)];
    open(&dir).0.append(&facts, at(10)).unwrap();
    let (_journal, found) = open(&dir);
    let [disk, snap] = found.open_storage.as_slice() else { panic!("{found:?}") };
    assert_eq!((&disk.files, disk.shape), (&larger.files, larger.shape));
    assert_eq!((disk.last_seen_at, disk.last_seen_mono_ns), (at(10).unix_ns, at(9).mono_ns));
    assert_eq!((snap.last_seen_at, &snap.subject), (at(10).unix_ns, &Subject::Storage("a:1:2".into())));
}

#[test]
fn heartbeats_of_any_slot_length_verify_and_none_is_there_twice() {
    let beat = |second: u64, length: u64| {
        let mut beat = vm(Kind::VmComputeUsage, 1, second);
        let unix = beat.emitted_at / SECOND;
        beat.slot = Some(unix - unix % length);
        beat
    };
    let mut facts = vec![vm(Kind::VmComputeStart, 1, 0)];
    facts.extend([1, 10, 60, 77, 3600].iter().enumerate().map(|(n, length)| beat(4000 * (n as u64 + 1), *length)));
    assert_eq!(report(&facts).exit_code(), 0, "{}", report(&facts));
    facts.push(beat(20_001, 3600));
    assert!(faults(&facts).contains("same slot"));
}

#[test]
fn a_key_that_is_there_twice_is_found() {
    let bytes = day_bytes();
    let text = String::from_utf8(bytes).unwrap();
    let line = text.lines().next().unwrap();
    let body = line[..line.len() - 26].replacen("\"v\":1", "\"v\":1,\"v\":1", 1);
    let sum = super::super::digest::sum(body.as_bytes());
    let found = verify_bytes(format!("{body},\"sum\":\"{sum}\"}}\n").as_bytes(), false);
    assert!(found.to_string().contains("\"v\" is there twice"), "{found}");
}

#[test]
fn the_first_eight_keys_keep_their_order() {
    let text = String::from_utf8(day_bytes()).unwrap();
    let line = text.lines().next().unwrap();
    let body = line[..line.len() - 26].replacen("{\"kind\":\"agent.up\",", "{\"v\":1,\"kind\":\"agent.up\",", 1);
    let body = body.replacen("Z\",\"v\":1,", "Z\",", 1);
    let sum = super::super::digest::sum(body.as_bytes());
    let found = verify_bytes(format!("{body},\"sum\":\"{sum}\"}}\n").as_bytes(), false);
    assert!(found.to_string().contains("first keys"), "{found}");
}

#[test]
fn later_files_verify_from_the_line_an_anchor_vouches_for() {
    let bytes = day_bytes();
    let first = bytes.iter().position(|b| *b == b'\n').unwrap();
    let anchor = Anchor { seq: 1, prev: super::super::digest::chain(&bytes[..first]) };
    let mut verifier = Verifier::new(anchor);
    verifier.read("later", &bytes[first + 1..], false).unwrap();
    let found = verifier.finish();
    assert_eq!((found.exit_code(), found.first_seq), (0, Some(2)), "{found}");
    assert_eq!(verify_bytes(&bytes[first + 1..], false).exit_code(), 3);
}

#[test]
fn show_filters_streams_and_defuses_hostile_text() {
    let (_root, dir) = fresh_dir();
    let mut facts = day();
    facts[1].name = "\u{1b}[2Jgone".to_owned();
    open(&dir).0.append(&facts, at(50)).unwrap();
    let print = |filter: &Filter, format| {
        let mut out = Vec::new();
        if format == Format::Table {
            show_head(&mut out).unwrap();
        }
        let from = BufReader::new(fs::File::open(file(&dir)).unwrap());
        let shown = show(from, filter, format, &mut out).unwrap();
        (shown, String::from_utf8(out).unwrap())
    };
    let (shown, all) = print(&Filter::default(), Format::Json);
    assert_eq!((shown.lines, all.as_bytes()), (15, &*fs::read(file(&dir)).unwrap()));
    let filter = Filter { vm_id: Some("vm-1".into()), kinds: vec![Kind::VmComputeStart], since_seq: Some(2) };
    let (shown, table) = print(&filter, Format::Table);
    assert_eq!((shown.lines, table.lines().count()), (1, 2), "{table}");
    assert!(table.contains("\\u{1b}[2Jgone") && !table.contains('\u{1b}'), "{table}");
}

/// All of them with `KVMETER_FULL`, else one of so many.
#[test]
fn every_single_flipped_bit_is_found_by_verify() {
    const SOME: usize = 61;
    let bytes = day_bytes();
    let step = if std::env::var_os("KVMETER_FULL").is_some() { 1 } else { SOME };
    let mut flipped = 0;
    for bit in (0..8 * bytes.len()).step_by(step) {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verify_bytes(&other, false).exit_code(), 3, "bit {} of byte {}", bit % 8, bit / 8);
        flipped += 1;
    }
    assert!(flipped * step >= 8 * bytes.len());
    eprintln!("{flipped} of {} bits flipped, one at a time: each found", 8 * bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn a_flipped_byte_anywhere_is_found_by_verify(at in any::<proptest::sample::Index>(), flip in 1..=255_u8) {
        static DAY: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut bytes = DAY.get_or_init(day_bytes).clone();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert_eq!(verify_bytes(&bytes, false).exit_code(), 3);
    }

    #[test]
    fn a_removed_line_is_found_by_verify(which in 0..14_usize) {
        let text = String::from_utf8(day_bytes()).unwrap();
        let kept: String = text.split_inclusive('\n').enumerate().filter(|(n, _)| *n != which).map(|(_, l)| l).collect();
        prop_assert_eq!(verify_bytes(kept.as_bytes(), false).exit_code(), 3);
    }
}
