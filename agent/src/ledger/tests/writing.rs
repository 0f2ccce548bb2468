//! Laws of the writing thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::faulty::{Faults, faulty};
use super::*;

const SOON: Duration = Duration::from_secs(60);

fn options() -> Options {
    let (retry_min, retry_max) = (Duration::from_millis(1), Duration::from_millis(5));
    Options { linger: Duration::from_millis(5), retry_min, retry_max, ..Options::default() }
}

fn spawn<S: Store + 'static>(journal: Journal<S>, options: Options) -> Writer {
    Writer::spawn(journal, options, Box::new(|| at(50)), Box::new(|_| ())).unwrap()
}

fn until(what: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("did not happen in a minute");
}

#[test]
fn a_ticket_is_durable_only_when_its_lines_are_in_the_file() {
    let (_root, dir) = fresh_dir();
    let commits = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&commits);
    let seen = file(&dir);
    let on_commit = Box::new(move |group: Vec<Committed>| {
        // Whoever is told of a line finds it in the file.
        let text = fs::read(&seen).unwrap();
        for Committed { written, fact } in &group {
            let at = text.windows(written.line.len()).any(|part| part == &*written.line);
            assert!(at && written.kind == fact.kind, "line {} is told before it is there", written.seq);
        }
        count.fetch_add(group.len() as u64, Ordering::SeqCst);
    });
    let writer = Writer::spawn(open(&dir).0, options(), Box::new(|| at(50)), on_commit).unwrap();
    let handle = writer.handle();
    let mut last = Ticket::default();
    for fact in day() {
        last = handle.submit(vec![fact]).unwrap();
    }
    assert!(handle.wait_durable(last, SOON));
    assert_eq!(lines(&dir).len(), 15);
    until(|| commits.load(Ordering::SeqCst) == 15);
    let stats = handle.stats();
    assert_eq!((stats.last_seq, stats.spooled, stats.degraded), (15, 0, false));
    assert_eq!(stats.records_total[&Kind::VmComputeUsage], 3);
    assert_eq!(stats.records_total[&Kind::HostSuspend], 0);
    writer.shutdown(SOON).unwrap();
    assert_eq!(verified(&dir).exit_code(), 0);
}

#[test]
fn a_full_disk_spools_and_catches_up_in_order() {
    let (_root, dir) = fresh_dir();
    let (journal, faults) = faulty(&dir);
    *faults.lock().unwrap() = Faults { full_after: Some(300), ..Faults::default() };
    let writer = spawn(journal, options());
    let handle = writer.handle();
    let mut last = Ticket::default();
    for fact in day() {
        last = handle.submit(vec![fact]).unwrap();
    }
    until(|| handle.stats().write_failures[&Op::Write] > 3);
    let stats = handle.stats();
    assert!(handle.is_degraded() && stats.degraded);
    assert_eq!((stats.spooled, handle.durable()), (15, Ticket(0)));
    assert!(stats.last_error.unwrap().contains("no storage space"));
    *faults.lock().unwrap() = Faults::default();
    assert!(handle.wait_durable(last, SOON));
    assert!(!handle.is_degraded());
    let kinds: Vec<Kind> = lines(&dir).iter().map(|l| l.fact.kind).collect();
    assert_eq!(kinds, day().iter().map(|d| d.kind).collect::<Vec<_>>());
    assert_eq!(verified(&dir).exit_code(), 0);
}

#[test]
fn a_full_spool_drops_heartbeats_first_then_refuses_and_counts_both() {
    let (_root, dir) = fresh_dir();
    let (journal, faults) = faulty(&dir);
    *faults.lock().unwrap() = Faults { full_after: Some(0), ..Faults::default() };
    let writer = spawn(journal, Options { spool_records: 4, linger: Duration::from_secs(60), ..options() });
    let handle = writer.handle();
    handle.submit(vec![vm(Kind::VmComputeUsage, 1, 1), vm(Kind::VmComputeUsage, 1, 2)]).unwrap();
    handle.submit((1..=4).map(|tgid| vm(Kind::VmComputeStart, tgid, 0)).collect()).unwrap();
    assert_eq!((handle.stats().dropped_heartbeats, handle.stats().spooled), (2, 4));
    let refused = handle.submit(vec![vm(Kind::VmComputeStart, 5, 0)]).unwrap_err();
    assert_eq!((refused.why, refused.drafts.len(), handle.stats().refused), (Refusal::Full, 1, 1));
    let ticket = handle.submit(vec![vm(Kind::VmComputeUsage, 1, 3)]).unwrap();
    assert_eq!((handle.stats().dropped_heartbeats, ticket), (3, Ticket(6)));
    *faults.lock().unwrap() = Faults::default();
    assert!(handle.wait_durable(ticket, SOON));
    assert_eq!(lines(&dir).len(), 4);
}

#[test]
fn heartbeats_wait_for_the_next_group() {
    let (_root, dir) = fresh_dir();
    let writer = spawn(open(&dir).0, Options { linger: Duration::from_secs(600), ..options() });
    let handle = writer.handle();
    let start = handle.submit(vec![vm(Kind::VmComputeStart, 1, 0)]).unwrap();
    assert!(handle.wait_durable(start, SOON));
    let beat = handle.submit(vec![vm(Kind::VmComputeUsage, 1, 1)]).unwrap();
    assert!(!handle.wait_durable(beat, Duration::from_millis(50)));
    let stop = handle.submit(vec![vm(Kind::VmComputeStop, 1, 2)]).unwrap();
    assert!(handle.wait_durable(stop, SOON));
    assert_eq!(lines(&dir).len(), 3);
}

#[test]
fn a_shutdown_writes_what_waits_and_gives_the_lock_back() {
    let (_root, dir) = fresh_dir();
    let writer = spawn(open(&dir).0, Options { linger: Duration::from_secs(600), ..options() });
    let handle = writer.handle();
    handle.submit(vec![vm(Kind::VmComputeStart, 1, 0)]).unwrap();
    handle.submit(vec![vm(Kind::VmComputeUsage, 1, 1)]).unwrap();
    writer.shutdown(SOON).unwrap();
    assert_eq!(handle.submit(day()).unwrap_err().why, Refusal::Closed);
    assert_eq!(open(&dir).1.next_seq, 3);
}

#[test]
fn a_shutdown_on_a_dead_disk_says_what_was_left() {
    let (_root, dir) = fresh_dir();
    let (journal, faults) = faulty(&dir);
    faults.lock().unwrap().sync_fails = true;
    let writer = spawn(journal, Options { retry_max: Duration::from_secs(60), ..options() });
    let handle = writer.handle();
    handle.submit(day()).unwrap();
    until(|| handle.stats().write_failures[&Op::Sync] > 0);
    let undrained = writer.shutdown(Duration::from_millis(50)).unwrap_err();
    assert_eq!(undrained.left, 15);
    assert!(undrained.to_string().contains("the disk is gone"), "{undrained}");
}
