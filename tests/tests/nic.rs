//! Law: what a guest says it sent and received is what its interface's own statistics say.

use std::{
    fs::File,
    io::{Read as _, Write as _},
};

use anyhow::Result;
use kvmeter_tests::{
    net::{
        frame::Frame,
        link::Link,
        netns::Namespace,
        sender::Sender,
        tap::{self, TapOptions},
    },
    skip::host,
};

#[test]
fn what_passes_an_interfaces_queue_is_what_its_statistics_say() -> Result<()> {
    let Some(_host) = host("what_passes_an_interfaces_queue_is_what_its_statistics_say") else { return Ok(()) };
    let ns = Namespace::new()?;
    let frame = Frame::udp("192.0.2.1".parse()?, "192.0.2.2".parse()?, 100);
    let mut queue = ns.inside(|| tap::open("tap0", TapOptions::default()))?.remove(0);
    let link = Link::find(&ns, "tap0")?;
    link.set_up()?;
    queue.write_all(&frame.bytes)?;
    Sender::new(&link)?.send(&frame, 3)?;
    let stats = link.stats()?;
    assert_eq!((drain(&mut queue), stats.rx_packets, stats.rx_bytes), (vec![100; 3], 1, 100));
    assert_eq!((link.stats()?.tx_packets, link.stats()?.tx_bytes), (3, 300));
    let (lower, peer) = Link::veth(&ns, "veth0", "veth1")?;
    let macvtap = lower.macvtap("macvtap0")?;
    for link in [&lower, &peer, &macvtap] {
        link.set_up()?;
    }
    let mut queue = ns.inside(|| tap::open_macvtap("macvtap0", TapOptions::default()))?.remove(0);
    queue.write_all(&frame.bytes)?;
    Sender::new(&peer)?.send(&frame.to_address(macvtap.address()?), 3)?;
    let stats = macvtap.stats()?;
    assert_eq!((drain(&mut queue), stats.tx_packets, stats.tx_bytes), (vec![100; 3], 1, 100));
    assert_eq!((macvtap.stats()?.rx_packets, macvtap.stats()?.rx_bytes), (3, 300));
    Ok(())
}

fn drain(queue: &mut File) -> Vec<usize> {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| queue.read(&mut buffer).ok()).collect()
}
