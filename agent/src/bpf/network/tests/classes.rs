//! Classes in the kernel: against the table's own answer, and exchanged under traffic.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{frames, *};
use crate::account::class::{ClassTable, Classes, Numbers};

fn configured(written: &[(&str, &[&str])]) -> Classes {
    let one = |(name, prefixes): &(&str, &[&str])| {
        (Arc::from(*name), prefixes.iter().map(|text| text.parse().expect("a prefix")).collect())
    };
    Classes { prefixes: written.iter().map(one).collect() }
}

fn table(classes: &Classes, numbers: &Numbers) -> ClassTable {
    ClassTable::new(classes, numbers).expect("fits").expect("has prefixes")
}

/// A packet from one address to another.
fn packet(from: IpAddr, to: IpAddr) -> (u16, Vec<u8>) {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (frames::IPV4, frames::ipv4(from.octets(), to.octets(), 17, &[7; 60])),
        (IpAddr::V6(from), IpAddr::V6(to)) => (frames::IPV6, frames::ipv6(from.octets(), to.octets(), &[7; 60])),
        _mixed => panic!("one family"),
    }
}

#[test]
fn every_packet_is_counted_in_the_class_of_its_far_end() {
    let classes = configured(&[
        ("internal", &["10.0.0.0/8", "fd00::/8"]),
        ("peering", &["10.1.0.0/16", "2001:db8::/32"]),
        ("one", &["10.1.2.3/32", "2001:db8::1/128"]),
        ("most", &["128.0.0.0/1", "8000::/1"]),
    ]);
    let numbers = Numbers::default().after(&classes).expect("room");
    let table = table(&classes, &numbers);
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let mut programs = programs();
    programs.set_classes(Some(&table)).expect("classes");
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    let sender = lab.sender(tap.ifindex);
    let far = [
        "10.0.0.1",
        "10.1.0.1",
        "10.1.2.3",
        "10.1.2.4",
        "11.0.0.1",
        "127.255.255.255",
        "128.0.0.0",
        "255.255.255.255",
        "0.0.0.0",
        "fd00::1",
        "2001:db8::1",
        "2001:db8::2",
        "2001:db9::1",
        "::",
        "8000::",
        "7fff::1",
    ];
    let mut expected: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    tap.drain();
    for (round, far) in far.iter().enumerate() {
        let far: IpAddr = far.parse().expect("an address");
        // The near end's address must not matter: it is of a class, too.
        let near: IpAddr = if far.is_ipv4() { "10.1.2.3" } else { "2001:db8::1" }.parse().expect("an address");
        let expected = expected.entry(usize::from(table.class(far))).or_default();
        for tags in [&[][..], &frames::TAGGED, &frames::DOUBLE] {
            let (ethertype, sent) = packet(near, far);
            for _ in 0..=round {
                tap.transmit(&frames::frame(frames::UNICAST, tags, ethertype, &sent));
                expected.0 += 1;
            }
            let (ethertype, received) = packet(far, near);
            sender.send(&frames::frame(frames::UNICAST, tags, ethertype, &received));
            expected.1 += 1;
        }
        tap.drain();
    }
    tap.transmit(&frames::frame(frames::BROADCAST, &[], 0x0806, &[1; 28]));
    expected.entry(network::NON_IP as usize).or_default().0 += 1;
    let accounts = programs.detach(port);
    for number in 0..CLASSES {
        let (transmit, receive) = class(&accounts, number);
        let (sent, came) = expected.get(&number).copied().unwrap_or_default();
        assert_eq!(transmit.packets, sent, "{:?} out of the guest", numbers.name(number));
        assert_eq!(receive.packets, came, "{:?} into the guest", numbers.name(number));
    }
}

#[test]
fn classes_exchanged_under_traffic_lose_no_packet_and_mix_none() {
    const ROUNDS: usize = 10;
    let names = ["a", "b", "c"];
    let all: Vec<_> = names.iter().map(|name| configured(&[(name, &["10.0.0.0/8"])])).collect();
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let mut programs = programs();
    let mut numbers = Numbers::default().after(&all[0]).expect("room");
    programs.set_classes(Some(&table(&all[0], &numbers))).expect("classes");
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    let before = lab.stats("tap0");
    let (ethertype, sent) = packet("10.0.0.1".parse().expect("near"), "10.0.0.2".parse().expect("far"));
    let frame = frames::frame(frames::UNICAST, &[], ethertype, &sent);
    let stop = AtomicBool::new(false);
    let told = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                (0..100).for_each(|_| tap.transmit(&frame));
            }
        });
        let mut told: BTreeMap<String, Flow> = BTreeMap::new();
        for round in 1..=ROUNDS {
            let classes = &all[round % all.len()];
            let mut next = numbers.after(classes).expect("room");
            programs.set_classes(Some(&table(classes, &next))).expect("classes");
            // What was counted under a name that is gone moves no more.
            let accounts = programs.read(port);
            for number in next.gone().collect::<Vec<_>>() {
                let name = next.name(number).expect("a name").to_string();
                let sum = told.entry(name).or_default();
                *sum = add(*sum, class(&accounts, number).0);
                programs.wipe_class(number);
                next.release(number);
            }
            numbers = next;
        }
        stop.store(true, Ordering::Relaxed);
        told
    });
    let accounts = programs.detach(port);
    let after = lab.stats("tap0");
    let last = names[ROUNDS % names.len()];
    let now = class(&accounts, usize::from(numbers.number(last).expect("a number"))).0;
    let all = told.values().copied().fold(now, add);
    assert_eq!(all, Flow { bytes: after.rx_bytes - before.rx_bytes, packets: after.rx_packets - before.rx_packets });
    assert_eq!(class(&accounts, network::EXTERNAL as usize).0.packets, 0, "no packet saw no table");
    assert!(names.iter().all(|name| told.get(*name).is_some_and(|flow| flow.packets > 0)), "{told:?}");
}

#[test]
fn without_classes_there_are_ip_and_the_rest() {
    let (_lab, tap, mut programs, port) = counted_tap();
    let classes = configured(&[("a", &["10.0.0.0/8"])]);
    let numbers = Numbers::default().after(&classes).expect("room");
    programs.set_classes(Some(&table(&classes, &numbers))).expect("classes");
    programs.set_classes(None).expect("no classes");
    frames::kinds().iter().for_each(|frame| tap.transmit(frame));
    let accounts = programs.detach(port);
    let other = 3;
    assert_eq!(class(&accounts, network::NON_IP as usize).0.packets, other);
    let rest = frames::kinds().len() as u64 - other;
    assert_eq!(class(&accounts, network::EXTERNAL as usize).0.packets, rest);
}
