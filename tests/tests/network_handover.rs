//! Law: a packet is told on the VM that holds its interface at that moment, and on no other, whatever becomes of the
//! interface: handed over, renamed, deleted under traffic, or of a name and index that another one has too.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kvmeter_tests::{
    agent::Agent,
    net::{
        kind::kinds,
        link::Link,
        netns::Namespace,
        sender::{Amount, Sender},
        tap::{self, TapOptions},
    },
    skip::host,
    traffic::{Both, Told, Wired},
    vmm::nic::client::NicVm,
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(60);
const DROPPED: &str = "kvmeter_vm_network_dropped_packets_total";

/// Two VMs that may open one persistent tap, and what passed in the hands of each by their own programs.
struct Turns {
    vms: [NicVm; 2],
    namespace: Namespace,
    link: Link,
    sender: Sender,
    busy: u32,
}

const IDS: [&str; 2] = ["turn-a", "turn-b"];

impl Turns {
    /// The VMs live where the tap is: the agent listens there from their birth on.
    fn new(agent: &Agent) -> Result<Self> {
        let namespace = Namespace::new()?;
        let link = tap::make_persistent(&namespace, "tap0", TapOptions::default())?;
        link.set_up()?;
        let start = |id: &str| NicVm::start_in(&namespace, "tap0,closed", &["--id", id]);
        let mut vms = [start(IDS[0])?, start(IDS[1])?];
        for vm in &mut vms {
            vm.load(0, &kinds()[0].frame)?;
        }
        let sender = Sender::new(&link)?;
        agent.wait_vms(&IDS)?;
        let mut turns = Self { vms, namespace, link, sender, busy: 0 };
        turns.vms[0].ask("open")?;
        agent.wait_until("the tap to be counted", PATIENCE, |agent| {
            let labels = [("vm_id", IDS[0]), ("observed", "true")];
            Ok(agent.metrics()?.one("kvmeter_vm_network_interfaces", &labels) == Some(1.0))
        })?;
        turns.vms[0].ask("send 0 1;close")?;
        Ok(turns)
    }

    /// One VM takes the tap, sends, receives what is sent to it from then on, or the other way round, and lets go.
    fn one(&mut self, turn: u64) -> Result<()> {
        let vm = &mut self.vms[usize::try_from(turn % 2)?];
        self.busy += open(vm)?;
        let received = u64::from(turn % 5 < 2);
        let send = format!("send 0 {}", 1 + turn % 3);
        // Some receive before they ever write in their turn, and some never write in it.
        let (first, last) = match turn % 3 {
            0 => (false, true),
            1 => (true, false),
            _ => (false, received == 0),
        };
        if first {
            vm.ask(&send)?;
        }
        feed(&self.link, &mut self.sender, vm, received)?;
        if last {
            vm.ask(&send)?;
        }
        vm.ask("close")?;
        Ok(())
    }

    fn known(&mut self) -> Result<[Both; 2]> {
        let mut of = |at: usize| -> Result<Both> {
            let counters = self.vms[at].counters()?;
            Ok(Both { receive: counters.received(), transmit: counters.sent() })
        };
        Ok([of(0)?, of(1)?])
    }
}

/// Has a VM open its tap; how often it was busy.
fn open(vm: &mut NicVm) -> Result<u32> {
    let end = Instant::now() + PATIENCE;
    let mut busy = 0;
    while let Err(error) = vm.ask("open") {
        // Whoever asks a file which interface it stands for holds it for that moment.
        if Instant::now() > end || !format!("{error:#}").contains("busy") {
            return Err(error);
        }
        busy += 1;
    }
    Ok(busy)
}

/// Sends frames to a VM that has opened its tap, and waits until it has them.
fn feed(link: &Link, sender: &mut Sender, vm: &mut NicVm, count: u64) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while count > 0 && !link.is_operational()? {
        if Instant::now() > end {
            bail!("its carrier does not come");
        }
    }
    sender.send(&kinds()[0].frame, count)?;
    vm.receive(count).map(drop)
}

/// Packets that are nobody's, received and transmitted.
fn nobodys(agent: &Agent) -> Result<[f64; 2]> {
    let scrape = agent.metrics()?;
    let of = |direction| scrape.one("kvmeter_network_unowned_packets_total", &[("direction", direction)]);
    Ok([of("receive").context("no count")?, of("transmit").context("no count")?])
}

