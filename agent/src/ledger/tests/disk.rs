//! Laws of a disk that fails and of others who touch the file.

use super::faulty::{Faults, faulty};
use super::*;

#[test]
fn a_failed_write_leaves_no_half_line_and_can_be_tried_again() {
    for truncate_fails in [false, true] {
        let (_root, dir) = fresh_dir();
        let (mut journal, faults) = faulty(&dir);
        journal.append(&day()[..3], at(1)).unwrap();
        *faults.lock().unwrap() = Faults { full_after: Some(700), truncate_fails, ..Faults::default() };
        let error = journal.append(&day()[3..], at(2)).unwrap_err();
        assert_eq!(error.op(), Op::Write);
        assert_eq!(journal.last_seq(), 3);
        *faults.lock().unwrap() = Faults::default();
        journal.append(&day()[3..], at(3)).unwrap();
        assert_eq!(faults.lock().unwrap().reopened, u32::from(truncate_fails));
        assert_eq!((verified(&dir).exit_code(), verified(&dir).lines), (0, 15), "{}", verified(&dir));
    }
}

#[test]
fn after_a_failed_sync_the_file_is_reopened_and_written_again() {
    for pages_lost in [false, true] {
        let (_root, dir) = fresh_dir();
        let (mut journal, faults) = faulty(&dir);
        journal.append(&day()[..3], at(1)).unwrap();
        *faults.lock().unwrap() = Faults { sync_fails: true, pages_lost, ..Faults::default() };
        for _ in 0..2 {
            assert_eq!(journal.append(&day()[3..], at(2)).unwrap_err().op(), Op::Sync);
        }
        faults.lock().unwrap().sync_fails = false;
        journal.append(&day()[3..], at(3)).unwrap();
        assert_eq!(faults.lock().unwrap().reopened, 2);
        assert_eq!((verified(&dir).exit_code(), verified(&dir).lines), (0, 15), "{}", verified(&dir));
    }
}

#[test]
fn a_durable_line_lost_by_the_disk_is_noticed_not_papered_over() {
    let (_root, dir) = fresh_dir();
    let (mut journal, faults) = faulty(&dir);
    journal.append(&day()[..3], at(1)).unwrap();
    faults.lock().unwrap().sync_fails = true;
    journal.append(&day()[3..], at(2)).unwrap_err();
    faults.lock().unwrap().sync_fails = false;
    let mut bytes = fs::read(file(&dir)).unwrap();
    let third_ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(2).unwrap().0;
    bytes[third_ends - 40] = 0;
    fs::write(file(&dir), bytes).unwrap();
    assert!(matches!(journal.append(&day()[3..], at(3)), Err(LedgerError::TailLost { .. })));
}

#[test]
fn truncation_by_others_is_noticed() {
    let (_root, dir) = fresh_dir();
    let (mut journal, _) = open(&dir);
    journal.append(&day()[..3], at(1)).unwrap();
    fs::OpenOptions::new().write(true).open(file(&dir)).unwrap().set_len(0).unwrap();
    let error = journal.append(&day()[3..], at(2)).unwrap_err();
    assert!(matches!(error, LedgerError::Resized { found: 0, .. }), "{error}");
}

#[test]
fn a_line_appended_by_others_is_noticed() {
    use std::io::Write;
    let (_root, dir) = fresh_dir();
    let (mut journal, _) = open(&dir);
    journal.append(&day()[..3], at(1)).unwrap();
    fs::OpenOptions::new().append(true).open(file(&dir)).unwrap().write_all(b"{}\n").unwrap();
    assert!(matches!(journal.append(&day()[3..], at(2)), Err(LedgerError::Resized { .. })));
}

#[test]
fn a_moved_or_replaced_file_is_noticed() {
    let (_root, dir) = fresh_dir();
    let (mut journal, _) = open(&dir);
    journal.append(&day()[..3], at(1)).unwrap();
    let copy = dir.join("copy");
    fs::copy(file(&dir), &copy).unwrap();
    fs::rename(&copy, file(&dir)).unwrap();
    assert!(matches!(journal.append(&day()[3..], at(2)), Err(LedgerError::Replaced { .. })));
    fs::remove_file(file(&dir)).unwrap();
    assert!(matches!(journal.append(&day()[3..], at(2)), Err(LedgerError::Replaced { .. })));
}
