//! Law: however often agents end and come back under load, nothing drifts: CPU is what the process's own clock says, bytes
//! are the link's, the guest's and each class's. `cargo xtask restarts` does it a thousand times.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ended::{end, hold},
    ledger::only,
    net::kind::kinds,
    pins::Bpffs,
    process::LAST_SLICES_NS,
    skip::host,
    traffic::{Both, Told, Wired},
    vmm::spawn::TestVm,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const FAR: &str = "[ledger]\nheartbeat = \"1s\"\n[network.classes]\nfar = [\"198.51.100.0/24\", \"192.0.2.0/24\"]\n";
/// Another table of classes: an agent with it puts programs of its own in the place of all that are there.
const NEAR: &str = "[ledger]\nheartbeat = \"1s\"\n[network.classes]\nfar = [\"198.51.100.0/24\", \"192.0.2.0/24\"]\n\
    near = [\"10.0.0.0/8\"]\n";

fn pinned(bpffs: &Bpffs, dir: Option<TempDir>, config: &str) -> Result<Agent> {
    Agent::with(Setup { dir, pins: Some(bpffs.dir()), ..Setup::of(config) })
}

/// How one agent ends, and whether the next one takes over with other programs.
#[derive(Clone, Copy)]
struct Round {
    killed: bool,
    other: bool,
}

/// `takeovers` spread over `restarts`, two of three ends by SIGKILL.
fn rounds(restarts: u64, takeovers: u64) -> impl Iterator<Item = Round> {
    let all = restarts + takeovers;
    (0..all).map(move |at| Round { killed: at % 3 != 2, other: (at + 1) * takeovers / all > at * takeovers / all })
}

/// Ends agents and starts others, traffic and CPU time going on; the figures.
fn run(restarts: u64, takeovers: u64) -> Result<String> {
    let bpffs = Bpffs::mount()?;
    let mut config = FAR;
    let mut agent = pinned(&bpffs, None, config)?;
    let mut busy = TestVm::start(&["--id", "busy", "--duty", "25"])?;
    let (mut sends, mut takes) = (Wired::tap("sends", ",queues=2")?, Wired::tap("takes", "")?);
    for wired in [&sends, &takes] {
        wired.counted(&agent)?;
    }
    let frame = kinds()[0].frame.clone();
    sends.vm.load(0, &frame)?;
    sends.vm.say("flood 0")?;
    let mut sender = takes.sender()?;
    let (began, mut down, mut done) = (Instant::now(), Duration::ZERO, (0, 0));
    for round in rounds(restarts, takeovers) {
        takes.feed(&mut sender, &frame, 40)?;
        let dir = if round.killed { agent.kill()? } else { agent.stop()?.2 };
        let dead = Instant::now();
        takes.feed(&mut sender, &frame, 40)?;
        if round.other {
            config = if config == FAR { NEAR } else { FAR };
        }
        agent = pinned(&bpffs, Some(dir), config)?;
        down += dead.elapsed();
        done = (done.0 + u64::from(!round.other), done.1 + u64::from(round.other));
        if (done.0 + done.1) % 100 == 0 {
            eprintln!("{} restarts, {} takeovers, {:.0?}", done.0, done.1, began.elapsed());
        }
    }
    sends.vm.ask("counters")?;
    sends.vm.answer()?;
    let took = began.elapsed();
    let mut table = format!("{} restarts, {} takeovers in {took:.0?}, no agent for {down:.0?}\n", done.0, done.1);
    for wired in [&mut sends, &mut takes] {
        let (link, guest) = (wired.by_link()?, wired.by_guest()?);
        agent.wait_until("every packet to be told", PATIENCE, |agent| {
            let told = Told::scraped(&agent.metrics()?, &wired.id).all();
            Ok(told.receive.packets + told.transmit.packets >= link.receive.packets + link.transmit.packets)
        })?;
        let told = Told::shown(&agent, &wired.id)?;
        table += &format!("{}: told {:?}\n    link {link:?}\n", wired.id, told.all());
        ensure!(
            told.all() == link && told.all() == guest && told.class("far") == link,
            "{table}{told:?}, guest {guest:?}"
        );
        ensure!(told.class("unclassified") == Both::default(), "{table}{told:?}");
    }
    let truth = end(&mut busy)?;
    let life = agent.ended("busy")?;
    hold("busy", &life, &truth, LAST_SLICES_NS)?;
    table += &format!("busy: {} ns of CPU, the process's own clock to {} µs\n", life.cpu_ns()?, LAST_SLICES_NS / 1_000);
    for wired in [sends, takes] {
        let (id, link) = (wired.id.clone(), wired.by_link()?);
        drop(wired);
        assert_eq!(Told::of_line(&agent.stop_line(&id)?)?.all(), link, "{id}");
        only(&agent.ledger()?, &id)?;
    }
    let lines = agent.ledger()?;
    let ups = lines.iter().filter(|line| line["kind"] == "agent.up").count();
    // One that is killed before its first line is durable has none; an orderly end leaves one.
    let (all, orderly) = (restarts + takeovers + 1, (restarts + takeovers) / 3);
    ensure!(
        (orderly..=all).contains(&u64::try_from(ups)?),
        "{ups} lines of {all} agents, {orderly} of which were stopped"
    );
    ensure!(lines.iter().all(|line| line["kind"] != "agent.gap"), "nothing was lost");
    let scrape = agent.metrics()?;
    assert_eq!(scrape.sum("kvmeter_sample_errors_total", &[("source", "regression")]), 0.0);
    agent.verify()?;
    Ok(table)
}

#[test]
fn ten_agents_one_after_another_leave_no_drift() -> Result<()> {
    let Some(_host) = host("ten_agents_one_after_another_leave_no_drift") else { return Ok(()) };
    eprintln!("{}", run(8, 2)?);
    Ok(())
}

/// The same of as many as `KVMETER_RESTARTS` and `KVMETER_TAKEOVERS` say: `cargo xtask restarts`.
#[test]
#[ignore = "takes half an hour; cargo xtask restarts runs it"]
fn a_thousand_agents_one_after_another_leave_no_drift() -> Result<()> {
    let Some(_host) = host("a_thousand_agents_one_after_another_leave_no_drift") else { return Ok(()) };
    let told = |name: &str| -> Result<u64> { Ok(std::env::var(name).with_context(|| format!("no {name}"))?.parse()?) };
    println!("{}", run(told("KVMETER_RESTARTS")?, told("KVMETER_TAKEOVERS")?)?);
    Ok(())
}
