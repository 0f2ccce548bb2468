//! A VM's packets: what the agent tells of a tap or macvtap is what the guest's own program and the link counted, to the
//! byte, both ways, by class; and an agent that ends leaves nothing on an interface.
//!
//! Classes are told here by the frames' names: an address matched again would only agree with itself.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    check::{Bench, Verdict},
    programs::Programs,
};
use crate::{
    agent::Agent,
    metrics::Metrics,
    net::{
        hook::{Hooks, hooks},
        kind::{Kind, kinds},
        link::{Link, LinkStats},
        netns::Namespace,
        sender::{Amount, Sender},
    },
    vmm::nic::client::NicVm,
};

/// Classes for the addresses of [`kinds`]: whom a guest sends to, and from whom it gets.
pub const CLASSES: &str = r#"
[network.classes]
hosts = ["192.0.2.0/24", "2001:db8::/48"]
guests = ["198.51.100.0/24", "2001:db8:1::/48"]
groups = ["224.0.0.0/4", "ff00::/8"]
"#;

/// The row of the check that ends the agent.
pub const NOTHING_LEFT: &str = "an agent that ends leaves nothing on a VM's interface";

/// The feature.
const NETWORK: &str = "network";
const COUNT: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(30);
const RECEIVE: &str = "receive";
const TRANSMIT: &str = "transmit";

/// What passed, by direction and class.
type Traffic = BTreeMap<(&'static str, String), Amount>;

/// A VM on an interface, and where frames for it are sent.
struct Wire {
    id: &'static str,
    vm: NicVm,
    link: Link,
    sender: Sender,
    macvtap: bool,
}

/// Frames of every kind through a tap, segmentation left to do among them.
pub fn tap(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = bench.programs.absence(NETWORK) {
        return Ok(Verdict::Absent(why));
    }
    let (vm, link) = tapped("tapped")?;
    let sender = Sender::vnet(&link)?;
    exchange(&bench.agent, Wire { id: "tapped", vm, link, sender, macvtap: false })
}

/// The same through a macvtap.
pub fn macvtap(bench: &Bench) -> Result<Verdict> {
    if let Some(why) = bench.programs.absence(NETWORK) {
        return Ok(Verdict::Absent(why));
    }
    let namespace = Namespace::new()?;
    let (lower, peer) = Link::veth(&namespace, "veth0", "veth1")?;
    let link = match lower.macvtap("macvtap0") {
        Err(error) if is_unknown(&error) => {
            return Ok(Verdict::Absent(format!("this kernel has no macvtap: {error:#}")));
        }
        other => other?,
    };
    for link in [&lower, &peer, &link] {
        set_up(link)?;
    }
    link.hear_all_multicast()?;
    // The kernel does not tell where a macvtap is, so one in another namespace than its VMM is not counted.
    let vm = NicVm::start_in(&namespace, "macvtap0,macvtap,vnet", &["--id", "macvtapped"])?;
    let sender = Sender::vnet(&peer)?;
    exchange(&bench.agent, Wire { id: "macvtapped", vm, link, sender, macvtap: true })
}

/// Ends the agent while it counts a tap: no program of it stays there, and nothing that it brought for one.
pub fn nothing_left(programs: &Programs, agent: Agent) -> Result<Verdict> {
    if let Some(why) = programs.absence(NETWORK) {
        return Ok(Verdict::Absent(why));
    }
    let (mut vm, link) = tapped("left")?;
    wait_counted(&agent, "left")?;
    let during = hooks(&link)?;
    ensure!(during == Hooks::counted(), "while it counts: {during:?}");
    let (status, ..) = agent.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    let after = hooks(&link)?;
    ensure!(after == Hooks::default(), "left there: {after:?}");
    let frame = kinds().remove(0).frame;
    vm.load(0, &frame)?;
    vm.send(0, COUNT)?;
    ensure!(rx(link.stats()?) == Amount::of(COUNT, &frame), "packets do not pass any more: {:?}", link.stats()?);
    Ok(Verdict::Holds(if during.filters { "clsact" } else { "tcx" }.to_owned()))
}

/// A VM with a tap of its own, in a namespace that it and the link keep.
fn tapped(id: &str) -> Result<(NicVm, Link)> {
    let namespace = Namespace::new()?;
    let vm = NicVm::start(&format!("tap0,vnet,netns={}", namespace.path().display()), &["--id", id])?;
    let link = Link::find(&namespace, "tap0")?;
    set_up(&link)?;
    Ok((vm, link))
}

fn set_up(link: &Link) -> Result<()> {
    link.set_mtu(9000)?;
    link.set_up()
}

/// Whether the kernel knows no such kind of interface.
fn is_unknown(error: &anyhow::Error) -> bool {
    let system = error.downcast_ref::<std::io::Error>();
    system.is_some_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP))
}

fn wait_counted(agent: &Agent, id: &str) -> Result<()> {
    let counted = agent.wait_until("its interface to be counted", PATIENCE, |agent| {
        let labels = [("vm_id", id), ("observed", "true")];
        Ok(agent.metrics()?.one("kvmeter_vm_network_interfaces", &labels) == Some(1.0))
    });
    counted.with_context(|| match agent.json(&format!("/v1/vms/{id}")) {
        Ok(vm) => format!("{id}: the agent says {}", vm["network"]),
        Err(error) => format!("{id}: {error:#}"),
    })
}