fn shared(agent: &Agent) -> Result<f64> {
    let lost = agent.metrics()?.one("kvmeter_events_lost_total", &[("stage", "network_writer")]);
    lost.context("no count of packets that could not be told apart")
}

#[test]
fn a_thousand_handovers_of_a_tap_leave_each_vm_what_it_sent_and_received() -> Result<()> {
    let Some(_host) = host("a_thousand_handovers_of_a_tap_leave_each_vm_what_it_sent_and_received") else {
        return Ok(());
    };
    let agent = Agent::start()?;
    let mut turns = Turns::new(&agent)?;
    let began = Instant::now();
    for turn in 1..=1_000 {
        turns.one(turn)?;
        if turn % 100 == 0 {
            // Late news: no more handovers than the kernel programs have accounts for.
            agent.signal(Signal::SIGSTOP)?;
            for more in 1..=4 {
                turns.one(turn + more)?;
            }
            agent.signal(Signal::SIGCONT)?;
            agent.wait_samples(1)?;
        }
    }
    println!("1,040 handovers in {:?}, {} times busy", began.elapsed(), turns.busy);
    let known = turns.known()?;
    let told = [Told::shown(&agent, IDS[0])?.all(), Told::shown(&agent, IDS[1])?.all()];
    let packets = |all: &[Both; 2]| all[0].receive.packets + all[1].receive.packets;
    println!("{} received packets, {:?} nobody's", packets(&known), nobodys(&agent)?);
    assert_eq!((told, shared(&agent)?, nobodys(&agent)?), (known, 0.0, [0.0; 2]));
    let stats = turns.link.stats()?;
    assert_eq!(known[0].transmit.packets + known[1].transmit.packets, stats.rx_packets);
    assert_eq!(packets(&known), stats.tx_packets);
    drop(turns);
    for (id, told) in IDS.into_iter().zip(told) {
        assert_eq!(Told::of_line(&agent.stop_line(id)?)?.all(), told, "{id}");
    }
    agent.verify()
}

#[test]
fn handovers_while_the_agent_is_stopped_leave_each_vm_what_it_sent_and_received() -> Result<()> {
    const TEST: &str = "handovers_while_the_agent_is_stopped_leave_each_vm_what_it_sent_and_received";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let mut turns = Turns::new(&agent)?;
    agent.signal(Signal::SIGSTOP)?;
    for turn in 1..=100 {
        turns.one(turn)?;
    }
    // One that nobody knew of, and that never writes.
    let start = |id: &str| NicVm::start_in(&turns.namespace, "tap0,closed", &["--id", id]);
    let mut silent = start("turn-c")?;
    open(&mut silent)?;
    feed(&turns.link, &mut turns.sender, &mut silent, 7)?;
    silent.ask("close")?;
    turns.one(101)?;
    agent.signal(Signal::SIGCONT)?;
    agent.wait_vms(&["turn-c"])?;
    let known = turns.known()?;
    let told = [Told::shown(&agent, IDS[0])?.all(), Told::shown(&agent, IDS[1])?.all()];
    assert_eq!((told, shared(&agent)?, nobodys(&agent)?), (known, 0.0, [0.0; 2]));
    let silent = Told::shown(&agent, "turn-c")?.all();
    assert_eq!((silent.receive.packets, silent.transmit.packets), (7, 0));
    Ok(())
}

