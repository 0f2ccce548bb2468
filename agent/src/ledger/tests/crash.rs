//! Laws of coming back: torn tails, damage, restarts, two writers.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_new_ledger_is_private_and_begins_at_one() {
    let (_root, dir) = fresh_dir();
    let (mut journal, found) = open(&dir);
    assert_eq!((found.next_seq, found.last, found.clean), (1, None, false));
    assert_eq!(found.ledger_id.len(), 16);
    journal.append(&day(), at(50)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&dir), mode(&file(&dir)), mode(&dir.join(LOCK_NAME))), (0o700, 0o600, 0o600));
    assert_eq!(verified(&dir).exit_code(), 0, "{}", verified(&dir));
}

#[test]
fn restart_goes_on_with_the_sequence_the_chain_and_the_ids() {
    let (_root, whole) = fresh_dir();
    open(&whole).0.append(&day(), at(50)).unwrap();
    for split in 0..day().len() {
        let (_root, dir) = fresh_dir();
        let (mut journal, first) = open(&dir);
        journal.append(&day()[..split], at(50)).unwrap();
        drop(journal);
        let (mut journal, found) = open(&dir);
        assert_eq!(found.next_seq, split as u64 + 1);
        // Also before its first line: kernel programs may count for it already.
        assert_eq!(found.ledger_id, first.ledger_id);
        journal.append(&day()[split..], at(50)).unwrap();
        assert!(verified(&dir).exit_code() == 0, "split {split}: {}", verified(&dir));
        let ids = |lines: Vec<Line>| -> Vec<String> {
            lines.into_iter().filter(|l| l.fact.subject != Subject::Ledger).map(|l| l.id).collect()
        };
        assert_eq!(ids(lines(&dir)), ids(lines(&whole)));
    }
}

#[test]
fn a_clean_stop_is_told_from_a_crash() {
    let (_root, dir) = fresh_dir();
    open(&dir).0.append(&day(), at(50)).unwrap();
    let (mut journal, found) = open(&dir);
    assert!(found.clean);
    assert_eq!(found.last.unwrap().seq, 15);
    journal.append(&[agent(Kind::AgentUp, 60)], at(60)).unwrap();
    drop(journal);
    assert!(!open(&dir).1.clean);
}

#[test]
fn a_returning_agent_learns_what_is_open() {
    let (_root, dir) = fresh_dir();
    let mut identity = vm(Kind::VmIdentity, 2, 11);
    identity.name = "late".to_owned();
    identity.tenant = "acme".to_owned();
    identity.labels.insert("tier".to_owned(), "gold".to_owned());
    identity.evidence.annotated_by = Some("uid 0".to_owned());
    let mut facts = day();
    facts[6] = identity;
    facts.push(stored(Kind::SnapStorageStart, "8:9:10", 45));
    open(&dir).0.append(&facts, at(50)).unwrap();
    let (_, found) = open(&dir);
    assert_eq!(found.open.len(), 1);
    let open = &found.open[0];
    assert_eq!(
        (open.incarnation.as_str(), open.vm_id.as_str(), open.name.as_str()),
        (&*incarnation(2), "vm-2", "late")
    );
    assert_eq!((open.start_name.as_str(), open.tenant.as_str(), open.annotated), ("", "acme", true));
    assert_eq!(open.labels["tier"], "gold");
    assert_eq!((open.started_at, open.last_evidence_at), (at(0).unix_ns, at(10).unix_ns));
    assert_eq!((open.last_seen_at, open.last_seen_mono_ns), (at(50).unix_ns, at(45).mono_ns));
    assert_eq!(open.usage.as_ref().unwrap().cpu_vcpu_ns, Some(12 * SECOND));
    assert_eq!(found.open_storage.len(), 1);
    assert_eq!(found.open_storage[0].subject, Subject::Storage("8:9:10".to_owned()));
}

