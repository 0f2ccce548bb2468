//! Who holds a tap: accounts that begin with its openings, whoever writes or does not.

use super::{super::carrier::Direct, frames, lab::Tap, *};

const PERSISTENT: &str = "tap0";

/// A tap that outlives its files, and is open.
fn persistent(lab: &Lab) -> Tap {
    let tap = lab.tap(PERSISTENT, 0);
    tap.persist();
    tap
}

fn generation(lab: &Lab) -> u32 {
    let link = crate::host::link::LinkRequests::open(&lab.netns).expect("open").named(PERSISTENT).expect("ask");
    link.expect("there").carrier_changes.expect("counted")
}

/// Closes a tap, and waits until it is closed: a process that another test begins just now has a copy of its file until it
/// becomes another program.
fn close(lab: &Lab, tap: Tap) {
    let (open, patience) = (generation(lab), std::time::Instant::now() + std::time::Duration::from_secs(20));
    drop(tap);
    while generation(lab) == open {
        assert!(std::time::Instant::now() < patience, "it stays open");
        std::thread::yield_now();
    }
}

fn received(accounts: &[Account]) -> Vec<(u32, u64)> {
    let some = accounts.iter().map(|account| (account.writer, sum(&account.receive).packets));
    some.filter(|(_, packets)| *packets > 0).collect()
}

fn all_ways() -> Vec<NetworkPrograms> {
    let ways = Carrier::ways();
    assert_eq!(ways.iter().filter(|way| way.is_read()).count(), 2, "{ways:?}");
    let read = ways.into_iter().filter(|way| way.is_read());
    read.map(|way| {
        let programs = NetworkPrograms::load_with(Hook::Tcx, Writer::probe(), &[way]).expect("network programs");
        assert_eq!(programs.carrier, way);
        programs
    })
    .collect()
}

#[test]
fn what_is_received_belongs_to_who_opened_it_before_anything_is_written() {
    for mut programs in all_ways() {
        let lab = Lab::new();
        let tap = persistent(&lab);
        let me = std::process::id();
        // Some other process, as the agent saw it.
        let held = Held { generation: generation(&lab), tgid: 1 };
        let port = programs.attach_held(&lab.netns, tap.ifindex, false, Some(held)).expect("attach");
        let (frame, sender) = (&frames::kinds()[0], lab.sender(tap.ifindex));
        sender.send(frame);
        assert_eq!(received(&programs.read(port)), [(1, 1)]);
        close(&lab, tap);
        for _ in 0..3 {
            sender.try_send(frame);
        }
        assert_eq!(received(&programs.read(port)), [(1, 1), (NOBODY, 3)], "it is closed");
        for opened in 1..=5 {
            let again = lab.tap(PERSISTENT, 0);
            lab.wait_carrier(PERSISTENT);
            sender.send(frame);
            assert_eq!(received(&programs.read(port)), [(NOBODY, 3), (1, 1), (me, opened)]);
            close(&lab, again);
        }
        assert_eq!(programs.losses().shared_packets, 0);
        // Opened by one, held by another: as soon as that is known.
        let _again = lab.tap(PERSISTENT, 0);
        lab.wait_carrier(PERSISTENT);
        sender.send(frame);
        programs.hold(port, Held { generation: generation(&lab), tgid: 2 });
        sender.send(frame);
        // What was seen before the last handover is believed no more.
        programs.hold(port, Held { generation: generation(&lab) - 2, tgid: 3 });
        sender.send(frame);
        assert_eq!(received(&programs.detach(port)), [(NOBODY, 3), (1, 1), (2, 1), (me, 7)]);
    }
}

#[test]
fn what_the_kernel_refuses_is_told_before_there_is_any_interface() {
    let way = Carrier::ways()[0];
    assert!(way.direct.context > 0, "this kernel has it");
    // A type of the kernel's that is no function.
    let wrong = Carrier { direct: Direct { context: 1, ..way.direct }, ..way };
    let refused = NetworkPrograms::load_with(Hook::Tcx, Writer::probe(), &[wrong]);
    assert!(matches!(refused.err(), Some(Error::Program { name: "tap_transmit", .. })));
    // Where there is another way, that is gone.
    let both = [wrong, Carrier::default()];
    let programs = NetworkPrograms::load_with(Hook::Tcx, Writer::probe(), &both).expect("the other way");
    assert!(!programs.follows());
}

#[test]
fn which_task_runs_is_read_where_the_kernel_keeps_it() {
    let programs = NetworkPrograms::load_with(Hook::Tcx, Writer::Helper, &Carrier::ways()).expect("network programs");
    let places = programs.ask_tasks().expect("this kernel has it");
    let cpus = std::thread::available_parallelism().expect("a number").get();
    assert_eq!(places.iter().filter(|place| **place != 0).count(), cpus.min(network::LANES));
}
