//! Bytes and packets against the link's own, frame kind by frame kind.

use aya_obj::generated::bpf_attach_type;

use std::thread;

use super::{frames, lab::LinkStats, *};

/// What a tap's link says that its guest sent and received: what was dropped has no bytes.
fn of_tap(before: LinkStats, after: LinkStats) -> (Flow, Flow) {
    assert_eq!(before.tx_dropped, after.tx_dropped, "nothing was dropped");
    let transmit = Flow { bytes: after.rx_bytes - before.rx_bytes, packets: after.rx_packets - before.rx_packets };
    (transmit, Flow { bytes: after.tx_bytes - before.tx_bytes, packets: after.tx_packets - before.tx_packets })
}

#[test]
fn frames_of_every_kind_through_a_tap_count_as_the_link_counts_them() {
    for way in WAYS {
        let lab = Lab::new();
        let tap = lab.tap("tap0", 0);
        let mut programs = programs();
        let port = attach_as(&mut programs, &lab, tap.ifindex, way);
        let sender = lab.sender(tap.ifindex);
        tap.drain();
        let (before, told) = (lab.stats("tap0"), totals(&programs.read(port)));
        // The second time as usual packets between others.
        for (number, frame) in frames::kinds().iter().chain(&frames::kinds()).enumerate() {
            let (link, ours) = (lab.stats("tap0"), totals(&programs.read(port)));
            tap.transmit(frame);
            let (link, ours) = (of_tap(link, lab.stats("tap0")).0, (ours.0, totals(&programs.read(port)).0));
            assert_eq!(add(ours.0, link), ours.1, "frame {number} out of the guest, {way:?}");
            sender.send(frame);
            tap.drain();
        }
        // One that only a guest sends: taps take any length.
        tap.transmit(&frames::frame(frames::UNICAST, &[], frames::IPV4, &frames::ipv4([1; 4], [2; 4], 1, &[7; 9_000])));
        tap.drain();
        let (link, accounts) = (of_tap(before, lab.stats("tap0")), programs.detach(port));
        let ours = totals(&accounts);
        assert_eq!(add(told.0, link.0), ours.0, "out of the guest, {way:?}");
        assert_eq!(add(told.1, link.1), ours.1, "into the guest, {way:?}");
        assert!(link.1.packets >= frames::kinds().len() as u64);
    }
}

#[test]
fn what_a_guest_does_not_take_is_received_and_dropped() {
    let (lab, tap, mut programs, port) = counted_tap();
    let sender = lab.sender(tap.ifindex);
    tap.drain();
    let (before, told) = (lab.stats("tap0"), totals(&programs.read(port)).1.packets);
    let frame = &frames::kinds()[0];
    // The queue of a tap has room for 1,000 packets.
    for _ in 0..1_500 {
        sender.try_send(frame);
    }
    let queued = tap.drain().len() as u64;
    let after = lab.stats("tap0");
    let (sent, dropped) = (after.tx_packets - before.tx_packets, after.tx_dropped - before.tx_dropped);
    assert!(dropped > 0);
    assert_eq!(queued, sent);
    assert_eq!(totals(&programs.detach(port)).1.packets - told, sent + dropped);
}

#[test]
fn frames_of_every_kind_through_a_macvtap_count_as_the_link_counts_them() {
    let lab = Lab::new();
    lab.pair("one", "other");
    let tap = lab.macvtap("macvtap0", "one");
    let sender = lab.sender(lab.inside(|| lab::ifindex("other")));
    let mut programs = programs();
    let before = lab.stats("macvtap0");
    let port = programs.attach(&lab.netns, tap.ifindex, true).expect("attach");
    // Until here the link may have spoken by itself.
    let begun = lab.stats("macvtap0");
    let told = totals(&programs.read(port));
    for frame in frames::kinds() {
        tap.transmit(&frame);
        sender.send(&frame);
        let mut broadcast = frame;
        broadcast[..6].copy_from_slice(&frames::BROADCAST);
        sender.send(&broadcast);
    }
    // Broadcasts reach a macvtap from a work queue.
    let expected = frames::kinds().len();
    let mut taken = 0;
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while taken < expected && std::time::Instant::now() < patience {
        taken += tap.drain().len();
        thread::yield_now();
    }
    let after = loop {
        // A pair of equal readings: nothing moves any more.
        let (one, ours, other) = (lab.stats("macvtap0"), totals(&programs.read(port)), lab.stats("macvtap0"));
        if one == other && ours == totals(&programs.read(port)) {
            break other;
        }
    };
    let ours = totals(&programs.detach(port));
    let transmit = Flow { bytes: after.tx_bytes - begun.tx_bytes, packets: after.tx_packets - begun.tx_packets };
    let receive = Flow { bytes: after.rx_bytes - begun.rx_bytes, packets: after.rx_packets - begun.rx_packets };
    assert_eq!(add(told.0, transmit), ours.0, "out of the guest, {before:?} {begun:?} {after:?}");
    assert_eq!(add(told.1, receive), ours.1, "into the guest, {before:?} {begun:?} {after:?}");
}