#[test]
fn a_torn_tail_is_cut_back_and_told() {
    let (_root, dir) = fresh_dir();
    open(&dir).0.append(&day(), at(50)).unwrap();
    let kept = fs::read(file(&dir)).unwrap();
    fs::OpenOptions::new().append(true).open(file(&dir)).unwrap().write_all(b"{\"kind\":\"vm.com").unwrap();
    let (journal, found) = open(&dir);
    assert!(!found.clean);
    assert_eq!((found.torn.as_ref().unwrap().bytes, found.next_seq, journal.last_seq()), (15, 17, 16));
    assert_eq!(fs::read(dir.join("torn-16.bin")).unwrap(), b"{\"kind\":\"vm.com");
    assert!(fs::read(file(&dir)).unwrap().starts_with(&kept));
    let told = lines(&dir).pop().unwrap();
    assert_eq!((told.fact.kind, told.fact.cut_bytes), (Kind::LedgerRecovered, Some(15)));
    assert_eq!(told.fact.resumed_after.unwrap().seq, 15);
    drop(journal);
    assert_eq!(open(&dir).1.torn, None, "told once");
    assert_eq!(verified(&dir).exit_code(), 0);
}

#[test]
fn a_recovery_that_died_before_its_line_is_told_by_the_next() {
    let (_root, dir) = fresh_dir();
    open(&dir).0.append(&day(), at(50)).unwrap();
    fs::write(dir.join("torn-16.bin"), b"abc").unwrap();
    fs::OpenOptions::new().append(true).open(file(&dir)).unwrap().write_all(b"{\"ki").unwrap();
    assert_eq!(open(&dir).1.torn.unwrap().bytes, 7);
    assert_eq!(fs::read(dir.join("torn-16.bin")).unwrap(), b"abc{\"ki");
}

#[test]
fn every_prefix_of_a_ledger_recovers() {
    let (_root, dir) = fresh_dir();
    let (mut journal, _) = open(&dir);
    let facts = day();
    journal.append(&facts[..12], at(50)).unwrap();
    let durable = usize::try_from(fs::metadata(file(&dir)).unwrap().len()).unwrap();
    journal.append(&facts[12..], at(51)).unwrap();
    drop(journal);
    let whole = fs::read(file(&dir)).unwrap();
    // Thousands of syncs: in memory where the host has such a file system.
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = root.path().join("metering");
    fs::create_dir(&dir).unwrap();
    for end in (0..durable).step_by(97).chain(durable..=whole.len()) {
        for entry in fs::read_dir(&dir).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(file(&dir), &whole[..end]).unwrap();
        let kept = whole[..end].iter().filter(|b| **b == b'\n').count() as u64;
        let (mut journal, found) = open(&dir);
        let torn = u64::from(found.torn.is_some());
        assert_eq!((found.next_seq, torn == 1), (kept + torn + 1, end > 0 && whole[end - 1] != b'\n'), "cut at {end}");
        journal.append(&[agent(Kind::AgentUp, 60)], at(60)).unwrap();
        assert_eq!(verified(&dir).exit_code(), 0, "cut at {end}: {}", verified(&dir));
    }
}

/// A ledger of two groups, and where the second begins.
fn two_groups(dir: &Path) -> (Vec<u8>, usize) {
    let (mut journal, _) = open(dir);
    let facts = day();
    journal.append(&facts[..5], at(50)).unwrap();
    let durable = usize::try_from(fs::metadata(file(dir)).unwrap().len()).unwrap();
    journal.append(&facts[5..], at(51)).unwrap();
    (fs::read(file(dir)).unwrap(), durable)
}

#[test]
fn a_group_that_a_power_cut_tore_anywhere_is_cut_back_and_told() {
    const SECTOR: usize = 512;
    let (_root, dir) = fresh_dir();
    let (whole, durable) = two_groups(&dir);
    // Sectors with bytes of the second group; one that was not written has zeros where its bytes would be.
    let sectors: Vec<_> = (durable / SECTOR..whole.len().div_ceil(SECTOR)).collect();
    let mut behind = 0;
    for round in 1..200_u64 {
        let (_root, dir) = fresh_dir();
        open(&dir);
        let mut bytes = whole.clone();
        let dice = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
        for (_, sector) in sectors.iter().enumerate().filter(|(bit, _)| dice >> bit & 1 == 1) {
            let end = (sector * SECTOR + SECTOR).min(bytes.len());
            bytes[(sector * SECTOR).max(durable)..end].fill(0);
        }
        fs::write(file(&dir), &bytes).unwrap();
        let same = bytes.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        let good = whole[..same].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        let torn = &bytes[good..];
        behind += u64::from(torn.contains(&b'\n'));
        let kept = whole[..good].iter().filter(|b| **b == b'\n').count() as u64;
        let (mut journal, found) = open(&dir);
        assert_eq!(found.torn.as_ref().map(|torn| torn.bytes), Some(torn.len() as u64).filter(|bytes| *bytes > 0));
        let next = kept + 1 + u64::from(found.torn.is_some());
        assert_eq!(found.next_seq, next, "round {round}");
        if let Some(kept) = found.torn {
            assert_eq!(fs::read(kept.path).unwrap(), torn);
        }
        journal.append(&[agent(Kind::AgentUp, 60)], at(60)).unwrap();
        assert_eq!(verified(&dir).exit_code(), 0, "round {round}: {}", verified(&dir));
    }
    assert!(behind > 100, "lines stand behind the tear: {behind}");
}

