//! Law: what a guest's own program says it sent and received is what its interface's statistics say (no agent here).
//!
//! What the kernel does, shown below on 6.18; what is built on it must keep to it:
//! * A tap counts a frame the guest sends as rx when it is written, and one it receives as tx when it is *read*, not
//!   before: what waits in the queue is in no counter. Bytes are those of the frame, both VLAN tags, no virtio_net_hdr.
//! * A frame from the guest that no protocol of the host takes is in rx_packets *and* in rx_dropped. A write that fails
//!   (device down, fewer bytes than an Ethernet header) is in no counter.
//! * A tap that is deleted first goes down: writes fail with EIO, then EBADFD. What they took before is in rx.
//! * A full tap drops: tx_dropped, without bytes. The sender is not told, since a queueing discipline stands in between.
//! * A GSO packet is one packet of all its bytes, either way, if the queue has a virtio_net_hdr and the offload. A queue
//!   that has not gets segments: a tap's tx counts segments (validate_xmit_skb cuts, after the egress hook of
//!   __dev_queue_xmit, so a program there meets one packet). The same was seen of one of 65549 bytes.
//! * A tap counts no rx multicast, a macvtap does.
//! * A macvtap's sides are swapped: the guest's transmit is tx, its receive is rx, counted when it *arrives*; what its
//!   full queue drops is in rx_packets, rx_errors and rx_dropped. Transmit agrees to the byte. Receive has 4 bytes less a
//!   tagged frame than the guest reads (the outer tag is taken off before the macvtap counts, and put back for the
//!   reader), and a GSO packet stays one there though a queue without virtio_net_hdr gives the guest its segments.
//! * A macvtap hears a group only with IFF_ALLMULTI (or when the host joined it), and group frames come by a work queue:
//!   later than the sender's call. What waits in its queue is charged to the sender's socket until it is read.

use anyhow::Result;
use kvmeter_tests::{
    net::{
        frame::Frame,
        kind::{Kind, kinds},
        link::{Link, LinkStats},
        netns::Namespace,
        sender::{Amount, Sender},
        tap::{self, TapOptions},
    },
    skip::host,
    vmm::nic::client::NicVm,
};

const COUNT: u64 = 25;

/// A namespace with a tap, and a VM whose NIC it is.
struct Tap {
    vm: NicVm,
    link: Link,
}

impl Tap {
    fn new(options: &str) -> Result<Self> {
        let namespace = Namespace::new()?;
        let vm = NicVm::start(&format!("tap0,netns={}{options}", namespace.path().display()), &[])?;
        Self::with(vm, &namespace)
    }

    fn with(vm: NicVm, namespace: &Namespace) -> Result<Self> {
        let link = Link::find(namespace, "tap0")?;
        link.set_mtu(9000)?;
        link.set_up()?;
        Ok(Self { vm, link })
    }
}

/// The kinds that a queue takes whole.
fn taken(vnet: bool) -> impl Iterator<Item = Kind> {
    kinds().into_iter().filter(move |kind| vnet || !kind.gso)
}

/// Rises of the guest's two counters of a mark and of the link's, over some work.
fn over(
    vm: &mut NicVm,
    link: &Link,
    kind: &Kind,
    work: impl FnOnce(&mut NicVm) -> Result<()>,
) -> Result<([Amount; 2], LinkStats)> {
    let mark = usize::from(kind.frame.mark());
    let (before, stats) = (vm.counters()?, link.stats()?);
    work(vm)?;
    let (after, stats) = (vm.counters()?, link.stats()?.since(&stats));
    let rise = |a: Amount, b: Amount| Amount { packets: b.packets - a.packets, bytes: b.bytes - a.bytes };
    Ok(([rise(before.tx[mark], after.tx[mark]), rise(before.rx[mark], after.rx[mark])], stats))
}

fn rx(stats: LinkStats) -> Amount {
    Amount { packets: stats.rx_packets, bytes: stats.rx_bytes }
}

fn tx(stats: LinkStats) -> Amount {
    Amount { packets: stats.tx_packets, bytes: stats.tx_bytes }
}

/// The guest says of each kind what the tap says, and nothing is dropped that it should have got.
fn agrees(tap: Tap, vnet: bool) -> Result<()> {
    let Tap { mut vm, link } = tap;
    let mut sender = if vnet { Sender::vnet(&link)? } else { Sender::new(&link)? };
    for kind in taken(vnet) {
        let whole = Amount::of(COUNT, &kind.frame);
        vm.load(0, &kind.frame)?;
        let ([sent, got], stats) = over(&mut vm, &link, &kind, |vm| vm.send(0, COUNT).map(drop))?;
        assert_eq!((sent, got, rx(stats), tx(stats)), (whole, Amount::default(), whole, tx(stats)), "{}", kind.name);
        let strange = kind.name == "of no protocol" && stats.rx_dropped != COUNT;
        assert!(stats.multicast == 0 && stats.rx_errors == 0 && !strange, "{}: {stats:?}", kind.name);
        let ([sent, got], stats) = over(&mut vm, &link, &kind, |vm| {
            sender.send(&kind.frame, COUNT)?;
            vm.receive(COUNT).map(drop)
        })?;
        assert_eq!((sent, got, tx(stats)), (Amount::default(), whole, whole), "{}", kind.name);
        assert_eq!((stats.tx_dropped, stats.rx_packets), (0, 0), "{}", kind.name);
    }
    let (guest, stats) = (vm.counters()?, link.stats()?);
    assert_eq!((guest.sent(), guest.received()), (rx(stats), tx(stats)), "all kinds together");
    assert_eq!(guest.received(), sender.total());
    Ok(())
}