/// Each kind both ways; then all counts agree.
fn exchange(agent: &Agent, mut wire: Wire) -> Result<Verdict> {
    wait_counted(agent, wire.id)?;
    let (mut due, address) = (Traffic::new(), wire.link.address()?);
    for kind in kinds() {
        send_both_ways(&mut wire, &kind, address).context(kind.name)?;
        let sent = Amount::of(COUNT, &kind.frame);
        due.entry((TRANSMIT, class(&kind, TRANSMIT).to_owned())).or_default().add(sent);
        // A macvtap counts what it receives without the outer tag, which is put back for the reader.
        let untagged = if wire.macvtap { COUNT * kind.tag_bytes } else { 0 };
        let got = Amount { bytes: sent.bytes - untagged, ..sent };
        due.entry((RECEIVE, class(&kind, RECEIVE).to_owned())).or_default().add(got);
    }
    let (guest, stats) = (wire.vm.counters()?, wire.link.stats()?);
    let (out, into) = if wire.macvtap { (tx(stats), rx(stats)) } else { (rx(stats), tx(stats)) };
    ensure!(guest.sent() == out, "the guest sent {:?}, the link says {out:?}", guest.sent());
    let tags: u64 = if wire.macvtap { kinds().iter().map(|kind| COUNT * kind.tag_bytes).sum() } else { 0 };
    let received = Amount { bytes: into.bytes + tags, ..into };
    ensure!(guest.received() == received, "the guest received {:?}, the link says {into:?}", guest.received());
    ensure!(sum(&due, TRANSMIT) == out && sum(&due, RECEIVE) == into, "{due:?}, the link says {out:?}, {into:?}");
    // A reading that is not there in time is told a sample later; what is told too much stays.
    let packets = |traffic: &Traffic| traffic.values().map(|amount| amount.packets).sum::<u64>();
    let waited = agent.wait_until("every packet to be told", PATIENCE, |agent| {
        Ok(packets(&told(&agent.metrics()?, wire.id)) >= packets(&due))
    });
    agent.wait_samples(1)?;
    let told = told(&agent.metrics()?, wire.id);
    ensure!(told == due, "told {told:?}, passed {due:?}");
    waited?;
    Ok(Verdict::Holds(format!("{} packets, {} bytes out, {} in, by class", out.packets, out.bytes, into.bytes)))
}

fn send_both_ways(wire: &mut Wire, kind: &Kind, address: [u8; 6]) -> Result<()> {
    wire.vm.load(0, &kind.frame)?;
    let sent = wire.vm.send(0, COUNT)?;
    let frame = if wire.macvtap && !kind.group && kind.frame.bytes[0] & 1 == 0 {
        kind.frame.clone().to_address(address)
    } else {
        kind.frame.clone()
    };
    let accepted = wire.sender.send(&frame, COUNT)?;
    let received = wire.vm.receive(COUNT)?;
    ensure!((sent, accepted, received) == (COUNT, COUNT, COUNT), "{sent} sent, {accepted} taken, {received} received");
    Ok(())
}

/// The class of a kind of frame by [`CLASSES`], and where nothing there matches.
fn class(kind: &Kind, direction: &str) -> &'static str {
    match (kind.name, direction) {
        ("ARP" | "of no protocol" | "runt", _) => "non_ip",
        // It ends before the destination, and behind the source.
        ("cut IPv4 header", TRANSMIT) => "external",
        (_, RECEIVE) => "hosts",
        (name, _) if name.contains("multicast") => "groups",
        _ => "guests",
    }
}

/// What the agent says of a VM; classes without a packet are left out.
fn told(scrape: &Metrics, id: &str) -> Traffic {
    let mut all = Traffic::new();
    for direction in [TRANSMIT, RECEIVE] {
        let labels = [("vm_id", id), ("direction", direction)];
        for series in scrape.all("kvmeter_vm_network_packets_total", &labels).filter(|series| series.value > 0.0) {
            let class = series.labels.get("class").cloned().unwrap_or_default();
            let labels = [labels[0], labels[1], ("class", class.as_str())];
            let number = |name| scrape.bytes(name, &labels).unwrap_or_default();
            let amount = Amount {
                packets: number("kvmeter_vm_network_packets_total"),
                bytes: number("kvmeter_vm_network_bytes_total"),
            };
            all.insert((direction, class), amount);
        }
    }
    all
}

fn sum(traffic: &Traffic, direction: &str) -> Amount {
    let mut sum = Amount::default();
    traffic.iter().filter(|((way, _), _)| *way == direction).for_each(|(_, amount)| sum.add(*amount));
    sum
}

fn rx(stats: LinkStats) -> Amount {
    Amount { packets: stats.rx_packets, bytes: stats.rx_bytes }
}

fn tx(stats: LinkStats) -> Amount {
    Amount { packets: stats.tx_packets, bytes: stats.tx_bytes }
}
