//! Law: traffic is in the class of its far end's address, longest prefix first, and each class holds what was counted by
//! the frames' own marks. A change of the classes loses no packet, and no class's number ever falls.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use kvmeter_tests::{
    agent::{Agent, Setup},
    net::{
        frame::Frame,
        sender::{Amount, Sender},
    },
    skip::host,
    traffic::{Both, Told, Wired},
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(60);
const CLASSES: &str = "[network.classes]\ninternal = [\"10.0.0.0/8\", \"fd00::/8\"]\n\
                       peering = [\"10.1.0.0/16\", \"192.0.2.7/32\", \"fd00:1::/32\"]\nnear = [\"10.1.2.0/31\", \"fd00:1::1/128\"]\n";
/// Addresses of the far end, and their class.
const FAR: [(&str, &str); 12] = [
    ("10.0.0.1", "internal"),
    ("10.255.255.255", "internal"),
    ("10.1.0.1", "peering"),
    ("10.1.2.1", "near"),
    ("10.1.2.2", "peering"),
    ("192.0.2.7", "peering"),
    ("192.0.2.8", "external"),
    ("11.0.0.1", "external"),
    ("fd12::1", "internal"),
    ("fd00:1::1", "near"),
    ("fd00:1::2", "peering"),
    ("2001:db8::1", "external"),
];

/// From the guest to the far end, or from there to the guest.
fn frame(far: &str, mark: u8, outward: bool) -> Result<Frame> {
    let far = far.parse()?;
    // The near end is in no class, though its address may be in a prefix: here it is.
    let near = if matches!(far, std::net::IpAddr::V4(_)) { "10.1.2.0" } else { "fd00:1::1" }.parse()?;
    let (from, to) = if outward { (near, far) } else { (far, near) };
    let frame = Frame::udp(from, to, 100 + usize::from(mark));
    // Every third is in a VLAN: a tag hides nothing.
    Ok(if mark % 3 == 2 { frame.in_vlan(5) } else { frame }.marked(mark))
}

fn reload(agent: &Agent, config: &str) -> Result<()> {
    let file = agent.dir().join("kvmeter.toml");
    let old = std::fs::read_to_string(&file)?;
    let place: String = old.lines().take(3).map(|line| format!("{line}\n")).collect();
    // A reload before it must not read half of it.
    let whole = file.with_extension("new");
    std::fs::write(&whole, place + config)?;
    std::fs::rename(whole, file)?;
    agent.signal(Signal::SIGHUP)
}

fn logged(agent: &Agent, what: &str, times: usize) -> Result<()> {
    agent.wait_until(&format!("the log to say {what:?}"), PATIENCE, |a| Ok(a.log().matches(what).count() >= times))
}

