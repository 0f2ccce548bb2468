//! Law: the agent's death is not a VM's death, nor its traffic's: what passes through VMs' interfaces while no agent runs is
//! counted by class, and told to the byte by the next one, once. The truths are the link's own statistics and what the
//! guest's program counted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::{number, only},
    net::{
        hook::{Hooks, hooks},
        kind::kinds,
        link::Link,
    },
    pins::Bpffs,
    skip::{host, in_full},
    traffic::{Both, Told, Wired},
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long no agent runs in the long form.
const MINUTE: Duration = Duration::from_secs(60);
const CONFIG: &str = "[ledger]\nheartbeat = \"1s\"\n[network.classes]\nfar = [\"198.51.100.0/24\", \"192.0.2.0/24\"]\n";
/// The same traffic by other classes.
const OTHER: &str = "[ledger]\nheartbeat = \"1s\"\n[network.classes]\nfar = [\"198.51.100.0/24\", \"192.0.2.0/24\"]\n\
    near = [\"10.0.0.0/8\"]\n";
/// Kinds of frames: of class `far`, and of `non_ip`.
const FAR: usize = 0;
const NON_IP: usize = 6;

fn pinned(bpffs: &Bpffs, dir: Option<TempDir>, config: &str) -> Result<Agent> {
    Agent::with(Setup { dir, pins: Some(bpffs.dir()), ..Setup::of(config) })
}

/// So many frames each way, of a class and of none.
fn pass(wired: &mut Wired, count: u64) -> Result<()> {
    let mut sender = wired.sender()?;
    let address = wired.link.address()?;
    for kind in [FAR, NON_IP].map(|kind| kinds()[kind].frame.clone()) {
        wired.vm.load(0, &kind)?;
        wired.vm.send(0, count)?;
        wired.feed(&mut sender, &kind.to_address(address), count + 1)?;
    }
    Ok(())
}