#[test]
fn zeros_in_a_group_that_was_durable_and_other_bytes_in_the_last_one_are_damage() {
    let (_root, dir) = fresh_dir();
    let (whole, durable) = two_groups(&dir);
    let refused = |place: std::ops::Range<usize>, byte: u8| {
        let mut bytes = whole.clone();
        bytes[place].fill(byte);
        fs::write(file(&dir), &bytes).unwrap();
        let error = Journal::open(&dir, HOST, BOOT, at(60)).unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(file(&dir)).unwrap(), bytes, "nothing was changed");
    };
    // One zero is no sector, and sectors before lines of two instants were durable.
    refused(durable - 100..durable - 99, 0);
    refused(whole.len() - 100..whole.len() - 99, 0);
    refused(1024..1536, 0);
    refused(durable + 100..durable + 101, b'~');
    refused(durable.next_multiple_of(512)..durable.next_multiple_of(512) + 512, b' ');
    // Known to have been durable, by the manifest that a clean stop writes.
    fs::write(file(&dir), &whole).unwrap();
    open(&dir).0.close();
    let mut bytes = whole.clone();
    bytes[whole.len() / 512 * 512..].fill(0);
    fs::write(file(&dir), &bytes).unwrap();
    let error = Journal::open(&dir, HOST, BOOT, at(60)).unwrap_err();
    assert!(matches!(error, LedgerError::Headless { .. }), "{error}");
}

#[test]
fn damage_before_the_tail_stops_the_ledger_and_names_the_place() {
    let (_root, dir) = fresh_dir();
    open(&dir).0.append(&day(), at(50)).unwrap();
    let mut bytes = fs::read(file(&dir)).unwrap();
    let third = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).unwrap().0 + 1;
    bytes[third + 20] ^= 1;
    fs::write(file(&dir), &bytes).unwrap();
    let error = Journal::open(&dir, HOST, BOOT, at(60)).unwrap_err();
    assert!(matches!(&error, LedgerError::Damaged { line: 3, offset, .. } if *offset == third as u64), "{error}");
    assert!(error.to_string().contains("kvmeter ledger verify"));
    assert_eq!(fs::read(file(&dir)).unwrap(), bytes, "nothing was changed");
}

#[test]
fn a_missing_line_stops_the_ledger() {
    let (_root, dir) = fresh_dir();
    open(&dir).0.append(&day(), at(50)).unwrap();
    let text = fs::read_to_string(file(&dir)).unwrap();
    let holed: String = text.split_inclusive('\n').enumerate().filter(|(n, _)| *n != 5).map(|(_, l)| l).collect();
    fs::write(file(&dir), holed).unwrap();
    let error = Journal::open(&dir, HOST, BOOT, at(60)).unwrap_err();
    assert!(matches!(error, LedgerError::Damaged { line: 6, source: LineError::Seq { expected: 6, found: 7 }, .. }));
}

#[test]
fn two_writers_cannot_open_one_ledger() {
    let (_root, dir) = fresh_dir();
    let first = open(&dir);
    assert!(is_written(&dir).unwrap());
    let error = Journal::open(&dir, HOST, BOOT, at(1)).unwrap_err().to_string();
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
    assert!(error.contains(dir.join(LOCK_NAME).to_str().unwrap()), "{error}");
    drop(first);
    assert!(!is_written(&dir).unwrap());
    open(&dir);
}

#[test]
fn a_ledger_behind_a_symbolic_link_is_refused() {
    let (root, dir) = fresh_dir();
    fs::create_dir(&dir).unwrap();
    fs::write(root.path().join("elsewhere"), b"").unwrap();
    std::os::unix::fs::symlink(root.path().join("elsewhere"), file(&dir)).unwrap();
    assert!(matches!(Journal::open(&dir, HOST, BOOT, at(0)), Err(LedgerError::Io { op: Op::Open, .. })));
}
