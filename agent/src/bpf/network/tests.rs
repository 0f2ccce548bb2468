//! The programs at work, on real taps in namespaces of their own.

mod lab;

use super::*;
use lab::Lab;

fn sum(flows: &[Flow; CLASSES]) -> Flow {
    flows
        .iter()
        .fold(Flow::default(), |sum, flow| Flow { bytes: sum.bytes + flow.bytes, packets: sum.packets + flow.packets })
}

fn frame(ethertype: u16, length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    frame
}

#[test]
fn a_tap_is_counted_both_ways_as_the_link_counts() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    tap.drain();
    let before = lab.stats("tap0");
    let mut programs = NetworkPrograms::load().expect("load");
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    tap.drain();
    for length in [60, 100, 1500] {
        tap.transmit(&frame(0x0800, length));
        tap.transmit(&frame(0x0806, length));
    }
    let sender = lab.sender(tap.ifindex);
    sender.send(&frame(0x86dd, 700));
    sender.send(&frame(0x0800, 300));
    let accounts = programs.detach(port);
    let after = lab.stats("tap0");
    assert_eq!(accounts.len(), 1);
    assert_eq!(accounts[0].writer, std::process::id());
    let (transmit, receive) = (sum(&accounts[0].transmit), sum(&accounts[0].receive));
    assert_eq!(transmit.packets, after.rx_packets - before.rx_packets);
    assert_eq!(transmit.bytes, after.rx_bytes - before.rx_bytes);
    assert_eq!(receive.packets, 2);
}

/// An Ethernet frame with tags (type, number) and a payload.
fn tagged(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    for (kind, number) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(number.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn totals(accounts: &[Account]) -> (Flow, Flow) {
    let add = |a: Flow, b: Flow| Flow { bytes: a.bytes + b.bytes, packets: a.packets + b.packets };
    accounts
        .iter()
        .fold((Flow::default(), Flow::default()), |(t, r), a| (add(t, sum(&a.transmit)), add(r, sum(&a.receive))))
}

#[test]
fn explore() {
    let lab = Lab::new();
    let tap = lab.tap("tap0", 0);
    let mut programs = NetworkPrograms::load().expect("load");
    let port = programs.attach(&lab.netns, tap.ifindex, false).expect("attach");
    let sender = lab.sender(tap.ifindex);
    let kinds: Vec<(&str, Vec<u8>)> = vec![
        ("ipv4", tagged(&[], 0x0800, &[0x45; 100])),
        ("8021q", tagged(&[(0x8100, 5)], 0x0800, &[0x45; 100])),
        ("8021ad", tagged(&[(0x88a8, 5)], 0x0800, &[0x45; 100])),
        ("qinq", tagged(&[(0x88a8, 5), (0x8100, 6)], 0x0800, &[0x45; 100])),
        ("qq", tagged(&[(0x8100, 5), (0x8100, 6)], 0x0800, &[0x45; 100])),
        ("prio", tagged(&[(0x8100, 0)], 0x0800, &[0x45; 100])),
        ("runt", tagged(&[], 0x0800, &[])),
        ("runt8021q", tagged(&[(0x8100, 5)], 0x0800, &[])),
        ("runt8021qcut", tagged(&[], 0x8100, &[0])),
        ("llc", tagged(&[], 0x0010, &[0x42; 16])),
        ("jumbo", tagged(&[], 0x0800, &[0x45; 9000])),
    ];
    for (name, frame) in kinds {
        let (l0, (t0, r0)) = (lab.stats("tap0"), totals(&programs.read(port)));
        tap.transmit(&frame);
        let (l1, (t1, _)) = (lab.stats("tap0"), totals(&programs.read(port)));
        eprintln!(
            "{name} len {} tx: link {} ours {}  packets {} {}",
            frame.len(),
            l1.rx_bytes - l0.rx_bytes,
            t1.bytes - t0.bytes,
            l1.rx_packets - l0.rx_packets,
            t1.packets - t0.packets
        );
        if name != "jumbo" && name != "runt8021qcut" {
            sender.send(&frame);
            let got = tap.drain();
            let (l2, (_, r2)) = (lab.stats("tap0"), totals(&programs.read(port)));
            eprintln!(
                "     rx: link {} ours {} got {:?} packets {} {}",
                l2.tx_bytes - l1.tx_bytes,
                r2.bytes - r0.bytes,
                got.iter().map(Vec::len).collect::<Vec<_>>(),
                l2.tx_packets - l1.tx_packets,
                r2.packets - r0.packets
            );
        }
    }
}