/// Each class's traffic as the guest's program and the marks tell it.
fn by_marks(wired: &mut Wired, classes: &[&'static str]) -> Result<BTreeMap<&'static str, Both>> {
    let counters = wired.vm.counters()?;
    let mut sums: BTreeMap<&str, Both> = BTreeMap::new();
    for (mark, class) in classes.iter().enumerate() {
        let both = sums.entry(class).or_default();
        both.transmit.add(counters.tx[mark]);
        both.receive.add(counters.rx[mark]);
    }
    Ok(sums)
}

#[test]
fn each_class_holds_the_frames_whose_far_end_is_in_its_longest_prefix() -> Result<()> {
    let Some(_host) = host("each_class_holds_the_frames_whose_far_end_is_in_its_longest_prefix") else {
        return Ok(());
    };
    let agent = Agent::with(Setup::of(CLASSES))?;
    for mut wired in [Wired::tap("classes", ",queues=2")?, Wired::macvtap("classes-macvtap", "")?] {
        wired.counted(&agent)?;
        let mut sender = wired.sender()?;
        let address = wired.link.address()?;
        let mut classes = Vec::new();
        for (mark, (far, class)) in (0_u8..).zip(FAR) {
            wired.vm.load(0, &frame(far, mark, true)?)?;
            wired.vm.send(0, 100 + u64::from(mark))?;
            wired.feed(&mut sender, &frame(far, mark, false)?.to_address(address), 50 + u64::from(mark))?;
            classes.push(class);
        }
        let ends = ("192.0.2.1".parse()?, "198.51.100.2".parse()?);
        for (mark, frame) in [(12, Frame::arp(ends.0, ends.1)), (13, Frame::raw(60))] {
            let frame = frame.marked(mark);
            wired.vm.load(0, &frame)?;
            wired.vm.send(0, 7)?;
            wired.feed(&mut sender, &frame.to_address(address), 9)?;
            classes.push("non_ip");
        }
        let told = Told::shown(&agent, &wired.id)?;
        let tags: u64 = (0..12).filter(|mark| mark % 3 == 2).map(|mark| 4 * (50 + mark)).sum();
        assert_eq!(told.all(), wired.by_link()?, "{}", wired.id);
        let mut known = by_marks(&mut wired, &classes)?;
        if wired.macvtap {
            // Its link does not know of the outer tag on the way in: so class by class the frames alone can be compared.
            let bytes: u64 = known.values().map(|both| both.receive.bytes).sum();
            assert_eq!(told.all().receive.bytes + tags, bytes, "{}", wired.id);
            known.iter_mut().for_each(|(class, both)| both.receive.bytes = told.class(class).receive.bytes);
        }
        for (class, both) in known {
            assert_eq!(told.class(class), both, "{}: {class}", wired.id);
        }
        let id = wired.id.clone();
        drop(wired);
        assert_eq!(Told::of_line(&agent.stop_line(&id)?)?, told, "{id}: the last line");
    }
    agent.verify()
}

/// A guest that sends all the time, and its classes while it does.
fn turn(agent: &Agent, wired: &mut Wired, sender: &mut Sender, config: &str, times: usize) -> Result<()> {
    let mut before = Told::scraped(&agent.metrics()?, &wired.id);
    wired.vm.say("listen on;flood 0")?;
    reload(agent, config)?;
    agent.wait_until("the new classes", PATIENCE, |agent| {
        // Some may be dropped: they are counted all the same.
        sender.send(&frame("10.1.0.1", 1, false)?, 50)?;
        let now = Told::scraped(&agent.metrics()?, "reload");
        assert!(now.goes_on_from(&before), "{before:?} then {now:?}");
        before = now;
        Ok(agent.log().matches("the classes of traffic were changed").count() >= times)
    })?;
    wired.vm.ask("counters")?;
    wired.vm.answer()?;
    wired.vm.drain()?;
    let now = Told::shown(agent, "reload")?;
    assert!(now.goes_on_from(&before), "{before:?} then {now:?}");
    let (all, link) = (now.all(), wired.by_link()?);
    assert_eq!((all.transmit, all.receive.packets), (link.transmit, link.receive.packets), "no packet is lost");
    Ok(())
}

#[test]
fn a_change_of_the_classes_under_traffic_loses_no_packet_and_no_number_falls() -> Result<()> {
    let Some(_host) = host("a_change_of_the_classes_under_traffic_loses_no_packet_and_no_number_falls") else {
        return Ok(());
    };
    let agent = Agent::with(Setup::of(CLASSES))?;
    let mut wired = Wired::tap("reload", "")?;
    wired.counted(&agent)?;
    let mut sender = wired.sender()?;
    wired.vm.load(0, &frame("10.1.0.1", 1, true)?)?;
    wired.vm.load(1, &frame("10.0.0.1", 2, true)?)?;
    wired.vm.send(1, 1_000)?;
    // Renamed, moved to another, gone, and back under its first name.
    let changes = [
        "[network.classes]\ninternal = [\"10.0.0.0/8\", \"fd00::/8\"]\npartners = [\"10.1.0.0/16\"]\n",
        "[network.classes]\ninternal = [\"10.1.0.0/16\", \"fd00::/8\"]\npartners = [\"10.0.0.0/8\"]\n",
        "",
        CLASSES,
    ];
    let mut last = BTreeMap::new();
    for (at, (change, class)) in changes.into_iter().zip(["partners", "internal", "external", "peering"]).enumerate() {
        turn(&agent, &mut wired, &mut sender, change, at + 1)?;
        // From now on it is in the new class, to the last one.
        let before = Told::shown(&agent, "reload")?;
        wired.vm.send(0, 321)?;
        let now = Told::shown(&agent, "reload")?;
        let rise = now.class(class).transmit.packets - before.class(class).transmit.packets;
        assert_eq!(rise, 321, "{class}: {before:?} then {now:?}");
        last.insert(class, now.class(class));
    }
    let end = Told::shown(&agent, "reload")?;
    for class in ["partners", "internal", "external", "peering"] {
        assert!(last[class].transmit.packets > 0 && end.class(class).transmit.packets >= last[class].transmit.packets);
    }
    // A bad one leaves the old in force.
    for (bad, told) in
        [("external = [\"10.0.0.0/8\"]", "network.classes.external"), ("new = [\"10.0.0.0/33\"]", "10.0.0.0/33")]
    {
        reload(&agent, &format!("[network.classes]\n{bad}\n"))?;
        // Two signals on end may be one.
        logged(&agent, told, 1)?;
    }
    wired.vm.send(0, 77)?;
    let now = Told::shown(&agent, "reload")?;
    let frame = frame("10.1.0.1", 1, true)?;
    let rise = now.class("peering").transmit.bytes - end.class("peering").transmit.bytes;
    assert_eq!(rise, Amount::of(77, &frame).bytes);
    assert_eq!(now.all().transmit, wired.by_guest()?.transmit);
    reload(&agent, CLASSES)?;
    agent.verify()
}
