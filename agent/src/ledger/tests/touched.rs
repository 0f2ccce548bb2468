//! Laws of what others do to files: noticed while an agent writes and when it comes back, and by `verify`.

use super::super::files as names;
use super::rotate::{rotated, rotated_day, whole};
use super::*;

fn copied(from: &Path) -> (TempDir, PathBuf) {
    let (root, dir) = fresh_dir();
    fs::create_dir(&dir).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&entry, dir.join(entry.file_name().unwrap())).unwrap();
    }
    (root, dir)
}

fn closed_day() -> (TempDir, PathBuf) {
    let (root, dir) = fresh_dir();
    let mut journal = rotated_day(&dir);
    journal.close();
    (root, dir)
}

#[test]
fn every_removed_repeated_or_swapped_line_of_any_file_is_found_by_verify() {
    let (_root, dir) = closed_day();
    whole(&dir, 15);
    let all: Vec<PathBuf> = rotated(&dir).into_iter().chain([file(&dir)]).collect();
    let mut tried = 0;
    for manifest in [true, false] {
        for path in &all {
            let text = fs::read_to_string(path).unwrap();
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            for n in 0..lines.len() {
                let mut forms = vec![[&lines[..n], &lines[n + 1..]].concat()];
                forms.push([&lines[..=n], &lines[n..]].concat());
                if n + 1 < lines.len() {
                    let mut swapped = lines.clone();
                    swapped.swap(n, n + 1);
                    forms.push(swapped);
                }
                for (which, changed) in forms.into_iter().enumerate() {
                    let (_copy, other) = copied(&dir);
                    if !manifest {
                        fs::remove_file(other.join("manifest.json")).unwrap();
                        // Nothing but the manifest knows of the very last line.
                        if which == 0 && path == &file(&dir) && n + 1 == lines.len() {
                            continue;
                        }
                    }
                    fs::write(other.join(path.file_name().unwrap()), changed.concat()).unwrap();
                    let found = verify_dir(&other);
                    assert_eq!(found.exit_code(), 3, "{} line {n} form {which}: {found}", path.display());
                    assert!(Journal::open(&other, HOST, BOOT, at(60)).is_err(), "nor is it written on");
                    tried += 1;
                }
            }
        }
    }
    assert_eq!(tried, 2 * (15 + 15 + 10) - 1);
}

#[test]
fn a_file_that_is_gone_is_named_by_verify_and_by_the_next_agent_and_nothing_is_changed() {
    let (_root, dir) = closed_day();
    for path in rotated(&dir).into_iter().chain([file(&dir)]) {
        let (_copy, other) = copied(&dir);
        let gone = other.join(path.file_name().unwrap());
        fs::remove_file(&gone).unwrap();
        let report = verify_dir(&other);
        assert_eq!(report.exit_code(), 3, "{report}");
        assert!(report.to_string().contains(gone.file_name().unwrap().to_str().unwrap()), "{report}");
        let before: Vec<_> = fs::read_dir(&other).unwrap().map(|e| e.unwrap().file_name()).collect();
        let error = Journal::open(&other, HOST, BOOT, at(60)).unwrap_err();
        assert!(matches!(&error, LedgerError::Missing { path } if *path == gone), "{error}");
        let after: Vec<_> = fs::read_dir(&other).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(before.len(), after.len());
    }
}

#[test]
fn a_history_written_anew_is_found_where_the_manifest_has_seen_another() {
    let (_root, dir) = closed_day();
    let (_copy, other) = copied(&dir);
    // Somebody who knows how lines are made writes the last file with one fact changed.
    let (_forge, forged) = copied(&dir);
    fs::remove_file(forged.join("manifest.json")).unwrap();
    fs::write(file(&forged), b"").unwrap();
    let mut journal = open(&forged).0;
    let mut facts = day()[12..].to_vec();
    facts[0].shape.storage_bytes += 1;
    journal.append(&facts, at(50)).unwrap();
    drop(journal);
    whole(&forged, 15);
    fs::copy(file(&forged), file(&other)).unwrap();
    lacks_its_head(&other, "another line");
}

