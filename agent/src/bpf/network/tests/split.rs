//! Packets that another task than the writer handles: no writer is named.

use std::time::{Duration, Instant};

use super::{
    accounts::{packets, write_from_another},
    frames,
    lab::Tap,
    *,
};

const IFF_NAPI: i32 = 0x10;

/// Until so many packets of the guest are counted; a time that is too short only makes it fail.
fn counted(programs: &NetworkPrograms, port: PortId, expected: u64) {
    let begun = Instant::now();
    while totals(&programs.read(port)).0.packets != expected {
        assert!(begun.elapsed() < Duration::from_secs(20), "never {expected}: {:?}", packets(&programs.read(port)));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn steer(lab: &Lab, tap: &Tap, cpus: &str) {
    LinkDevice::open(&lab.netns, tap.ifindex).expect("its device").steer(cpus).expect("rps_cpus");
}

#[test]
fn a_tap_that_is_polled_names_no_writer() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", IFF_NAPI);
    let mut programs = programs();
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    let frame = &frames::kinds()[0];
    (0..3).for_each(|_| tap.transmit(frame));
    write_from_another(&tap, frame, 2);
    counted(&programs, port, 5);
    assert_eq!(packets(&programs.read(port)), [(0, 5)]);
    // What the agent says counts, and nothing else.
    programs.next_account(port);
    tap.transmit(frame);
    counted(&programs, port, 6);
    assert_eq!(packets(&programs.detach(port)), [(0, 5), (0, 1)]);
    assert_eq!(programs.losses().shared_packets, 0);
}

#[test]
fn a_tap_whose_packets_go_to_other_cpus_names_no_writer_for_as_long() {
    let (lab, tap, mut programs, port) = counted_tap();
    let (frame, me) = (&frames::kinds()[0], std::process::id());
    (0..2).for_each(|_| tap.transmit(frame));
    steer(&lab, &tap, "3");
    programs.refresh_split(port).expect("other programs");
    write_from_another(&tap, frame, 3);
    (0..4).for_each(|_| tap.transmit(frame));
    counted(&programs, port, 9);
    assert_eq!(packets(&programs.read(port)), [(me, 2), (0, 7)]);
    // A table of classes keeps it so.
    programs.set_classes(None).expect("classes");
    tap.transmit(frame);
    counted(&programs, port, 10);
    steer(&lab, &tap, "0");
    programs.refresh_split(port).expect("other programs");
    tap.transmit(frame);
    assert_eq!(packets(&programs.detach(port)), [(me, 2), (0, 8), (me, 1)]);
}

#[test]
fn without_a_free_account_none_is_begun_until_one_is_given_back() {
    let (lab, tap, mut programs, port) = counted_tap();
    let frame = &frames::kinds()[0];
    let mut writers: Vec<_> = (0..network::ACCOUNTS).map(|_| (write_from_another(&tap, frame, 1), 1)).collect();
    steer(&lab, &tap, "3");
    programs.refresh_split(port).expect("other programs");
    tap.transmit(frame);
    counted(&programs, port, network::ACCOUNTS as u64 + 1);
    writers.last_mut().expect("four").1 += 1;
    assert_eq!(packets(&programs.read(port)), writers);
    let last = writers.pop().expect("four");
    assert_eq!(packets(&programs.retire(port, u64::MAX)), writers);
    tap.transmit(frame);
    counted(&programs, port, 3);
    assert_eq!(packets(&programs.detach(port)), [last, (0, 1)]);
}

#[test]
fn a_macvtap_s_writers_are_told_apart_whatever_is_set() {
    let lab = Lab::new();
    lab.pair("veth0", "veth1");
    let tap = lab.macvtap("mv0", "veth0");
    let mut programs = programs();
    let port = programs.attach(&lab.netns, tap.ifindex, true).expect("attach");
    steer(&lab, &tap, "3");
    programs.refresh_split(port).expect("nothing to do");
    tap.transmit(&frames::kinds()[0]);
    assert_eq!(packets(&programs.detach(port)), [(std::process::id(), 1)]);
}
