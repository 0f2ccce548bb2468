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
