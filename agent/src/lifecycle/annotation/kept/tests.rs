use proptest::prelude::*;

use super::*;
use crate::ledger::Reason;

const BOOT: &str = "b-1";
const NOW: Instant2 = Instant2 { boot_ns: 1_000, unix_ns: 1_000_000 };

fn of(body: &str, whom: Whom, until_ns: u64) -> Pending {
    let request = parse(body.as_bytes()).unwrap();
    let by = || "uid:7".to_owned();
    let owner = Some((request.owner, by())).filter(|(owner, _)| !owner.is_empty());
    let (start, stop) = (Stated { by: by(), ..request.start }, Stated { by: by(), ..request.stop });
    Pending { id: 0, after_seq: 12, whom, owner, start, stop, until_ns }
}

fn a(until_ns: u64) -> Pending {
    let body = r#"{"vm_id":"a","tenant":"ac\"me","labels":{"k":"v,\"sum\":\""},"reason":"stop-user","source_snapshot_id":"s"}"#;
    of(body, Whom::VmId("a".into()), until_ns)
}

fn process() -> Whom {
    Whom::Process { tgid: 5, start_tick: 6, tick_ns: 10_000_000, there_ns: 60_000_001 }
}

#[test]
fn what_was_written_is_read_whole_and_what_was_used_of_it_is_not() {
    let pid = of(r#"{"pid":5,"reason":"clone"}"#, process(), 5_000);
    let mut file = line(1, Some(&a(5_000)), BOOT, NOW);
    file.extend(line(2, Some(&pid), BOOT, NOW));
    let found = read(&file, BOOT, NOW);
    assert_eq!(found.waiting, [Pending { id: 1, ..a(5_000) }, Pending { id: 2, ..pid }]);
    assert_eq!((found.last_id, found.unread, found.torn_bytes), (2, 0, 0));
    file.extend(line(1, Some(&Pending { owner: None, start: Stated::default(), ..a(5_000) }), BOOT, NOW));
    file.extend(line(2, None, BOOT, NOW));
    let found = read(&file, BOOT, NOW);
    assert_eq!(found.waiting.len(), 1);
    assert!(found.waiting[0].start.is_empty() && found.waiting[0].owner.is_none());
    assert_eq!(found.waiting[0].stop.reason, Some(Reason::StopUser));
    assert_eq!(found.last_id, 2);
}

#[test]
fn what_has_waited_long_enough_is_dropped_on_the_clock_that_went_on() {
    let later = |boot_ns, unix_ns| Instant2 { boot_ns, unix_ns };
    let file = line(1, Some(&a(5_000)), BOOT, NOW);
    assert_eq!(read(&file, BOOT, later(5_000, 0)).expired, 1);
    // It ends at the wall clock's 1,004,000, and the next boot's clock began anew.
    let rebooted = read(&file, "b-2", later(7, 1_003_000));
    assert_eq!(rebooted.waiting[0].until_ns, 1_007);
    assert_eq!(read(&file, "b-2", later(7, 1_004_000)).expired, 1);
    // A wall clock that was set back for a year makes it wait for a day at most.
    assert_eq!(read(&file, "b-2", later(7, 0)).waiting[0].until_ns, 1_004_007);
    let far = line(1, Some(&a(u64::MAX)), BOOT, NOW);
    assert_eq!(read(&far, BOOT, NOW).waiting[0].until_ns, NOW.boot_ns + u64::try_from(MAX_TTL.as_nanos()).unwrap());
    // A process does not outlive its boot.
    let pid = line(1, Some(&of(r#"{"pid":5,"reason":"clone"}"#, process(), 5_000)), BOOT, NOW);
    let found = read(&pid, "b-2", later(7, 1_003_000));
    assert_eq!((found.waiting.len(), found.gone), (0, 1));
}

#[test]
fn a_line_that_was_being_written_is_told_as_torn_wherever_it_ends() {
    let whole = line(1, Some(&a(5_000)), BOOT, NOW);
    let second = line(2, Some(&a(5_000)), BOOT, NOW);
    for end in 0..second.len() {
        let found = read(&[&whole[..], &second[..end]].concat(), BOOT, NOW);
        assert_eq!((found.waiting.len(), found.torn_bytes, found.unread), (1, end, 0));
    }
}

#[test]
fn what_is_well_formed_and_out_of_bounds_is_not_taken() {
    let sound = String::from_utf8(line(1, Some(&a(5_000)), BOOT, NOW)).unwrap();
    let body = sound.rsplit_once(SUM).unwrap().0;
    let signed = |body: &str| format!("{body}{SUM}{}\"}}\n", line_sum(body.as_bytes()));
    assert_eq!(read(signed(body).as_bytes(), BOOT, NOW).waiting.len(), 1);
    for (from, to) in [
        ("uid:7", "root"),
        ("uid:7", "uid:-1"),
        ("stop-user", "vm-rm"),
        ("\"vm_id\":\"a\"", "\"vm_id\":\"a/b\""),
        ("\"vm_id\":\"a\"", "\"pid\":5"),
        ("\"v\":1", "\"v\":2"),
        ("\"v\":1", "\"v\":1,\"w\":1"),
        ("ac\\\"me", &"x".repeat(129)),
    ] {
        assert!(body.contains(from), "{from}");
        let found = read(signed(&body.replacen(from, to, 1)).as_bytes(), BOOT, NOW);
        assert_eq!((found.waiting.len(), found.unread), (0, 1), "{from} {to}");
    }
}

proptest! {
    #[test]
    fn a_byte_that_is_another_takes_its_line_away_and_no_other(at in 0..400_usize, to: u8) {
        let first = line(1, Some(&a(5_000)), BOOT, NOW);
        let mut file = [first.clone(), line(2, Some(&a(5_000)), BOOT, NOW)].concat();
        let at = at % (first.len() - 1);
        prop_assume!(file[at] != to && to != b'\n');
        file[at] = to;
        let found = read(&file, BOOT, NOW);
        prop_assert_eq!(found.waiting, [Pending { id: 2, ..a(5_000) }]);
        prop_assert_eq!(found.unread, 1);
    }

    #[test]
    fn no_file_panics(bytes: Vec<u8>, text in "(\\{\"v\":1,\"id\":[0-9]{1,3}(,\"waits\":\\PC{0,40})?,\"sum\":\"[0-9a-f]{16}\"\\}\n){0,5}") {
        drop(read(&bytes, BOOT, NOW));
        drop(read(text.as_bytes(), BOOT, NOW));
    }
}
