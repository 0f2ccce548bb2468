//! Laws of files that follow each other: one chain, whatever fails on the way from one to the next.

use super::super::files;
use super::faulty::{Faults, faulty};
use super::*;

/// Small files: a group of three lines has one of its own.
pub(super) fn small() -> Keeping {
    Keeping { max_file_bytes: 2_000, ..Keeping::default() }
}

/// Writes a day in groups of three lines, each into a file of its own.
pub(super) fn rotated_day(dir: &Path) -> Journal {
    let mut journal = open(dir).0;
    journal.keep(small()).unwrap();
    for group in day().chunks(3) {
        journal.append(group, at(50)).unwrap();
    }
    journal
}

pub(super) fn rotated(dir: &Path) -> Vec<PathBuf> {
    files::rotated(dir).unwrap().into_iter().map(|one| one.path).collect()
}

/// All lines of all files, in order.
pub(super) fn all_lines(dir: &Path) -> Vec<Line> {
    let mut bytes = Vec::new();
    for path in rotated(dir).into_iter().chain([file(dir)]) {
        bytes.append(&mut fs::read(path).unwrap());
    }
    bytes.split_inclusive(|b| *b == b'\n').map(|l| Line::parse(l.strip_suffix(b"\n").unwrap()).unwrap()).collect()
}

pub(super) fn whole(dir: &Path, lines: u64) {
    let report = verify_dir(dir);
    assert_eq!((report.exit_code(), report.lines), (0, lines), "{report}");
}

#[test]
fn the_chain_goes_on_over_files_and_names_say_their_first_line() {
    let (_root, dir) = fresh_dir();
    let mut journal = rotated_day(&dir);
    let names: Vec<_> = rotated(&dir).iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, [1, 4, 7, 10].map(files::rotated_name));
    whole(&dir, 15);
    assert_eq!(all_lines(&dir).iter().map(|line| line.seq).collect::<Vec<_>>(), (1..=15).collect::<Vec<_>>());
    let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap()) & 0o7777;
    assert!(rotated(&dir).iter().chain([&file(&dir)]).all(|path| mode(path) == 0o600));
    let (_root, one) = fresh_dir();
    open(&one).0.append(&day(), at(50)).unwrap();
    let facts = |lines: Vec<Line>| -> Vec<Draft> { lines.into_iter().map(|line| line.fact).collect() };
    assert_eq!(facts(all_lines(&dir)), facts(lines(&one)), "cut or whole, the same facts");
    journal.close();
    drop(journal);
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["files"].as_array().unwrap().len(), 4);
    assert_eq!((&manifest["files"][3]["last"], &manifest["head"]["seq"]), (&12.into(), &15.into()));
    let sum = super::super::digest::hex(&<sha2::Sha256 as sha2::Digest>::digest(fs::read(&rotated(&dir)[1]).unwrap()));
    assert_eq!(manifest["files"][1]["sha256"], sum, "what sha256sum says");
}

#[test]
fn a_returning_agent_learns_the_same_from_many_files_as_from_one() {
    let (_one, single) = fresh_dir();
    let (_many, dir) = fresh_dir();
    drop(rotated_day(&dir));
    let mut joined = Vec::new();
    for path in rotated(&dir).into_iter().chain([file(&dir)]) {
        joined.append(&mut fs::read(path).unwrap());
    }
    fs::create_dir(&single).unwrap();
    fs::write(file(&single), joined).unwrap();
    let (_, of_one) = open(&single);
    for lose in [false, true] {
        if lose {
            fs::write(dir.join("manifest.json"), "{\"v\":1,\"led").unwrap();
        }
        let (mut journal, of_many) = open(&dir);
        assert_eq!(
            (of_many.next_seq, &of_many.prev, &of_many.open, &of_many.open_storage, &of_many.past, &of_many.ordinals),
            (of_one.next_seq, &of_one.prev, &of_one.open, &of_one.open_storage, &of_one.past, &of_one.ordinals)
        );
        assert_eq!((of_many.clean, of_many.watched, of_many.last), (true, of_one.watched.clone(), of_one.last.clone()));
        let told = Manifest::load(&dir).unwrap();
        assert_eq!((told.files.len(), told.head.unwrap().seq), (4, 15), "made anew from the files");
        journal.tend(at(60)).unwrap();
    }
    let (mut journal, _) = open(&dir);
    journal.keep(small()).unwrap();
    journal.append(&[agent(Kind::AgentUp, 60)], at(60)).unwrap();
    drop(journal);
    whole(&dir, 16);
}

#[test]
fn a_file_is_rotated_at_its_age_and_a_clock_set_back_does_not_hurry_it() {
    let (_root, dir) = fresh_dir();
    let mut journal = open(&dir).0;
    journal.keep(Keeping { max_file_age_ns: 100 * SECOND, ..Keeping::default() }).unwrap();
    journal.append(&day()[..3], at(50)).unwrap();
    journal.append(&day()[3..6], at(149)).unwrap();
    assert_eq!(rotated(&dir).len(), 0);
    journal.append(&day()[6..9], at(150)).unwrap();
    assert_eq!(rotated(&dir).len(), 1);
    journal.append(&day()[9..12], at(0)).unwrap();
    assert_eq!(rotated(&dir).len(), 1);
    whole(&dir, 12);
}