/// `TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6`
const OFFLOADS: [u64; 4] = [0, 1, 1 | 2, 1 | 2 | 4];

#[test]
fn packets_to_be_segmented_count_as_the_link_counts_them_whatever_the_guest_can_take() {
    WAYS.into_iter().for_each(segmented);
}

fn segmented(way: (bool, bool)) {
    let lab = Lab::new();
    let (from, to) = (lab.tap("from", libc::IFF_VNET_HDR), lab.tap("to", libc::IFF_VNET_HDR));
    lab.bridge("bridge0", &["from", "to"]);
    let mut programs = programs();
    let ports = [from.ifindex, to.ifindex].map(|i| attach_as(&mut programs, &lab, i, way));
    for offload in OFFLOADS {
        to.set_offload(offload);
        programs.refresh_offload(ports[1]).expect("the device tells");
        to.drain();
        from.drain();
        let links = ["from", "to"].map(|name| lab.stats(name));
        let told = ports.map(|port| totals(&programs.read(port)));
        for tags in [&[][..], &frames::TAGGED] {
            for six in [false, true] {
                from.transmit(&frames::large(tags, six, 5_000, 1_000));
                from.transmit(&frames::large(tags, six, 4_001, 1_400));
                from.transmit(&frames::large(tags, six, 900, 1_000));
            }
        }
        for frame in frames::kinds() {
            from.transmit(&[vec![0; frames::VIRTIO], frame].concat());
        }
        let mut taken = 0;
        // The link counts a packet when it is taken: what came in between was not.
        let (after, ours) = loop {
            let before = ports.map(|port| totals(&programs.read(port)));
            taken += to.drain().len();
            from.drain();
            let links = ["from", "to"].map(|name| lab.stats(name));
            let ours = ports.map(|port| totals(&programs.read(port)));
            if before == ours {
                break (links, ours);
            }
        };
        assert!(taken >= 12, "offload {offload}, {way:?}: {taken} arrived");
        for at in [0, 1] {
            let link = of_tap(links[at], after[at]);
            let due = (add(told[at].0, link.0), add(told[at].1, link.1));
            assert_eq!(due, ours[at], "{}, offload {offload}, {way:?}", ["from", "to"][at]);
        }
    }
}

#[test]
fn several_queues_at_once_lose_no_packet() {
    const QUEUES: usize = 4;
    const FRAMES: u64 = 20_000;
    let lab = Lab::new();
    let queues: Vec<_> = (0..QUEUES).map(|_| lab.tap("tap0", libc::IFF_MULTI_QUEUE)).collect();
    let mut programs = programs();
    let port = programs.attach(&lab.netns, queues[0].ifindex, false).expect("attach");
    let before = lab.stats("tap0");
    let frame = &frames::kinds()[0];
    thread::scope(|scope| {
        for queue in &queues {
            scope.spawn(|| (0..FRAMES).for_each(|_| queue.transmit(frame)));
        }
    });
    let (link, accounts) = (of_tap(before, lab.stats("tap0")).0, programs.detach(port));
    assert_eq!(link.packets, QUEUES as u64 * FRAMES);
    assert_eq!(totals(&accounts).0, link);
    assert_eq!(accounts.len(), 1, "one process is one writer");
}

#[test]
fn another_program_on_the_hook_still_runs_and_after_detaching_none_is_left() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let (mut one, mut other) = (programs(), programs());
    let first = one.attach(&lab.netns, tap.ifindex, false).expect("attach");
    let second = other.attach(&lab.netns, tap.ifindex, false).expect("attach");
    let frame = &frames::kinds()[0];
    tap.transmit(frame);
    lab.sender(tap.ifindex).send(frame);
    for (programs, port) in [(&one, first), (&other, second)] {
        let (transmit, receive) = totals(&programs.read(port));
        assert_eq!(transmit, Flow { bytes: frame.len() as u64, packets: 1 });
        assert!(receive.packets >= 1);
    }
    let on = |hook| lab.inside(|| syscall::count_on(tap.ifindex, hook)).expect("query");
    let hooks = [bpf_attach_type::BPF_TCX_INGRESS, bpf_attach_type::BPF_TCX_EGRESS];
    assert_eq!(hooks.map(on), [2, 2]);
    one.detach(first);
    assert_eq!(hooks.map(on), [1, 1]);
    tap.transmit(frame);
    assert_eq!(totals(&other.read(second)).0.packets, 2);
    // As when the agent dies: nothing is told, the descriptors are closed.
    drop(other);
    assert_eq!(hooks.map(on), [0, 0]);
}