/// Waits until so many more frames of the guest have passed.
fn flow(link: &Link, frames: u64) -> Result<()> {
    let (begun, end) = (link.stats()?.rx_packets, Instant::now() + PATIENCE);
    while link.stats()?.rx_packets < begun + frames {
        ensure!(Instant::now() < end, "no traffic");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// What the guest itself says of one kind.
fn of_kind(wired: &mut Wired, kind: usize) -> Result<Both> {
    let counters = wired.vm.counters()?;
    Ok(Both { receive: counters.rx[kind], transmit: counters.tx[kind] })
}

/// Everything that passed is told, by class, by everybody alike. To be asked while nothing moves.
fn is_whole(wired: &mut Wired, told: &Told) -> Result<()> {
    let (all, by_link, by_guest) = (told.all(), wired.by_link()?, wired.by_guest()?);
    ensure!(all == by_link && all == by_guest, "{}: {told:?}, link {by_link:?}, guest {by_guest:?}", wired.id);
    for (class, kind) in [("far", FAR), ("non_ip", NON_IP)] {
        let due = of_kind(wired, kind)?;
        ensure!(told.class(class) == due, "{}: {class}: {told:?}, guest {due:?}", wired.id);
    }
    ensure!(told.class("unclassified") == Both::default(), "{}: {told:?}", wired.id);
    Ok(())
}

/// Waits until a view tells as much as the link does, then looks again a sample later: what is told too much stays.
fn shown(agent: &Agent, wired: &Wired) -> Result<Told> {
    let due = wired.by_link()?;
    let packets = |both: Both| both.receive.packets + both.transmit.packets;
    agent.wait_until("every packet to be told", PATIENCE, |agent| {
        Ok(packets(Told::scraped(&agent.metrics()?, &wired.id).all()) >= packets(due))
    })?;
    Told::shown(agent, &wired.id)
}

fn wait_heartbeat(agent: &Agent, id: &str) -> Result<()> {
    agent.wait_until("a heartbeat with traffic", PATIENCE, |agent| {
        let life = only(&agent.ledger()?, id)?;
        Ok(life.usage.iter().any(|line| Told::of_line(line).is_ok_and(|told| told.class("far") != Both::default())))
    })
}

/// Agents end in this way under a flood, each time with traffic while none runs; each class stays whole.
fn over(id: &str, configs: [&str; 3], mut end: impl FnMut(Agent) -> Result<TempDir>) -> Result<()> {
    let bpffs = Bpffs::mount()?;
    let mut agent = pinned(&bpffs, None, configs[0])?;
    let mut wired = Wired::tap(id, ",queues=2")?;
    wired.counted(&agent)?;
    pass(&mut wired, 400)?;
    wired.vm.load(1, &kinds()[FAR].frame)?;
    wired.vm.say("flood 1")?;
    wait_heartbeat(&agent, id)?;
    for config in configs.into_iter().skip(1) {
        let dir = end(agent)?;
        flow(&wired.link, 10_000)?;
        if in_full() {
            std::thread::sleep(MINUTE);
        }
        // The flood ends with the next line.
        wired.vm.ask("counters")?;
        wired.vm.answer()?;
        pass(&mut wired, 300)?;
        wired.vm.say("flood 1")?;
        agent = pinned(&bpffs, Some(dir), config)?;
        flow(&wired.link, 10_000)?;
    }
    wired.vm.ask("counters")?;
    wired.vm.answer()?;
    let told = shown(&agent, &wired)?;
    is_whole(&mut wired, &told)?;
    pass(&mut wired, 200)?;
    let told = shown(&agent, &wired)?;
    is_whole(&mut wired, &told)?;
    drop(wired);
    assert_eq!(Told::of_line(&agent.stop_line(id)?)?, told);
    only(&agent.ledger()?, id)?;
    let scrape = agent.metrics()?;
    assert_eq!(scrape.sum("kvmeter_network_unowned_packets_total", &[]), 0.0);
    assert_eq!(scrape.sum("kvmeter_sample_errors_total", &[("source", "regression")]), 0.0);
    agent.verify()
}

#[test]
fn traffic_is_told_to_the_byte_by_class_over_agents_that_are_killed() -> Result<()> {
    let Some(_host) = host("traffic_is_told_to_the_byte_by_class_over_agents_that_are_killed") else { return Ok(()) };
    over("killed", [CONFIG; 3], Agent::kill)
}

#[test]
fn traffic_is_told_to_the_byte_by_class_over_agents_that_end_in_order() -> Result<()> {
    let Some(_host) = host("traffic_is_told_to_the_byte_by_class_over_agents_that_end_in_order") else {
        return Ok(());
    };
    over("ended", [CONFIG; 3], |agent| agent.stop().map(|(_, _, dir)| dir))
}

#[test]
fn an_agent_with_other_classes_takes_over_without_a_gap() -> Result<()> {
    let Some(_host) = host("an_agent_with_other_classes_takes_over_without_a_gap") else { return Ok(()) };
    over("reclassed", [CONFIG, OTHER, CONFIG], Agent::kill)
}

#[test]
fn a_vm_whose_tap_goes_with_it_while_no_agent_runs_is_billed_its_bytes() -> Result<()> {
    let Some(_host) = host("a_vm_whose_tap_goes_with_it_while_no_agent_runs_is_billed_its_bytes") else {
        return Ok(());
    };
    let bpffs = Bpffs::mount()?;
    let agent = pinned(&bpffs, None, CONFIG)?;
    let mut all = [Wired::tap("gone", "")?, Wired::jailed("gone-jailed")?, Wired::macvtap("gone-macvtap", "")?];
    for wired in &mut all {
        wired.counted(&agent)?;
        pass(wired, 200)?;
    }
    let dir = agent.kill()?;
    let mut due = Vec::new();
    for mut wired in all {
        pass(&mut wired, 300)?;
        due.push((wired.id.clone(), wired.by_link()?, wired.by_guest()?, of_kind(&mut wired, FAR)?));
        drop(wired);
    }
    let agent = pinned(&bpffs, Some(dir), CONFIG)?;
    for (id, link, guest, far) in due {
        let stop = agent.stop_line(&id)?;
        ensure!(stop["time_quality"] == "exact", "{stop}");
        let told = Told::of_line(&stop)?;
        eprintln!("{id}: {:?} of {link:?}", told.all());
        assert_eq!((told.all(), told.all(), told.class("far")), (link, guest, far), "{id}");
    }
    // Nothing of them stays behind, once their lines are durable.
    agent.wait_until("their pins to go", PATIENCE, |_| Ok(!bpffs.pins()?.iter().any(|pin| pin.ends_with("/page"))))?;
    agent.verify()
}

#[test]
fn an_interface_that_appears_while_no_agent_runs_is_told_by_its_link() -> Result<()> {
    let Some(_host) = host("an_interface_that_appears_while_no_agent_runs_is_told_by_its_link") else {
        return Ok(());
    };
    let bpffs = Bpffs::mount()?;
    let dir = pinned(&bpffs, None, CONFIG)?.kill()?;
    let mut wired = Wired::tap("appeared", "")?;
    pass(&mut wired, 200)?;
    let before = wired.by_link()?;
    let agent = pinned(&bpffs, Some(dir), CONFIG)?;
    wired.counted(&agent)?;
    pass(&mut wired, 100)?;
    let told = shown(&agent, &wired)?;
    assert_eq!((told.all(), told.class("unclassified")), (wired.by_link()?, before));
    // What an agent told as unclassified is not told again by the next.
    let agent = pinned(&bpffs, Some(agent.kill()?), CONFIG)?;
    wired.counted(&agent)?;
    pass(&mut wired, 50)?;
    let told = shown(&agent, &wired)?;
    assert_eq!((told.all(), told.class("unclassified")), (wired.by_link()?, before));
    drop(wired);
    assert_eq!(Told::of_line(&agent.stop_line("appeared")?)?, told);
    agent.verify()
}

#[test]
fn release_leaves_no_program_on_an_interface() -> Result<()> {
    let Some(_host) = host("release_leaves_no_program_on_an_interface") else { return Ok(()) };
    let bpffs = Bpffs::mount()?;
    let agent = pinned(&bpffs, None, CONFIG)?;
    let mut wired = Wired::tap("released", "")?;
    wired.counted(&agent)?;
    pass(&mut wired, 100)?;
    wait_heartbeat(&agent, "released")?;
    let (_, _, dir) = agent.stop()?;
    let link = wired.link.clone();
    assert_eq!(hooks(&link)?, Hooks::counted(), "they go on without the agent");
    // The command needs no agent, only its configuration.
    let agent = pinned(&bpffs, Some(dir), CONFIG)?;
    let released = agent.command(&["release"])?;
    ensure!(released.status.success(), "{released:?}");
    assert_eq!(bpffs.pins()?, Vec::<String>::new());
    assert_eq!(hooks(&link)?, Hooks::counted(), "an agent that runs keeps them");
    pass(&mut wired, 100)?;
    let told = shown(&agent, &wired)?;
    is_whole(&mut wired, &told)?;
    let (_, _, dir) = agent.stop()?;
    assert_eq!(hooks(&link)?, Hooks::default());
    assert_eq!(bpffs.pins()?, Vec::<String>::new());
    // The next one begins anew, and the sum is the link's all the same.
    pass(&mut wired, 100)?;
    let agent = pinned(&bpffs, Some(dir), CONFIG)?;
    wired.counted(&agent)?;
    let told = shown(&agent, &wired)?;
    assert_eq!(told.all(), wired.by_link()?);
    ensure!(told.class("unclassified") != Both::default(), "{told:?}");
    drop(wired);
    let stop = agent.stop_line("released")?;
    ensure!(number(&stop["mono_ns"])? > 0, "{stop}");
    assert_eq!(Told::of_line(&stop)?, told);
    agent.verify()
}