#[test]
fn a_guest_and_its_tap_agree_on_every_kind_of_frame() -> Result<()> {
    let Some(_host) = host("a_guest_and_its_tap_agree_on_every_kind_of_frame") else { return Ok(()) };
    agrees(Tap::new("")?, false)?;
    agrees(Tap::new(",queues=4")?, false)?;
    agrees(Tap::new(",vnet")?, true)?;
    agrees(Tap::new(",vnet,queues=3,persist")?, true)?;
    // The VMM itself in the namespace, as a jailer would have it.
    let namespace = Namespace::new()?;
    agrees(Tap::with(NicVm::start_in(&namespace, "tap0", &[])?, &namespace)?, false)
}

/// A macvtap above one end of a veth, and the other end, from which frames come.
fn macvtap(options: &str) -> Result<(NicVm, Link, Link)> {
    let namespace = Namespace::new()?;
    let (lower, peer) = Link::veth(&namespace, "veth0", "veth1")?;
    let link = lower.macvtap("macvtap0")?;
    for link in [&lower, &peer, &link] {
        link.set_mtu(9000)?;
        link.set_up()?;
    }
    link.hear_all_multicast()?;
    let nic = format!("macvtap0,macvtap,netns={}{options}", namespace.path().display());
    Ok((NicVm::start(&nic, &[])?, link, peer))
}

#[test]
fn a_guest_and_its_macvtap_agree_but_for_the_tags_it_receives() -> Result<()> {
    let Some(_host) = host("a_guest_and_its_macvtap_agree_but_for_the_tags_it_receives") else { return Ok(()) };
    for (options, vnet) in [("", false), (",queues=3", false), (",vnet", true)] {
        let (mut vm, link, peer) = macvtap(options)?;
        let mut sender = if vnet { Sender::vnet(&peer)? } else { Sender::new(&peer)? };
        for kind in taken(vnet) {
            vm.load(0, &kind.frame)?;
            let ([sent, _], stats) = over(&mut vm, &link, &kind, |vm| vm.send(0, COUNT).map(drop))?;
            assert_eq!((sent, tx(stats)), (Amount::of(COUNT, &kind.frame), sent), "{options} {}", kind.name);
            let address = link.address()?;
            let frame = if kind.group { kind.frame.clone() } else { kind.frame.clone().to_address(address) };
            let ([_, got], stats) = over(&mut vm, &link, &kind, |vm| {
                sender.send(&frame, COUNT)?;
                vm.receive(COUNT).map(drop)
            })?;
            let told = Amount { bytes: stats.rx_bytes + COUNT * kind.tag_bytes, ..rx(stats) };
            assert_eq!((got, told), (Amount::of(COUNT, &frame), got), "{options} {}", kind.name);
            assert_eq!(stats.multicast, if kind.group { COUNT } else { 0 }, "{options} {}", kind.name);
        }
    }
    Ok(())
}

#[test]
fn a_packet_that_the_queue_cannot_take_whole_is_counted_as_its_segments() -> Result<()> {
    let Some(_host) = host("a_packet_that_the_queue_cannot_take_whole_is_counted_as_its_segments") else {
        return Ok(());
    };
    let Tap { mut vm, link } = Tap::new("")?;
    let mut sender = Sender::vnet(&link)?;
    for kind in kinds().iter().filter(|kind| kind.gso) {
        let before = (vm.counters()?.received(), link.stats()?);
        sender.send(&kind.frame, 3)?;
        let segments = vm.drain()?;
        let after = link.stats()?.since(&before.1);
        let got = vm.counters()?.received();
        assert!(segments > 3 * 10, "{}: {segments}", kind.name);
        assert_eq!((segments, got.bytes - before.0.bytes), (after.tx_packets, after.tx_bytes), "{}", kind.name);
    }
    // A macvtap has counted before it segments.
    let (mut vm, link, peer) = macvtap("")?;
    let kind = kinds().into_iter().find(|kind| kind.gso).expect("a kind");
    Sender::vnet(&peer)?.send(&kind.frame.clone().to_address(link.address()?), 3)?;
    while link.stats()?.rx_packets < 3 {}
    let segments = vm.drain()?;
    assert!(segments > 3 * 10, "{segments}");
    assert_eq!(rx(link.stats()?), Amount::of(3, &kind.frame));
    Ok(())
}