/// `verify` says so in these words, and no agent goes on with it.
#[track_caller]
fn lacks_its_head(dir: &Path, words: &str) {
    let report = verify_dir(dir);
    assert!(report.exit_code() == 3 && report.to_string().contains(words), "{report}");
    let error = Journal::open(dir, HOST, BOOT, at(60)).unwrap_err();
    assert!(matches!(error, LedgerError::Headless { seq: 15, .. }), "{error}");
}

#[test]
fn lines_removed_from_the_end_are_noticed_up_to_the_last_head() {
    let (_root, dir) = closed_day();
    for left in 0..3 {
        let (_copy, other) = copied(&dir);
        let text = fs::read_to_string(file(&other)).unwrap();
        let kept: String = text.split_inclusive('\n').take(left).collect();
        fs::write(file(&other), kept).unwrap();
        lacks_its_head(&other, "line 15");
    }
}

#[test]
fn bytes_changed_in_place_are_noticed_before_the_next_line_is_written() {
    use std::os::unix::fs::FileExt;
    let (_root, dir) = fresh_dir();
    let mut journal = open(&dir).0;
    journal.append(&day()[..3], at(1)).unwrap();
    let known = fs::read(file(&dir)).unwrap();
    let other = fs::OpenOptions::new().write(true).open(file(&dir)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    // The same bytes with a new time are no harm.
    other.write_all_at(&known[..10], 0).unwrap();
    journal.append(&day()[3..4], at(2)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    other.write_all_at(b"7", 40).unwrap();
    let before = fs::read(file(&dir)).unwrap();
    for _ in 0..2 {
        let error = journal.append(&day()[4..5], at(3)).unwrap_err();
        assert!(matches!(error, LedgerError::Altered { .. }), "{error}");
        assert!(matches!(journal.tend(at(3)), Err(LedgerError::Altered { .. })), "also while nothing is written");
    }
    assert_eq!(fs::read(file(&dir)).unwrap(), before, "nothing is appended to it");
    std::thread::sleep(std::time::Duration::from_millis(20));
    other.write_all_at(&known[40..41], 40).unwrap();
    journal.append(&day()[4..5], at(4)).unwrap();
    whole(&dir, 5);
}

#[test]
fn older_files_that_others_touch_are_told_and_lines_are_written_all_the_same() {
    for touched in 0..4 {
        for how in 0..2 {
            let (_root, dir) = fresh_dir();
            let mut journal = rotated_day(&dir);
            assert!(journal.tend(at(60)).unwrap().hurt.is_none());
            let path = rotated(&dir)[touched].clone();
            if how == 0 {
                fs::remove_file(&path).unwrap();
            } else {
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
            }
            let hurt = journal.tend(at(61)).unwrap().hurt.unwrap();
            let named = match &hurt {
                LedgerError::Missing { path } if how == 0 => path,
                LedgerError::Altered { path } if how == 1 => path,
                other => panic!("{other}"),
            };
            assert_eq!(named, &path);
            journal.append(&[agent(Kind::AgentUp, 62)], at(62)).unwrap();
        }
    }
}

#[test]
fn the_writer_tells_what_others_did_while_nothing_is_written() {
    use std::time::{Duration, Instant};
    let (_root, dir) = fresh_dir();
    let options = Options { look: Duration::from_millis(5), ..Options::default() };
    let writer = Writer::spawn(rotated_day(&dir), options, Box::new(|| at(70)), Box::new(|_| ())).unwrap();
    let handle = writer.handle();
    let until = |what: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        while !what() {
            assert!(Instant::now() < end, "{:?}", handle.stats());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let aside = dir.join("aside");
    let first = dir.join(names::rotated_name(1));
    fs::rename(&first, &aside).unwrap();
    until(&|| handle.stats().hurt.is_some_and(|why| why.contains("00000000000000000001")));
    assert!(!handle.is_degraded());
    fs::rename(&aside, &first).unwrap();
    until(&|| handle.stats().hurt.is_none());
    fs::rename(file(&dir), &aside).unwrap();
    until(&|| handle.is_degraded() && handle.stats().write_failures[&Op::Open] > 0);
    fs::rename(&aside, file(&dir)).unwrap();
    until(&|| !handle.is_degraded());
    writer.shutdown(Duration::from_secs(60)).unwrap();
    assert_eq!(Manifest::load(&dir).unwrap().head.unwrap().seq, 15, "the head of a clean stop");
}
