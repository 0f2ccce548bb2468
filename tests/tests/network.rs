//! Law: bytes and packets of each VM and interface are those of the link's own statistics, to the last one, in every
//! view, and the directions are those of the guest's own program, which counts for itself.

use std::time::{Duration, Instant};

use anyhow::Result;
use kvmeter_tests::{
    agent::Agent,
    net::{kind::kinds, sender::Amount},
    skip::host,
    traffic::{Both, Told, Wired, wait_reading},
};

/// Out of the guest and into it: not the same, so that a wrong direction is seen.
const SENT: u64 = 30;
const RECEIVED: u64 = 20;

/// Every way a VM may be connected.
fn all_ways() -> Result<Vec<Wired>> {
    Ok(vec![
        Wired::tap("tap", "")?,
        Wired::tap("queues", ",queues=4")?,
        Wired::tap("vnet", ",vnet")?,
        Wired::tap("vnet-queues", ",vnet,queues=3,persist")?,
        Wired::jailed("jailed")?,
        Wired::macvtap("macvtap", "")?,
        Wired::macvtap("macvtap-queues", ",queues=3")?,
        Wired::macvtap("macvtap-vnet", ",vnet")?,
    ])
}

/// A guest reads its outer VLAN tag, of which a macvtap's link does not know on the way in.
fn untagged(guest: Both, tag_bytes: u64) -> Both {
    Both { receive: Amount { bytes: guest.receive.bytes - tag_bytes, ..guest.receive }, ..guest }
}

#[test]
fn each_kind_of_frame_counts_as_its_link_and_its_guest_count_it() -> Result<()> {
    let Some(_host) = host("each_kind_of_frame_counts_as_its_link_and_its_guest_count_it") else { return Ok(()) };
    let agent = Agent::start()?;
    let mut all = all_ways()?;
    for wired in &all {
        wired.counted(&agent)?;
    }
    let mut senders = all.iter().map(Wired::sender).collect::<Result<Vec<_>>>()?;
    let mut tags = vec![0; all.len()];
    for kind in kinds() {
        for ((wired, sender), tags) in all.iter_mut().zip(&mut senders).zip(&mut tags) {
            if kind.gso && !wired.vnet {
                continue;
            }
            wired.vm.load(0, &kind.frame)?;
            wired.vm.send(0, SENT)?;
            let reaches = kind.group || !wired.macvtap;
            let frame = kind.frame.clone();
            let frame = if reaches { frame } else { frame.to_address(wired.link.address()?) };
            wired.feed(sender, &frame, RECEIVED)?;
            *tags += if wired.macvtap { RECEIVED * kind.tag_bytes } else { 0 };
        }
        wait_reading(&agent)?;
        let scrape = agent.metrics()?;
        for (wired, tags) in all.iter_mut().zip(&tags) {
            let (told, link) = (Told::scraped(&scrape, &wired.id).all(), wired.by_link()?);
            let guest = untagged(wired.by_guest()?, *tags);
            assert_eq!((told, link), (link, guest), "{}: {}", wired.id, kind.name);
        }
    }
    ends_as(&agent, all)
}

/// Every view and the last line agree with the link, and all of it was seen as it passed.
fn ends_as(agent: &Agent, all: Vec<Wired>) -> Result<()> {
    for wired in all {
        let told = Told::shown(agent, &wired.id)?;
        assert_eq!(told.all(), wired.by_link()?, "{}", wired.id);
        assert_eq!(told.class("unclassified"), Both::default(), "{}: nothing passed before", wired.id);
        assert!(told.class("non_ip").receive.packets > 0, "{}", wired.id);
        let Wired { id, vm, .. } = wired;
        drop(vm);
        assert_eq!(Told::of_line(&agent.stop_line(&id)?)?, told, "{id}: its last line");
        assert_eq!(Told::shown(agent, &id)?, told, "{id}: its series stay for a while");
    }
    agent.verify()
}

#[test]
fn a_packet_that_is_cut_for_the_guest_counts_as_the_link_counts_it() -> Result<()> {
    let Some(_host) = host("a_packet_that_is_cut_for_the_guest_counts_as_the_link_counts_it") else { return Ok(()) };
    let agent = Agent::start()?;
    for mut wired in [Wired::tap("cut", "")?, Wired::macvtap("cut-macvtap", "")?] {
        wired.counted(&agent)?;
        let mut sender = kvmeter_tests::net::sender::Sender::vnet(&wired.from)?;
        let mut segments = 0;
        for kind in kinds().iter().filter(|kind| kind.gso) {
            let frame = kind.frame.clone();
            sender.send(&if wired.macvtap { frame.to_address(wired.link.address()?) } else { frame }, 3)?;
            segments += wired.vm.drain()?;
        }
        let (told, link) = (Told::shown(&agent, &wired.id)?.all(), wired.by_link()?);
        assert_eq!(told, link, "{}", wired.id);
        // A macvtap has counted it before it is cut.
        let packets = if wired.macvtap { 9 } else { segments };
        assert_eq!(link.receive.packets, packets, "{}", wired.id);
        assert!(segments > 90, "{segments}");
    }
    Ok(())
}

#[test]
fn a_million_packets_each_way_are_told_to_the_last_one() -> Result<()> {
    let Some(_host) = host("a_million_packets_each_way_are_told_to_the_last_one") else { return Ok(()) };
    println!("{}", many(1_000_000)?);
    Ok(())
}

/// The same of as many as `KVMETER_PACKETS` says: `cargo xtask packets`.
#[test]
#[ignore = "takes minutes; cargo xtask packets runs it"]
fn many_packets_each_way_are_told_to_the_last_one() -> Result<()> {
    let Some(_host) = host("many_packets_each_way_are_told_to_the_last_one") else { return Ok(()) };
    let count = std::env::var("KVMETER_PACKETS").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000_000);
    println!("{}", many(count)?);
    Ok(())
}

/// So many frames each way through a tap with four queues, a sixteenth of each kind that it takes whole; the table.
fn many(count: u64) -> Result<String> {
    let agent = Agent::start()?;
    let mut wired = Wired::tap("many", ",vnet,queues=4")?;
    wired.vm.set_patience(Duration::from_secs(3_600))?;
    wired.counted(&agent)?;
    let mut sender = wired.sender()?;
    let kinds = kinds();
    let each = count / kinds.len() as u64;
    let began = Instant::now();
    for kind in &kinds {
        wired.vm.load(0, &kind.frame)?;
        wired.vm.send(0, each)?;
    }
    let sent = began.elapsed();
    let began = Instant::now();
    for kind in &kinds {
        wired.feed(&mut sender, &kind.frame, each)?;
    }
    let received = began.elapsed();
    let told = Told::shown(&agent, "many")?.all();
    let (link, guest) = (wired.by_link()?, wired.by_guest()?);
    let mut table = String::new();
    for (word, side, took) in [
        ("transmit", (|both: &Both| both.transmit) as fn(&Both) -> Amount, sent),
        ("receive", |both: &Both| both.receive, received),
    ] {
        for (who, both) in [("kvmeter", &told), ("link", &link), ("guest", &guest)] {
            let Amount { packets, bytes } = side(both);
            table += &format!("{word:9} {who:8} {packets:>12} packets {bytes:>16} bytes   ({took:.0?})\n");
        }
    }
    assert_eq!((told, told), (link, guest), "\n{table}");
    assert_eq!((told.transmit.packets, told.receive.packets), (each * 16, each * 16));
    drop(wired);
    assert_eq!(Told::of_line(&agent.stop_line("many")?)?.all(), told);
    agent.verify()?;
    Ok(table)
}
