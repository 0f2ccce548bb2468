//! Whose line goes on, and for how long one stays whose VM has stopped.

use super::*;

const KEEP_NS: u64 = 3_600_000_000_000;

/// A directory in which `vm_id` has a line of ten samples; its VM runs, or has stopped with its line kept until then.
fn saved(vm_id: &str, until_ns: Option<u64>) -> TempDir {
    let dir = TempDir::new().unwrap();
    let (mut disk, now, _) = come_back(dir.path());
    push(&now, vm_id, 1, 10, 0xFF);
    if let Some(until_ns) = until_ns {
        now.stopped(vm_id, until_ns);
    }
    disk.save(&now, clock(10)).unwrap();
    dir
}

/// How many samples are left of `a`, at `now`, by an agent that came at `came` and found this running.
fn left(dir: &TempDir, running: Option<u64>, came: Instant2, now: Instant2) -> usize {
    let (_disk, store, _) = come_back(dir.path());
    store.settle(running.into_iter().map(|start_ns| ("a", start_ns)), came, KEEP_NS);
    store.expire(now.boot_ns);
    store.len("a")
}

/// Both clocks so long after the last sample, on the same boot.
fn later(ns: u64) -> Instant2 {
    let last = clock(10);
    Instant2 { boot_ns: last.boot_ns + ns, unix_ns: last.unix_ns + ns }
}

/// The same on another boot, `up_ns` old.
fn rebooted(ns: u64, up_ns: u64) -> Instant2 {
    Instant2 { boot_ns: up_ns, ..later(ns) }
}

#[test]
fn a_vm_that_runs_on_goes_on_with_its_line_however_long_no_agent_ran() {
    let dir = saved("a", None);
    let (came, day) = (later(30 * KEEP_NS), later(60 * KEEP_NS));
    assert_eq!(left(&dir, Some(UP_NS), came, day), 10);
    let (mut disk, store, _) = come_back(dir.path());
    store.settle([("a", UP_NS), ("a", UP_NS)].into_iter(), came, KEEP_NS);
    let line = store.track("a");
    assert!(std::sync::Arc::ptr_eq(&line, &store.track("a")), "tracked twice is tracked once");
    push(&store, "a", 100, 5, 0xFF);
    let due = all(&store, "a");
    assert_eq!(due.len(), 15);
    disk.save(&store, came).unwrap();
    drop(disk);
    assert_eq!(all(&come_back(dir.path()).1, "a"), due);
}

#[test]
fn a_vm_that_went_while_no_agent_ran_is_let_go_its_time_after_its_last_sample() {
    let dir = saved("a", None);
    let came = later(KEEP_NS / 2);
    assert_eq!(left(&dir, None, came, later(KEEP_NS - 1)), 10);
    assert_eq!(left(&dir, None, came, later(KEEP_NS)), 0);
    assert_eq!(left(&dir, None, later(2 * KEEP_NS), later(2 * KEEP_NS)), 0);
}

#[test]
fn a_stopped_vms_line_is_let_go_when_it_was_to_be_also_over_a_boot() {
    let until = later(KEEP_NS / 4);
    let dir = saved("a", Some(until.boot_ns));
    for (came, before, after) in [
        (later(1), later(KEEP_NS / 4 - 1), until),
        (rebooted(9, 5), rebooted(9, KEEP_NS / 4 - 9), rebooted(9, 5 + KEEP_NS / 4)),
    ] {
        assert_eq!(left(&dir, None, came, before), 10, "{came:?}");
        assert_eq!(left(&dir, None, came, after), 0, "{came:?}");
    }
}

#[test]
fn a_vm_that_began_again_while_no_agent_ran_goes_on_with_its_line_if_that_was_still_kept_then() {
    let until = later(KEEP_NS / 4);
    let dir = saved("a", Some(until.boot_ns));
    let came = later(KEEP_NS / 2);
    assert_eq!(left(&dir, Some(until.boot_ns - 1), came, later(9 * KEEP_NS)), 10);
    assert_eq!(left(&dir, Some(until.boot_ns), came, came), 0);
    // After a boot, half an hour into it; the VM began a minute after it.
    let came = rebooted(KEEP_NS / 2, KEEP_NS / 2);
    assert_eq!(left(&saved("a", None), Some(KEEP_NS / 60), came, came), 10);
}

#[test]
fn a_wall_clock_that_was_set_back_keeps_nothing_for_longer_than_is_asked() {
    let dir = saved("a", None);
    let came = Instant2 { boot_ns: 1_000, unix_ns: UNIX_NS - 1_000 * KEEP_NS };
    let hour = Instant2 { boot_ns: came.boot_ns + KEEP_NS, ..came };
    assert_eq!(left(&dir, None, came, Instant2 { boot_ns: hour.boot_ns - 1, ..hour }), 10);
    assert_eq!(left(&dir, None, came, hour), 0);
}

#[test]
fn a_line_that_was_let_go_does_not_come_back_with_its_blocks() {
    let dir = TempDir::new().unwrap();
    let (mut disk, now, _) = come_back(dir.path());
    push(&now, "a", 1, 2_000, 0xFF);
    push(&now, "b", 1, 2_000, 0xFF);
    disk.save(&now, clock(2_000)).unwrap();
    now.stopped("a", 1);
    now.expire(2);
    disk.save(&now, clock(2_000)).unwrap();
    drop(disk);
    let (_disk, next, _) = come_back(dir.path());
    assert_eq!((next.len("a"), next.len("b")), (0, 2_000));
    assert!(dir.path().read_dir().unwrap().count() >= 2, "its blocks are there with b's");
}

#[test]
fn smaller_bounds_hold_for_what_is_read_and_what_they_cost_is_counted() {
    let dir = TempDir::new().unwrap();
    let (mut disk, now, _) = come_back(dir.path());
    push(&now, "a", 1, 20 * BLOCK as u64, 0x3FF_FFFF);
    disk.save(&now, clock(1)).unwrap();
    drop(disk);
    let small = Store::new(Limits { samples: 1_000_000, max_bytes: 40_000 });
    small.restore(Disk::open(dir.path(), BOUNDS).unwrap().1.lines);
    let kept = small.kept();
    assert!(kept.evicted > 0 && small.len("a") as u64 + kept.evicted == 20 * BLOCK as u64, "{kept:?}");
    let few = Store::new(Limits { samples: BLOCK, max_bytes: BOUNDS.max_memory });
    few.restore(Disk::open(dir.path(), BOUNDS).unwrap().1.lines);
    assert!(few.len("a") <= 3 * BLOCK && few.kept().evicted == 0);
}