#[test]
fn an_empty_file_is_not_rotated_and_a_large_group_is_one_file() {
    let (_root, dir) = fresh_dir();
    let mut journal = open(&dir).0;
    journal.keep(Keeping { max_file_bytes: 1, ..Keeping::default() }).unwrap();
    journal.append(&day()[..3], at(1)).unwrap();
    assert_eq!(rotated(&dir).len(), 0);
    journal.append(&day()[3..], at(1)).unwrap();
    assert_eq!((rotated(&dir).len(), lines(&dir).len()), (1, 12));
    whole(&dir, 15);
}

/// A step of a rotation that fails.
type Set = fn(&mut Faults);

const STEPS: [(&str, Set, Op); 4] = [
    ("prepare", |faults| faults.prepare_fails = true, Op::Write),
    ("link", |faults| faults.link_fails = true, Op::Rename),
    ("rename", |faults| faults.rename_fails = true, Op::Rename),
    ("sync of the names", |faults| faults.names_fail = true, Op::Sync),
];

#[test]
fn whatever_step_of_a_rotation_fails_no_line_is_lost_or_there_twice() {
    for (step, set, op) in STEPS {
        for dies in [false, true] {
            let (_root, dir) = fresh_dir();
            let (mut journal, faults) = faulty(&dir);
            journal.keep(small()).unwrap();
            journal.append(&day()[..3], at(1)).unwrap();
            set(&mut faults.lock().unwrap());
            let mut written = 3;
            match journal.append(&day()[3..6], at(2)) {
                Ok(lines) => {
                    assert_ne!(op, Op::Sync, "{step}");
                    written += lines.len();
                    let look = journal.tend(at(2)).unwrap();
                    assert_eq!(
                        look.troubles.iter().map(LedgerError::op).collect::<Vec<_>>(),
                        [op],
                        "{step} is counted"
                    );
                    assert_eq!(rotated(&dir).len(), 0, "{step}: nothing has changed");
                }
                Err(error) => assert_eq!((error.op(), op), (Op::Sync, Op::Sync), "{step}"),
            }
            if dies {
                drop(journal);
                let found = open(&dir).1;
                // What was not acknowledged may be there or not, but not in part.
                assert!([written as u64 + 1, 7].contains(&found.next_seq), "{step}: {}", found.next_seq);
                whole(&dir, found.next_seq - 1);
                continue;
            }
            *faults.lock().unwrap() = Faults::default();
            if written == 3 {
                journal.append(&day()[3..6], at(3)).unwrap();
            }
            // A minute later the next try is made.
            journal.append(&day()[6..9], at(70)).unwrap();
            assert!(!rotated(&dir).is_empty(), "{step}: it is tried again");
            drop(journal);
            whole(&dir, 9);
            assert_eq!(open(&dir).1.next_seq, 10);
        }
    }
}

#[test]
fn a_crash_between_link_and_rename_leaves_one_file_with_one_name() {
    let (_root, dir) = fresh_dir();
    let mut journal = open(&dir).0;
    journal.append(&day()[..3], at(1)).unwrap();
    drop(journal);
    let second = dir.join(files::rotated_name(1));
    fs::hard_link(file(&dir), &second).unwrap();
    fs::write(dir.join("ledger.jsonl.new"), "half a li").unwrap();
    whole(&dir, 3);
    assert_eq!(ledger_files(std::slice::from_ref(&dir)).unwrap().len(), 1, "one file for those who add up");
    assert_eq!(open(&dir).1.next_seq, 4);
    assert!(!second.exists() && !dir.join("ledger.jsonl.new").exists());
}

#[test]
fn every_prefix_of_the_live_file_recovers_behind_rotated_ones() {
    let (_root, dir) = fresh_dir();
    drop(rotated_day(&dir));
    let live = fs::read(file(&dir)).unwrap();
    let names = rotated(&dir);
    for end in 0..=live.len() {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let copy = root.path();
        for name in &names {
            fs::copy(name, copy.join(name.file_name().unwrap())).unwrap();
        }
        fs::write(file(copy), &live[..end]).unwrap();
        let kept = 12 + live[..end].iter().filter(|b| **b == b'\n').count() as u64;
        let (mut journal, found) = open(copy);
        let torn = u64::from(found.torn.is_some());
        assert_eq!((found.next_seq, torn == 1), (kept + torn + 1, end > 0 && live[end - 1] != b'\n'), "cut at {end}");
        journal.append(&[agent(Kind::AgentUp, 60)], at(60)).unwrap();
        drop(journal);
        whole(copy, kept + torn + 1);
    }
}
