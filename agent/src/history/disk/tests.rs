use super::*;
use crate::{
    account::past::{Past as _, Taken},
    clock::Instant2,
    history::{BLOCK, Limits, Sample, Store},
};
use proptest::prelude::*;
use tempfile::TempDir;

mod damage;
mod lives;

const BOUNDS: Bounds = Bounds { max_memory: 64 << 20, min_free: 0 };
const STEP_NS: u64 = 10_000_000_000;
/// A wall clock's time, and how long the host has been up by then.
const UNIX_NS: u64 = 1_700_000_000_000_000_000;
const UP_NS: u64 = 5_000_000_000_000_000;

fn store() -> Store {
    Store::new(Limits { samples: 1_000_000, max_bytes: BOUNDS.max_memory })
}

/// Both clocks after so many samples.
fn clock(samples: u64) -> Instant2 {
    Instant2 { boot_ns: UP_NS + samples * STEP_NS, unix_ns: UNIX_NS + samples * STEP_NS }
}

/// Adds samples with the numbers from `begin` on. `noise` is what keeps them from compressing.
fn push(store: &Store, vm_id: &str, begin: u64, count: u64, noise: u64) {
    let line = store.track(vm_id);
    for n in begin..begin + count {
        let some = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 30 & noise;
        let sample = Sample {
            cpu_percent: Some(some as f64 / 1e3),
            memory_used_bytes: Some((n << 12) + some),
            memory_limit_bytes: Some(1 << 30),
            network_in_bytes_per_sec: Some(some as f64),
            disk_read_bytes_per_sec: Some(0.0),
            ..Sample::default()
        };
        store.push(&line, clock(n).unix_ns, &sample);
    }
}

/// All that is known of a VM.
fn all(store: &Store, vm_id: &str) -> Vec<Taken> {
    store.after(vm_id, 0, usize::MAX)
}

/// What the next agent begins with.
fn come_back(dir: &Path) -> (Disk, Store, u64) {
    let (disk, read) = Disk::open(dir, BOUNDS).unwrap();
    let next = store();
    next.restore(read.lines);
    (disk, next, read.damaged)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_was_saved_is_there_after_any_number_of_agents_and_nothing_twice(
        turns in proptest::collection::vec((0u64..3 * BLOCK as u64 / 2, 0usize..3, any::<bool>(), any::<bool>()), 1..12),
    ) {
        let dir = TempDir::new().unwrap();
        let names = ["a", "b", "c"];
        let (mut disk, mut now, _) = come_back(dir.path());
        let mut saved = vec![Vec::new(); 3];
        let mut at = 1;
        for (count, vm, save, die) in turns {
            push(&now, names[vm], at, count, 0xFFFF);
            at += count;
            if save {
                disk.save(&now, clock(at)).unwrap();
                saved = names.iter().map(|name| all(&now, name)).collect();
            }
            if die {
                drop(disk);
                let damaged;
                (disk, now, damaged) = come_back(dir.path());
                prop_assert_eq!(damaged, 0);
                for (name, due) in names.iter().zip(&saved) {
                    prop_assert_eq!(&all(&now, name), due, "{}", name);
                    prop_assert_eq!(now.len(name), due.len());
                }
            }
        }
    }
}

#[test]
fn what_was_sealed_after_the_last_save_is_told_once_though_the_save_was_cut_off() {
    let dir = TempDir::new().unwrap();
    let (mut disk, now, _) = come_back(dir.path());
    push(&now, "a", 1, 100, 0xFF);
    disk.save(&now, clock(100)).unwrap();
    let before = fs::read(dir.path().join("0000000000000001.open")).unwrap();
    let most = 2 * BLOCK;
    push(&now, "a", 101, most as u64 - 100, 0xFF);
    let sealed: Vec<_> = all(&now, "a").into_iter().take(most - now.live()[0].line.since(0).open.len()).collect();
    assert!(sealed.len() > 100);
    disk.save(&now, clock(most as u64)).unwrap();
    // As if the agent had died between the blocks and the file of open ones.
    fs::remove_file(dir.path().join("0000000000000002.open")).unwrap();
    fs::write(dir.path().join("0000000000000001.open"), before).unwrap();
    drop(disk);
    let (_, next, damaged) = come_back(dir.path());
    assert_eq!((all(&next, "a"), damaged), (sealed, 0));
}

