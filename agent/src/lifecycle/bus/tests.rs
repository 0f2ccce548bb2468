//! Laws of the bus.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::ledger::{Draft, FileStore, Journal, Options, Stamp, Subject, Writer};

const BOOT: &str = "11111111-2222-3333-4444-555555555555";

fn draft(kind: Kind, vm: u64) -> Draft {
    let subject = Subject::Incarnation(format!("111111112222-{vm}-100000000000"));
    let mut draft = Draft::new(kind, subject, BOOT, 1_779_238_923_000_000_000 + vm, 100_000_000_000 + vm);
    draft.vm_id = format!("vm-{vm}");
    draft
}

/// Lines as a real journal commits them.
fn committed(dir: &std::path::Path, kinds: &[Kind]) -> Vec<Committed> {
    let stamp = Stamp { unix_ns: 1_779_238_923_000_000_000, mono_ns: 100_000_000_000 };
    let (mut journal, _) = Journal::<FileStore>::open(dir, "host", BOOT, stamp).unwrap();
    let facts: Vec<Draft> = kinds.iter().enumerate().map(|(vm, kind)| draft(*kind, vm as u64)).collect();
    let written = journal.append(&facts, stamp).unwrap();
    written.into_iter().zip(facts).map(|(written, fact)| Committed { written, fact }).collect()
}

fn seqs(subscription: &Subscription) -> Vec<u64> {
    std::iter::from_fn(|| subscription.try_next()).map(|event| event.seq).collect()
}

#[test]
fn an_event_carries_the_bytes_that_stand_in_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let all = bus.attach("all", "test", Interest::of(Kind::ALL), 10);
    bus.publish(committed(dir.path(), &[Kind::VmComputeStart, Kind::VmComputeStop]));
    let file = std::fs::read(dir.path().join(crate::ledger::FILE_NAME)).unwrap();
    let mut lines = file.split(|byte| *byte == b'\n');
    for happening in [crate::lifecycle::Happening::Started, crate::lifecycle::Happening::Stopped] {
        let event = all.try_next().unwrap();
        assert_eq!(Some(&*event.line), lines.next());
        let read = crate::ledger::Line::parse(&event.line).unwrap();
        assert_eq!((read.seq, &read.id, read.fact.kind), (event.seq, &event.id, event.kind));
        assert_eq!(event.happening, happening);
    }
}

#[test]
fn attaching_and_detaching_twice_is_doing_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let first = bus.attach("one", "test", Interest::of(Kind::ALL), 10);
    let second = bus.attach("one", "test", Interest::of(Kind::ALL), 10);
    let lines = committed(dir.path(), &[Kind::VmComputeStart]);
    bus.publish(lines.clone());
    assert_eq!((first.waiting(), second.waiting()), (1, 1), "one queue");
    assert_eq!(seqs(&second), [1]);
    assert!(seqs(&first).is_empty(), "an event is not told twice");
    bus.detach("one");
    bus.detach("one");
    bus.detach("never there");
    bus.publish(lines.clone());
    assert_eq!(first.waiting(), 0);
    let again = bus.attach("one", "test", Interest::of(Kind::ALL), 10);
    bus.publish(lines);
    assert_eq!((again.waiting(), first.waiting()), (1, 0), "a new subscription");
}

#[test]
fn a_dropped_subscription_is_forgotten() {
    let bus = Bus::default();
    drop(bus.attach("gone", "test", Interest::of(Kind::ALL), 10));
    bus.publish(Vec::new());
    assert!(held(&bus.0).subscribers.is_empty());
}

#[tokio::test]
async fn what_waits_can_be_taken_after_the_detaching_and_then_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let one = bus.attach("one", "test", Interest::of(Kind::ALL), 10);
    let waiting = tokio::spawn({
        let other = one.clone();
        async move { while other.next().await.is_some() {} }
    });
    tokio::task::yield_now().await;
    bus.publish(committed(dir.path(), &[Kind::VmComputeStart, Kind::VmComputeStop]));
    bus.detach("one");
    while one.next().await.is_some() {}
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("every waiter is told of the end").unwrap();
}

#[test]
fn a_subscriber_that_takes_nothing_loses_counted_events_and_delays_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let slow = bus.attach("slow", "slow", Interest::of(Kind::ALL), 3);
    let quick = bus.attach("quick", "quick", Interest::of(Kind::ALL), 100_000);
    let stamp = Stamp { unix_ns: 1_779_238_923_000_000_000, mono_ns: 100_000_000_000 };
    let (journal, _) = Journal::<FileStore>::open(dir.path(), "host", BOOT, stamp).unwrap();
    let publish = bus.clone();
    let on_commit = Box::new(move |lines| publish.publish(lines));
    let writer = Writer::spawn(journal, Options::default(), Box::new(move || stamp), on_commit).unwrap();
    let began = Instant::now();
    let facts: Vec<Draft> = (0..5_000).map(|vm| draft(Kind::VmComputeStart, vm)).collect();
    let ticket = writer.handle().submit(facts).unwrap();
    assert!(writer.handle().wait_durable(ticket, Duration::from_secs(60)), "after {:?}", began.elapsed());
    writer.shutdown(Duration::from_secs(60)).unwrap();
    assert_eq!(seqs(&quick), (1..=5_000).collect::<Vec<_>>(), "all, in order");
    assert_eq!(seqs(&slow), [1, 2, 3], "the first that fitted");
    assert_eq!((slow.lost(), quick.lost()), (4_997, 0));
    assert_eq!(bus.lost(), BTreeMap::from([("slow", 4_997), ("quick", 0)]));
}

proptest! {
    /// Whatever is published and taken in whatever order: taken + waiting + lost is what was wanted, in order.
    #[test]
    fn every_wanted_event_is_taken_or_waits_or_was_counted_lost(
        capacity in 0usize..5,
        wanted in proptest::sample::subsequence(Kind::ALL.to_vec(), 0..Kind::COUNT),
        steps in proptest::collection::vec((proptest::sample::select(Kind::ALL.to_vec()), 0usize..3), 1..40),
    ) {
        let bus = Bus::default();
        let subscription = bus.attach("one", "test", Interest::of(&wanted), capacity);
        let (mut told, mut taken, mut last) = (0u64, 0u64, 0u64);
        for (seq, (kind, takes)) in steps.into_iter().enumerate() {
            let fact = draft(kind, seq as u64);
            let seq = seq as u64 + 1;
            let written = crate::ledger::Written {
                seq, id: String::new(), kind, bytes: 0, trimmed: false, line: Arc::from(&b"{}"[..]),
            };
            bus.publish(vec![Committed { written, fact }]);
            told += u64::from(wanted.contains(&kind));
            for event in (0..takes).filter_map(|_| subscription.try_next()) {
                prop_assert!(event.seq > last && wanted.contains(&event.kind));
                last = event.seq;
                taken += 1;
            }
            prop_assert!(subscription.waiting() <= capacity);
            prop_assert_eq!(taken + subscription.waiting() as u64 + subscription.lost(), told);
        }
    }
}
