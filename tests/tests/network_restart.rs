//! Law: an agent that comes later, or again, tells each packet once: what passed without it is `unclassified`, what an
//! earlier one told stays where it was told, the sum is the link's own, and no number falls.
//!
//! Not kept as long as counting stops with the agent: the class of what passes meanwhile, and what a killed agent counted
//! after its last ledger line keeps no class either. A persistent tap that had earlier holders tells nobody's past.

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::{only, verify_in},
    net::kind::kinds,
    skip::host,
    traffic::{Both, Told, Wired},
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const CONFIG: &str = "[ledger]\nheartbeat = \"1s\"\n[network.classes]\nfar = [\"198.51.100.0/24\", \"192.0.2.0/24\"]\n";

/// So many frames each way, of a class and of none.
fn pass(wired: &mut Wired, count: u64) -> Result<()> {
    let mut sender = wired.sender()?;
    let address = wired.link.address()?;
    for kind in [&kinds()[0], &kinds()[6]] {
        wired.vm.load(0, &kind.frame)?;
        wired.vm.send(0, count)?;
        wired.feed(&mut sender, &kind.frame.clone().to_address(address), count + 1)?;
    }
    Ok(())
}

#[test]
fn what_passed_before_the_agent_came_is_unclassified_and_the_sum_is_the_links() -> Result<()> {
    let Some(_host) = host("what_passed_before_the_agent_came_is_unclassified_and_the_sum_is_the_links") else {
        return Ok(());
    };
    let mut all =
        [Wired::tap("early", ",queues=2")?, Wired::jailed("early-jailed")?, Wired::macvtap("early-macvtap", "")?];
    let mut before = Vec::new();
    for wired in &mut all {
        pass(wired, 500)?;
        before.push(wired.by_link()?);
    }
    let agent = Agent::with(Setup::of(CONFIG))?;
    for (wired, before) in all.iter_mut().zip(before) {
        wired.counted(&agent)?;
        pass(wired, 300)?;
        // A reading that is not there in time is told a sample later; what is told too much stays.
        let due = wired.by_link()?;
        let packets = |both: Both| both.receive.packets + both.transmit.packets;
        agent.wait_until("every packet to be told", PATIENCE, |agent| {
            Ok(packets(Told::scraped(&agent.metrics()?, &wired.id).all()) >= packets(due))
        })?;
        let told = Told::shown(&agent, &wired.id)?;
        assert_eq!((told.all(), told.class("unclassified")), (due, before), "{}", wired.id);
        assert_eq!(told.class("far").transmit.packets, 300, "{}", wired.id);
        assert_eq!(told.class("non_ip").receive.packets, 301, "{}", wired.id);
    }
    for wired in all {
        let (id, link) = (wired.id.clone(), wired.by_link()?);
        drop(wired);
        assert_eq!(Told::of_line(&agent.stop_line(&id)?)?.all(), link, "{id}");
    }
    agent.verify()
}

/// The agent ends one way or the other under load, and the next one goes on.
fn over_a_restart(id: &str, end: impl FnOnce(Agent) -> Result<tempfile::TempDir>) -> Result<()> {
    let agent = Agent::with(Setup::of(CONFIG))?;
    let mut wired = Wired::tap(id, ",queues=2")?;
    wired.counted(&agent)?;
    pass(&mut wired, 400)?;
    // The flood is of a class, and goes on until the next agent counts.
    wired.vm.load(1, &kinds()[0].frame)?;
    wired.vm.say("flood 1")?;
    agent.wait_until("heartbeats", PATIENCE, |a| {
        Ok(only(&a.ledger()?, id)?
            .usage
            .iter()
            .any(|line| Told::of_line(line).is_ok_and(|t| t.class("far") != Both::default())))
    })?;
    let dir = end(agent)?;
    let lines = kvmeter_tests::ledger::ledger_in(dir.path())?;
    let written = Told::of_line(only(&lines, id)?.usage.last().context("no heartbeat")?)?;
    let passed = wired.link.stats()?.rx_packets;
    while wired.link.stats()?.rx_packets < passed + 10_000 {}
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::of(CONFIG) })?;
    let mut last = written.clone();
    wired.counted(&agent)?;
    for _ in 0..3 {
        agent.wait_samples(1)?;
        let now = Told::scraped(&agent.metrics()?, id);
        assert!(now.goes_on_from(&last), "{last:?} then {now:?}");
        last = now;
    }
    wired.vm.ask("counters")?;
    wired.vm.answer()?;
    let quiet = Told::shown(&agent, id)?;
    assert!(quiet.goes_on_from(&last), "{last:?} then {quiet:?}");
    assert_eq!((quiet.all(), quiet.all()), (wired.by_link()?, wired.by_guest()?), "nothing is lost or doubled");
    assert!(quiet.class("unclassified").transmit.packets >= 10_000, "what passed without an agent: {quiet:?}");
    // From now on each class is exact again.
    pass(&mut wired, 200)?;
    let end = Told::shown(&agent, id)?;
    for (class, transmit) in [("far", 200), ("non_ip", 200), ("unclassified", 0)] {
        let rise = end.class(class).transmit.packets - quiet.class(class).transmit.packets;
        assert_eq!(rise, transmit, "{class}");
    }
    drop(wired);
    assert_eq!(Told::of_line(&agent.stop_line(id)?)?, end);
    only(&agent.ledger()?, id)?;
    let (_, _, dir) = agent.stop()?;
    verify_in(dir.path())
}

#[test]
fn an_agent_that_is_restarted_under_load_loses_and_doubles_nothing() -> Result<()> {
    let Some(_host) = host("an_agent_that_is_restarted_under_load_loses_and_doubles_nothing") else { return Ok(()) };
    over_a_restart("restarted", |agent| agent.stop().map(|(_, _, dir)| dir))
}

#[test]
fn an_agent_that_is_killed_under_load_loses_and_doubles_nothing() -> Result<()> {
    let Some(_host) = host("an_agent_that_is_killed_under_load_loses_and_doubles_nothing") else { return Ok(()) };
    over_a_restart("killed", Agent::kill)
}