#[test]
fn what_a_full_or_dead_interface_drops_is_where_it_is_said_to_be() -> Result<()> {
    let Some(_host) = host("what_a_full_or_dead_interface_drops_is_where_it_is_said_to_be") else { return Ok(()) };
    let kind = kinds().remove(0);
    let Tap { mut vm, link } = Tap::new("")?;
    let mut sender = Sender::new(&link)?;
    sender.send(&kind.frame, 2_000)?;
    let waiting = link.stats()?;
    assert_eq!(waiting.tx_packets, 0, "nothing is read yet");
    let read = vm.drain()?;
    let stats = link.stats()?;
    assert_eq!((stats.tx_packets, stats.tx_packets + stats.tx_dropped), (read, 2_000), "{stats:?}");
    assert_eq!(stats.tx_dropped, waiting.tx_dropped);
    assert!(read < 2_000 && sender.refused() == 0, "{read} {sender:?}");
    // Too short or down: the write fails, and neither side counts.
    vm.load(0, &Frame { bytes: vec![0; 13], vnet: [0; 10] })?;
    let refused = vm.send(0, 5).expect_err("no Ethernet header");
    assert!(refused.to_string().contains("os error 22"), "{refused:#}");
    vm.load(0, &kind.frame)?;
    link.set_down()?;
    let refused = vm.send(0, 5).expect_err("the device is down");
    assert!(refused.to_string().contains("os error 5"), "{refused:#}");
    assert_eq!((vm.counters()?.sent(), rx(link.stats()?)), (Amount::default(), Amount::default()));
    // Deleted while the guest sends: what was taken before is what the guest says.
    link.set_up()?;
    vm.say("flood 0")?;
    while link.stats()?.rx_packets < 1_000 {}
    link.delete()?;
    // It goes down before it goes.
    let gone = vm.answer().expect_err("the device is gone").to_string();
    assert!(gone.contains("os error 5)") || gone.contains("os error 77"), "{gone}");
    let gone = vm.send(0, 1).expect_err("the device is gone").to_string();
    assert!(gone.contains("os error 77"), "{gone}");
    assert!(vm.counters()?.sent().packets >= 1_000);
    // A macvtap has counted what it could not queue, too.
    let (mut vm, link, peer) = macvtap("")?;
    Sender::new(&peer)?.send(&kind.frame.to_address(link.address()?), 2_000)?;
    // They come by way of the kernel's own queue, which a busy host may look at later.
    while link.stats()?.rx_packets < 2_000 {}
    let (stats, read) = (link.stats()?, vm.drain()?);
    assert_eq!((stats.rx_packets, stats.rx_packets - stats.rx_dropped), (2_000, read), "{stats:?}");
    assert!(read < 2_000 && stats.rx_errors == stats.rx_dropped, "{stats:?}");
    Ok(())
}

#[test]
fn two_guests_that_take_turns_on_one_tap_say_together_what_it_says() -> Result<()> {
    let Some(_host) = host("two_guests_that_take_turns_on_one_tap_say_together_what_it_says") else { return Ok(()) };
    const TURNS: u64 = 1_000;
    let namespace = Namespace::new()?;
    let link = tap::make_persistent(&namespace, "tap0", TapOptions::default())?;
    link.set_up()?;
    let nic = format!("tap0,closed,netns={}", namespace.path().display());
    let mut vms = [NicVm::start(&nic, &["--id", "a"])?, NicVm::start(&nic, &["--id", "b"])?];
    let kinds = kinds();
    for vm in &mut vms {
        vm.load(0, &kinds[0].frame)?;
        vm.load(1, &kinds[6].frame)?;
    }
    let began = std::time::Instant::now();
    let mut known = [Amount::default(); 2];
    for turn in 0..TURNS {
        let one = usize::try_from(turn % 2)?;
        let count = 1 + turn % 3;
        vms[one].ask(&format!("open;send 0 {count};send 1 1;close"))?;
        known[one].add(Amount::of(count, &kinds[0].frame));
        known[one].add(Amount::of(1, &kinds[6].frame));
    }
    eprintln!("{TURNS} handovers in {:?}", began.elapsed());
    for (vm, known) in vms.iter_mut().zip(known) {
        assert_eq!(vm.counters()?.sent(), known);
    }
    let mut sum = known[0];
    sum.add(known[1]);
    assert_eq!(rx(link.stats()?), sum);
    link.delete()
}

#[test]
fn a_flood_ends_when_told_and_is_counted_whole() -> Result<()> {
    let Some(_host) = host("a_flood_ends_when_told_and_is_counted_whole") else { return Ok(()) };
    let Tap { mut vm, link } = Tap::new(",queues=2")?;
    vm.load(3, &kinds()[2].frame)?;
    vm.say("flood 3")?;
    while link.stats()?.rx_packets < 100_000 {}
    vm.say("counters")?;
    let sent = vm.answer()?[0]["sent"].as_u64();
    vm.answer()?;
    let (guest, stats) = (vm.counters()?.sent(), link.stats()?);
    assert_eq!((Some(guest.packets), guest), (sent, rx(stats)));
    Ok(())
}
