//! Damage costs what it hits: no other block, and no sample is made up.

use std::os::unix::fs::FileExt as _;

use super::*;
use crate::history::store::News;

/// Files with two VMs, of two sealed blocks each and an open one, and what is in them.
fn small() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let (mut disk, now, _) = come_back(dir.path());
    for vm_id in ["a", "b"] {
        let mut at = 1;
        while now.track(vm_id).since(0).sealed.len() < 2 || now.track(vm_id).since(0).open.len() < 3 {
            push(&now, vm_id, at, 1, 0);
            at += 1;
        }
    }
    disk.save(&now, clock(1)).unwrap();
    (dir, now)
}

/// What is known of the two.
fn known(store: &Store) -> [(&'static str, News); 2] {
    ["a", "b"].map(|vm_id| (vm_id, store.track(vm_id).since(0)))
}

/// Asserts that what is read is what was written, less these many whole blocks at most; how many parts were damaged.
fn lost_at_most(dir: &Path, was: &[(&str, News)], most: usize, what: &str) -> u64 {
    let read = Disk::open(dir, BOUNDS).unwrap().1;
    let mut lost = was.iter().map(|(_, news)| news.sealed.len() + 1).sum::<usize>();
    for line in read.lines {
        let (_, news) = was.iter().find(|(vm_id, _)| *vm_id == line.vm_id).unwrap();
        assert!(line.sealed.is_sorted_by(|a, b| a.0 < b.0), "{what}: each once");
        assert!(line.sealed.iter().all(|sealed| news.sealed.contains(sealed)), "{what}: as they were");
        assert!(line.open.is_empty() || news.open.rows().eq(line.open.iter().copied()), "{what}: {:?}", line.open);
        lost -= line.sealed.len() + usize::from(!line.open.is_empty());
    }
    assert!(lost <= most, "{what}: {lost} blocks are lost");
    read.damaged
}

#[test]
fn a_flipped_bit_costs_one_block_at_most_and_is_counted() {
    let (dir, now) = small();
    let was = known(&now);
    assert_eq!(lost_at_most(dir.path(), &was, 0, "whole"), 0);
    for name in ["0000000000000000.blocks", "0000000000000001.open"] {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        eprintln!("{name}: {} bytes", whole.len());
        let file = File::options().write(true).open(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            // Only that byte: a file system may make a file durable that is written anew.
            file.write_all_at(&[whole[bit / 8] ^ 1 << (bit % 8)], (bit / 8) as u64).unwrap();
            let what = format!("{name}: bit {bit}");
            assert_eq!(lost_at_most(dir.path(), &was, 1, &what), 1, "{what}");
            file.write_all_at(&[whole[bit / 8]], (bit / 8) as u64).unwrap();
        }
    }
    assert_eq!(lost_at_most(dir.path(), &was, 0, "whole again"), 0);
}

#[test]
fn a_torn_file_costs_what_is_missing_of_it() {
    let (dir, now) = small();
    let was = known(&now);
    for (name, blocks) in [("0000000000000000.blocks", 4), ("0000000000000001.open", 2)] {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for length in (0..whole.len()).rev() {
            file.set_len(length as u64).unwrap();
            lost_at_most(dir.path(), &was, blocks, &format!("{name}: {length} bytes"));
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(lost_at_most(dir.path(), &was, 1, name), 1);
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn what_follows_a_torn_end_goes_on_with_the_next_block() {
    let (dir, now) = small();
    let path = dir.path().join("0000000000000000.blocks");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (mut disk, next, damaged) = come_back(dir.path());
    assert_eq!(damaged, 1);
    for vm_id in ["a", "b"] {
        push(&next, vm_id, 10_000, 1_000, 0xFF);
    }
    disk.save(&next, clock(11_000)).unwrap();
    drop(disk);
    let (_disk, third, _) = come_back(dir.path());
    for vm_id in ["a", "b"] {
        assert_eq!(all(&third, vm_id), all(&next, vm_id));
        assert!(third.len(vm_id) > 1_000 && third.len(vm_id) <= 1_000 + now.len(vm_id));
    }
}

#[test]
fn a_file_of_another_version_is_left_aside_and_left_alone() {
    let (dir, now) = small();
    let path = dir.path().join("0000000000000000.blocks");
    let mut frames = fs::read(&path).unwrap();
    // Its version, and the sum that covers it.
    frames[8] += 1;
    let length = 20 + usize::try_from(u32::from_le_bytes(frames[12..16].try_into().unwrap())).unwrap();
    frames.truncate(length);
    let mut sum = crc32fast::Hasher::new();
    sum.update(&frames[8..16]);
    sum.update(&frames[20..]);
    let sum = sum.finalize().to_le_bytes();
    frames[16..20].copy_from_slice(&sum);
    fs::write(&path, &frames).unwrap();
    let (mut disk, read) = Disk::open(dir.path(), BOUNDS).unwrap();
    assert_eq!(read.damaged, 0);
    assert_eq!(read.aside.len(), 1);
    assert!(read.aside[0].1.contains("another version"), "{:?}", read.aside);
    let next = store();
    next.restore(read.lines);
    push(&next, "a", 10_000, 1_000, 0xFF);
    disk.save(&next, clock(11_000)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), frames);
    assert!(next.len("a") < now.len("a") + 1_000);
}

#[test]
fn what_is_no_file_of_ours_is_neither_read_nor_touched() {
    let (dir, now) = small();
    let dangling = dir.path().join("0000000000000007.blocks");
    std::os::unix::fs::symlink("/etc/passwd", &dangling).unwrap();
    fs::create_dir(dir.path().join("0000000000000008.open")).unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::write(dir.path().join("0000000000000005.new"), "half a file").unwrap();
    let (mut disk, read) = Disk::open(dir.path(), BOUNDS).unwrap();
    assert_eq!((read.damaged, read.aside.len()), (0, 2), "{:?}", read.aside);
    let next = store();
    next.restore(read.lines);
    assert_eq!(all(&next, "a"), all(&now, "a"));
    disk.save(&next, clock(3)).unwrap();
    assert!(dangling.is_symlink() && dir.path().join("notes.txt").exists());
    assert!(!dir.path().join("0000000000000005.new").exists(), "what a dead agent left half done is gone");
}
