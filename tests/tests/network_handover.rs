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

const PATIENCE: Duration = Duration::from_secs(20);
const DROPPED: &str = "kvmeter_vm_network_dropped_packets_total";

/// Two VMs that may open one persistent tap, and what passed in the hands of each by their own programs.
struct Turns {
    vms: [NicVm; 2],
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
        let mut turns = Self { vms, link, sender, busy: 0 };
        turns.vms[0].ask("open")?;
        agent.wait_until("the tap to be counted", PATIENCE, |agent| {
            let labels = [("vm_id", IDS[0]), ("observed", "true")];
            Ok(agent.metrics()?.one("kvmeter_vm_network_interfaces", &labels) == Some(1.0))
        })?;
        turns.vms[0].ask("send 0 1;close")?;
        Ok(turns)
    }

    /// One VM takes the tap, sends, receives what is sent to it from then on, and lets go.
    fn one(&mut self, turn: u64) -> Result<()> {
        let vm = &mut self.vms[usize::try_from(turn % 2)?];
        let end = Instant::now() + PATIENCE;
        while let Err(error) = vm.ask("open") {
            // Whoever asks a file which interface it stands for holds it for that moment.
            if Instant::now() > end || !format!("{error:#}").contains("busy") {
                return Err(error);
            }
            self.busy += 1;
        }
        let received = u64::from(turn % 5 < 2);
        vm.ask(&format!("send 0 {}", 1 + turn % 3))?;
        while received > 0 && !self.link.is_operational()? {
            if Instant::now() > end {
                bail!("its carrier does not come");
            }
        }
        self.sender.send(&kinds()[0].frame, received)?;
        vm.ask(&format!("receive {received};close"))?;
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

fn shared(agent: &Agent) -> Result<f64> {
    let lost = agent.metrics()?.one("kvmeter_events_lost_total", &[("stage", "network_writer")]);
    lost.context("no count of packets that could not be told apart")
}

#[test]
fn a_thousand_handovers_of_a_tap_leave_each_vm_what_it_sent_and_lose_nothing() -> Result<()> {
    let Some(_host) = host("a_thousand_handovers_of_a_tap_leave_each_vm_what_it_sent_and_lose_nothing") else {
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
    assert_eq!((told.map(|both| both.transmit), shared(&agent)?), (known.map(|both| both.transmit), 0.0));
    // What comes for a VM before its first packet is known may be nobody's for that moment; it is not another's, but
    // around the moments at which the agent stood still.
    let nobodys = agent.metrics()?.one("kvmeter_network_unowned_packets_total", &[("direction", "receive")]);
    let nobodys = nobodys.context("no count of what is nobody's")?;
    let packets = |all: &[Both; 2]| all[0].receive.packets + all[1].receive.packets;
    println!("{} of {} received packets were nobody's", nobodys, packets(&known));
    assert_eq!(packets(&told) as f64 + nobodys, packets(&known) as f64, "none is lost or doubled");
    for (told, known) in told.iter().zip(&known) {
        assert!(told.receive.packets <= known.receive.packets + 10, "{told:?} {known:?}");
        assert!(told.receive.packets * 10 >= known.receive.packets * 9, "{told:?} {known:?}");
    }
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
fn handovers_while_the_agent_is_stopped_leave_each_vm_what_it_sent_and_lose_nothing() -> Result<()> {
    const TEST: &str = "handovers_while_the_agent_is_stopped_leave_each_vm_what_it_sent_and_lose_nothing";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let mut turns = Turns::new(&agent)?;
    agent.signal(Signal::SIGSTOP)?;
    for turn in 1..=100 {
        turns.one(turn)?;
    }
    agent.signal(Signal::SIGCONT)?;
    let known = turns.known()?;
    let told = [Told::shown(&agent, IDS[0])?.all(), Told::shown(&agent, IDS[1])?.all()];
    // Each of the two goes on with the account it had.
    assert_eq!((told.map(|both| both.transmit), shared(&agent)?), (known.map(|both| both.transmit), 0.0));
    // Whose the received ones are is not always known: what stood open when the agent stopped is nobody's until it reads.
    let nobodys = agent.metrics()?.one("kvmeter_network_unowned_packets_total", &[("direction", "receive")]);
    let told = (told[0].receive.packets + told[1].receive.packets) as f64 + nobodys.context("no count")?;
    assert_eq!(told, (known[0].receive.packets + known[1].receive.packets) as f64, "none is lost or doubled");
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
