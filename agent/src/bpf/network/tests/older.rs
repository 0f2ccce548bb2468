//! The hooks of older kernels, which this one has as well.

use super::{clsact as hooks, clsact::PARENTS, frames, *};
use crate::bpf::network::netlink::{Message, Route};

fn filters(lab: &Lab, ifindex: u32) -> [usize; 2] {
    lab.inside(|| {
        let mut route = Route::open().expect("a socket");
        PARENTS.map(|parent| hooks::list(&mut route, ifindex, parent).expect("a list").len())
    })
}

fn has_clsact(lab: &Lab, ifindex: u32) -> bool {
    lab.inside(|| hooks::is_clsact(&mut Route::open().expect("a socket"), ifindex).unwrap_or(false))
}

fn load() -> NetworkPrograms {
    NetworkPrograms::load_for(Hook::Clsact, Writer::of_task()).expect("network programs")
}

#[test]
fn who_writes_is_read_from_the_task_where_no_helper_tells() {
    let lab = Lab::new();
    let mut writers = Vec::new();
    for way in [Writer::Helper, Writer::of_task(), Writer::Untold] {
        let tap = lab.tap("tap0", 0);
        let mut programs = NetworkPrograms::load_for(Hook::Clsact, way).expect("network programs");
        let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
        tap.transmit(&frames::kinds()[0]);
        let accounts = programs.detach(port);
        assert_eq!(totals(&accounts).0.packets, 1);
        writers.push(accounts.last().expect("an account").writer);
    }
    assert_eq!(writers, [std::process::id(), std::process::id(), 0]);
}

#[test]
fn frames_of_every_kind_count_as_the_link_counts_them() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let mut programs = load();
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    assert!(programs.is_attached(port));
    let sender = lab.sender(tap.ifindex);
    tap.drain();
    let (before, told) = (lab.stats("tap0"), totals(&programs.read(port)));
    for frame in frames::kinds() {
        tap.transmit(&frame);
        sender.send(&frame);
        tap.drain();
    }
    let (after, ours) = (lab.stats("tap0"), totals(&programs.detach(port)));
    let transmit = Flow { bytes: after.rx_bytes - before.rx_bytes, packets: after.rx_packets - before.rx_packets };
    let receive = Flow { bytes: after.tx_bytes - before.tx_bytes, packets: after.tx_packets - before.tx_packets };
    assert_eq!((add(told.0, transmit), add(told.1, receive)), ours);
    assert!(!has_clsact(&lab, tap.ifindex), "we brought it, and take it away");
}

#[test]
fn what_a_killed_agent_left_is_replaced_and_counts_for_nobody() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let mut killed = load();
    let left = killed.attach(&lab.netns, tap.ifindex, false).expect("attach");
    let stayed = killed.read(left);
    std::mem::forget(killed);
    assert_eq!(filters(&lab, tap.ifindex), [1, 1]);
    let mut programs = load();
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    assert_eq!(filters(&lab, tap.ifindex), [1, 1]);
    tap.transmit(&frames::kinds()[0]);
    assert_eq!(totals(&programs.read(port)).0.packets, 1);
    assert_eq!(totals(&stayed).0.packets, 0);
    drop(programs);
    assert_eq!(filters(&lab, tap.ifindex), [0, 0], "an agent that ends takes its own away");
}

#[test]
fn what_a_killed_agent_left_in_a_namespace_goes_and_what_is_others_stays() {
    let lab = Lab::new();
    let taps = [lab.tap("tap0", 0), lab.tap("tap1", 0)];
    let mut killed = load();
    let ports = taps.each_ref().map(|tap| killed.attach(&lab.netns, tap.ifindex, false).expect("attach"));
    // Somebody else's, on the second.
    let mut page = Port::new(PortId(77), killed.lanes, false).expect("a page");
    page.open(killed.claims.as_fd());
    let pair = killed.pair(&page, None).expect("programs");
    lab.inside(|| hooks::put_foreign_filter(taps[1].ifindex, pair.programs[0].as_fd()).expect("a filter"));
    assert!(ports.iter().all(|port| killed.is_attached(*port)));
    assert_eq!(killed.sweep(&lab.netns).expect("a sweep"), 0, "its own are at work");
    std::mem::forget(killed);
    let filters = |ifindex| filters(&lab, ifindex);
    assert_eq!([filters(taps[0].ifindex), filters(taps[1].ifindex)], [[1, 1], [2, 1]]);
    let mut programs = load();
    assert_eq!(programs.sweep(&lab.netns).expect("a sweep"), 4);
    assert_eq!([filters(taps[0].ifindex), filters(taps[1].ifindex)], [[0, 0], [1, 0]]);
    taps[1].transmit(&frames::kinds()[0]);
    assert_eq!(totals(&page.read()).0.packets, 1, "theirs is at work");
    assert_eq!(programs.sweep(&lab.netns).expect("a sweep"), 0);
    assert!(has_clsact(&lab, taps[0].ifindex), "nobody knows who brought it");
}

#[test]
fn others_filters_run_and_stay_and_so_does_their_clsact() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let mut theirs = load();
    // A filter of somebody else's, at the priority we would like: counts as ours do, and has another name.
    let mut page = Port::new(PortId(77), theirs.lanes, false).expect("a page");
    page.open(theirs.claims.as_fd());
    let pair = theirs.pair(&page, None).expect("programs");
    lab.inside(|| hooks::put_foreign(tap.ifindex, pair.programs[0].as_fd()).expect("a filter"));
    let port = theirs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    assert_eq!(filters(&lab, tap.ifindex), [2, 1]);
    tap.transmit(&frames::kinds()[0]);
    assert_eq!(totals(&page.read()).0.packets, 1);
    assert_eq!(totals(&theirs.detach(port)).0.packets, 1);
    assert_eq!(filters(&lab, tap.ifindex), [1, 0]);
    assert!(has_clsact(&lab, tap.ifindex));
}

#[test]
fn an_ingress_discipline_in_the_way_is_told_as_such() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    lab.inside(|| {
        let mut route = Route::open().expect("a socket");
        let mut ingress = hooks::message(36, Message::CREATE, tap.ifindex, 0xffff_fff1, 0xffff_0000, 0);
        ingress.text(1, b"ingress");
        route.ask(&ingress).expect("an ingress discipline");
    });
    let error = load().attach(&lab.netns, tap.ifindex, false).expect_err("no hook for egress");
    assert!(matches!(error, Error::Ingress(_)), "{error}");
    assert!(error.to_string().contains("tc qdisc"), "{error}");
}

#[test]
fn a_device_that_is_gone_is_told_and_its_successor_is_left_alone() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let mut programs = load();
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    tap.transmit(&frames::kinds()[0]);
    lab.delete(tap);
    assert!(!programs.is_attached(port));
    assert_eq!(totals(&programs.detach(port)).0.packets, 1);
}

#[test]
fn classes_are_exchanged_in_place() {
    use crate::account::class::{ClassTable, Classes, Numbers};
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let mut programs = load();
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    let classes = Classes { prefixes: [("a".into(), vec!["10.0.0.0/8".parse().expect("a prefix")])].into() };
    let numbers = Numbers::default().after(&classes).expect("room");
    let table = ClassTable::new(&classes, &numbers).expect("fits");
    programs.set_classes(table.as_ref()).expect("classes");
    assert_eq!(filters(&lab, tap.ifindex), [1, 1]);
    tap.transmit(&frames::kinds()[0]);
    let number = usize::from(numbers.number("a").expect("a number"));
    assert_eq!(class(&programs.detach(port), number).0.packets, 1);
}
