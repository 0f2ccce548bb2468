//! Who wrote: handovers from process to process.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use super::{
    frames,
    lab::{Tap, ifindex},
    *,
};

/// Another process writes frames to the tap; returns its id.
pub(super) fn write_from_another(tap: &Tap, frame: &[u8], count: usize) -> u32 {
    let queue = Stdio::from(tap.file.try_clone().expect("another descriptor"));
    // Each read of `dd` is one frame, and so is each write.
    let block = format!("bs={}", frame.len());
    let mut other = Command::new("dd")
        .args([&block, "iflag=fullblock", "status=none"])
        .stdin(Stdio::piped())
        .stdout(queue)
        .spawn()
        .expect("dd");
    let mut pipe = other.stdin.take().expect("a pipe");
    (0..count).for_each(|_| pipe.write_all(frame).expect("write to dd"));
    drop(pipe);
    assert!(other.wait().expect("dd").success());
    other.id()
}

pub(super) fn packets(accounts: &[Account]) -> Vec<(u32, u64)> {
    accounts.iter().map(|account| (account.writer, sum(&account.transmit).packets)).collect()
}

#[test]
fn each_process_that_writes_has_an_account_and_the_one_in_use_is_last() {
    let (lab, tap, mut programs, port) = counted_tap();
    let frame = &frames::kinds()[0];
    let me = std::process::id();
    tap.transmit(frame);
    let other = write_from_another(&tap, frame, 2);
    tap.transmit(frame);
    assert_eq!(packets(&programs.read(port)), [(other, 2), (me, 2)]);
    let third = write_from_another(&tap, frame, 3);
    let before = totals(&programs.read(port)[2..]).1.packets;
    lab.sender(tap.ifindex).send(frame);
    let accounts = programs.detach(port);
    assert_eq!(packets(&accounts), [(me, 2), (other, 2), (third, 3)]);
    assert!(accounts[0].serial < accounts[1].serial && accounts[1].serial < accounts[2].serial);
    assert!(totals(&accounts[2..]).1.packets > before, "what comes in goes to who wrote last");
}

#[test]
fn a_handover_that_the_agent_knows_of_begins_an_account_for_the_same_process_too() {
    let (lab, tap, mut programs, port) = counted_tap();
    let frame = &frames::kinds()[0];
    let me = std::process::id();
    tap.transmit(frame);
    programs.next_account(port);
    assert_eq!(packets(&programs.read(port)), [(me, 1), (0, 0)]);
    lab.sender(tap.ifindex).send(frame);
    assert!(sum(&programs.read(port)[1].receive).packets >= 1, "it is open before anybody writes");
    tap.transmit(frame);
    tap.transmit(frame);
    assert_eq!(packets(&programs.read(port)), [(me, 1), (me, 2)]);
}

#[test]
fn accounts_taken_over_are_given_back_and_lose_nothing() {
    let (lab, tap, mut programs, port) = counted_tap();
    let frame = &frames::kinds()[0];
    let before = lab.stats("tap0");
    let mut taken = Vec::new();
    for round in 1..=3 * network::ACCOUNTS {
        write_from_another(&tap, frame, round);
        taken.extend(programs.retire(port, u64::MAX));
        let left = programs.read(port);
        assert_eq!(left.len(), 1, "the one in use stays");
        assert_eq!(sum(&left[0].transmit).packets, round as u64);
    }
    taken.extend(programs.detach(port));
    assert_eq!(programs.losses().shared_packets, 0);
    assert_eq!(totals(&taken).0.packets, lab.stats("tap0").rx_packets - before.rx_packets);
    let serials: Vec<_> = taken.iter().map(|account| account.serial).collect();
    assert!(serials.is_sorted(), "{serials:?}");
}

#[test]
fn without_a_free_account_packets_are_shared_and_that_is_counted() {
    let (_lab, tap, mut programs, port) = counted_tap();
    let frame = &frames::kinds()[0];
    let writers: Vec<_> = (0..network::ACCOUNTS).map(|_| write_from_another(&tap, frame, 1)).collect();
    assert_eq!(programs.losses().shared_packets, 0);
    write_from_another(&tap, frame, 2);
    assert_eq!(programs.losses().shared_packets, 2);
    let accounts = programs.detach(port);
    assert_eq!(accounts.iter().map(|account| account.writer).collect::<Vec<_>>(), writers);
    assert_eq!(totals(&accounts).0.packets, network::ACCOUNTS as u64 + 2);
    assert_eq!(programs.losses().shared_packets, 2);
}

#[test]
fn a_deleted_interface_is_told_as_gone_and_its_counts_stay() {
    let (lab, tap, mut programs, port) = counted_tap();
    let frame = &frames::kinds()[0];
    (0..7).for_each(|_| tap.transmit(frame));
    assert!(programs.is_attached(port));
    lab.delete(tap);
    assert!(!programs.is_attached(port));
    assert_eq!(totals(&programs.read(port)).0.packets, 7);
    assert_eq!(totals(&programs.detach(port)).0.packets, 7);
    assert_eq!(programs.read(port), []);
    assert!(matches!(programs.attach(&lab.netns, 4_000_000, false), Err(Error::Gone(4_000_000))));
}

#[test]
fn one_name_and_index_in_two_namespaces_are_two_interfaces() {
    let (one, other) = (Lab::new(), Lab::new());
    let taps = [one.tap("tap0", 0), other.tap("tap0", 0)];
    assert_eq!(taps[0].ifindex, taps[1].ifindex);
    let mut programs = programs();
    let first = programs.attach(&one.netns, taps[0].ifindex, false).expect("attach");
    let second = programs.attach(&other.netns, taps[1].ifindex, false).expect("attach");
    let frame = &frames::kinds()[0];
    (0..3).for_each(|_| taps[0].transmit(frame));
    (0..5).for_each(|_| taps[1].transmit(frame));
    assert_eq!(totals(&programs.detach(first)).0.packets, 3);
    assert_eq!(totals(&programs.detach(second)).0.packets, 5);
    assert_eq!(one.inside(|| ifindex("tap0")), taps[0].ifindex, "it is still there");
}