#[test]
fn interfaces_of_one_name_and_index_in_two_namespaces_are_two() -> Result<()> {
    let Some(_host) = host("interfaces_of_one_name_and_index_in_two_namespaces_are_two") else { return Ok(()) };
    let agent = Agent::start()?;
    let mut all = vec![
        Wired::tap("same-a", "")?,
        Wired::tap("same-b", "")?,
        Wired::jailed("same-c")?,
        Wired::macvtap("same-d", "")?,
        Wired::macvtap("same-e", "")?,
    ];
    assert_eq!(all[0].link.index(), all[1].link.index());
    assert_eq!(all[0].link.index(), all[2].link.index());
    assert_eq!(all[3].link.index(), all[4].link.index());
    for (at, wired) in (1..).zip(&mut all) {
        wired.counted(&agent)?;
        wired.vm.load(0, &kinds()[0].frame)?;
        wired.vm.send(0, 100 * at)?;
        let mut sender = wired.sender()?;
        let frame = kinds()[1].frame.clone().to_address(wired.link.address()?);
        wired.feed(&mut sender, &frame, 1_000 + at)?;
    }
    for (at, wired) in (1..).zip(&mut all) {
        let told = Told::shown(&agent, &wired.id)?.all();
        assert_eq!((told, told), (wired.by_link()?, wired.by_guest()?), "{}", wired.id);
        assert_eq!((told.transmit.packets, told.receive.packets), (100 * at, 1_000 + at), "{}", wired.id);
    }
    let scrape = agent.metrics()?;
    assert_eq!(scrape.sum("kvmeter_network_unowned_packets_total", &[]), 0.0);
    Ok(())
}

#[test]
fn a_tap_renamed_and_deleted_under_traffic_keeps_its_totals_and_its_successor_begins_anew() -> Result<()> {
    const TEST: &str = "a_tap_renamed_and_deleted_under_traffic_keeps_its_totals_and_its_successor_begins_anew";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let namespace = Namespace::new()?;
    let mut first = Wired::tap_in(&namespace, "first", "")?;
    first.counted(&agent)?;
    first.vm.load(0, &kinds()[0].frame)?;
    first.vm.say("flood 0")?;
    let passed = |packets: u64| -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while first.link.stats()?.rx_packets < packets {
            if Instant::now() > end {
                bail!("no traffic");
            }
        }
        Ok(())
    };
    passed(10_000)?;
    first.link.rename("renamed0")?;
    passed(50_000)?;
    agent.wait_samples(1)?;
    // A successor of the name, while the first one runs.
    let mut second = Wired::tap_in(&namespace, "second", "")?;
    second.counted(&agent)?;
    first.link.delete()?;
    first.vm.answer().err().context("its tap is gone")?;
    second.vm.load(0, &kinds()[0].frame)?;
    second.vm.send(0, 33)?;
    let told = Told::shown(&agent, "first")?;
    assert_eq!(told.all(), first.vm.counters().map(|c| Both { receive: c.received(), transmit: c.sent() })?);
    assert_eq!(told.interface("tap0"), told.all(), "it goes on under the name it was taken by");
    assert_eq!(Told::shown(&agent, "second")?.all(), second.by_link()?);
    assert_eq!(second.by_link()?.transmit.packets, 33);
    drop(first);
    assert_eq!(Told::of_line(&agent.stop_line("first")?)?, told);
    agent.verify()
}

#[test]
fn what_a_full_interface_drops_is_received_and_told_as_dropped() -> Result<()> {
    let Some(_host) = host("what_a_full_interface_drops_is_received_and_told_as_dropped") else { return Ok(()) };
    const COUNT: u64 = 3_000;
    let agent = Agent::start()?;
    for mut wired in [Wired::tap("full", "")?, Wired::macvtap("full-macvtap", "")?] {
        wired.counted(&agent)?;
        let frame = kinds()[0].frame.clone().to_address(wired.link.address()?);
        wired.sender()?.send(&frame, COUNT)?;
        // To a macvtap they come by way of the kernel's own queue, which a busy host may look at later.
        while wired.macvtap && wired.link.stats()?.rx_packets < COUNT {}
        let read = wired.vm.drain()?;
        let told = Told::shown(&agent, &wired.id)?.all();
        let stats = wired.link.stats()?;
        let dropped = if wired.macvtap { stats.rx_dropped } else { stats.tx_dropped };
        assert_eq!(told.receive, Amount::of(COUNT, &frame), "{}: with the bytes of what was dropped", wired.id);
        assert_eq!((read + dropped, wired.by_link()?.receive.packets), (COUNT, COUNT), "{}", wired.id);
        let shown = agent.metrics()?.bytes(DROPPED, &[("vm_id", &wired.id), ("direction", "receive")]);
        assert!(dropped > 0 && shown == Some(dropped), "{}: {dropped} {shown:?}", wired.id);
    }
    Ok(())
}