#[test]
fn files_stay_within_their_bound_while_vms_come_and_go_and_lose_nothing() {
    let dir = TempDir::new().unwrap();
    let bounds = Bounds { max_memory: 128 << 10, min_free: 0 };
    let (mut disk, _) = Disk::open(dir.path(), bounds).unwrap();
    // Open blocks are in memory uncompressed: its bound is not to be what lets blocks go here.
    let limits = Limits { samples: 6 * BLOCK, max_bytes: 1 << 30 };
    let (now, most) = (Store::new(limits), 192 << 10);
    let (mut greatest, mut at) = (0, 1);
    for turn in 0..60 {
        for vm in 0..8 {
            // Half of them live long, the others for two turns.
            let name = if vm < 4 { format!("long-{vm}") } else { format!("short-{vm}-{}", turn / 2) };
            push(&now, &name, at, BLOCK as u64, 0x3FF_FFFF);
            if vm >= 4 && turn % 2 == 1 {
                now.stopped(&name, clock(at + 2 * BLOCK as u64).boot_ns);
            }
        }
        at += BLOCK as u64;
        now.expire(clock(at).boot_ns);
        disk.save(&now, clock(at)).unwrap();
        let on_disk: u64 = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(on_disk, disk.bytes(), "all files are known");
        assert!(on_disk - disk.open_bytes <= most + (64 << 10), "{on_disk} bytes");
        greatest = on_disk.max(greatest);
    }
    assert!(greatest > 128 << 10, "the bound was reached: {greatest}");
    drop(disk);
    let (_, read) = Disk::open(dir.path(), bounds).unwrap();
    let next = Store::new(limits);
    next.restore(read.lines);
    assert_eq!((next.kept().lines, read.damaged), (now.kept().lines, 0));
    for live in now.live() {
        assert_eq!(all(&next, &live.vm_id), all(&now, &live.vm_id), "{}", live.vm_id);
    }
    assert_eq!(next.kept().evicted, 0, "what was let go before is not read, so it is not let go again");
}

#[test]
fn many_short_agents_leave_few_files() {
    let dir = TempDir::new().unwrap();
    let most = BOUNDS.files() + 2;
    let mut at = 1;
    for _ in 0..most + 100 {
        let (mut disk, now, _) = come_back(dir.path());
        push(&now, "a", at, BLOCK as u64, 0xFF);
        at += BLOCK as u64;
        disk.save(&now, clock(at)).unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().count() <= most);
    }
    let (_, now, _) = come_back(dir.path());
    assert_eq!(now.len("a") as u64, at - 1);
}

#[test]
fn the_files_are_for_the_agents_user_alone_and_of_one_agent() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("history");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    let (mut disk, now, _) = come_back(&dir);
    push(&now, "../../etc/x\n", 1, BLOCK as u64, 0xFF);
    disk.save(&now, clock(BLOCK as u64)).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    assert_eq!(Disk::open(&dir, BOUNDS).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(disk);
    assert_eq!(all(&come_back(&dir).1, "../../etc/x\n").len(), BLOCK, "a name is bytes in a file");
}

#[test]
fn room_that_the_ledger_needs_is_not_taken_and_what_was_not_saved_is_saved_later() {
    let dir = TempDir::new().unwrap();
    let (mut disk, now, _) = come_back(dir.path());
    disk.bounds.min_free = u64::MAX >> 1;
    push(&now, "a", 1, 3 * BLOCK as u64, 0xFF);
    let error = disk.save(&now, clock(1)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("ledger.min_free"), "{error}");
    assert_eq!((fs::read_dir(dir.path()).unwrap().count(), disk.written()), (0, 0));
    disk.bounds.min_free = 0;
    disk.save(&now, clock(2)).unwrap();
    drop(disk);
    assert_eq!(all(&come_back(dir.path()).1, "a"), all(&now, "a"));
}

#[test]
fn a_sealed_block_takes_no_more_room_in_a_file_than_in_memory() {
    let dir = TempDir::new().unwrap();
    let (mut disk, now, _) = come_back(dir.path());
    let name = "x".repeat(64);
    // Nothing of it changes but the time: what stands beside the numbers is most of it.
    push(&now, &name, 1, 40 * BLOCK as u64, 0);
    disk.save(&now, clock(1)).unwrap();
    let (in_files, sealed) = (disk.bytes() - disk.open_bytes, now.live()[0].line.since(0).sealed);
    assert_eq!(in_files, sealed.iter().map(|(_, block)| record::block_bytes(&name, block)).sum::<u64>());
    assert!(in_files <= sealed.iter().map(|(_, block)| block.bytes() as u64).sum(), "{in_files} bytes");
}
