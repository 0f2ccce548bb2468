//! Law: a tap that changes hands while no agent runs is never told on the wrong VM; what nobody is known for is nobody's.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    net::{
        kind::kinds,
        link::Link,
        netns::Namespace,
        sender::{Amount, Sender},
        tap::{self, TapOptions},
    },
    pins::Bpffs,
    skip::host,
    traffic::{Both, Told},
    vmm::nic::client::NicVm,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const CONFIG: &str = "[ledger]\nheartbeat = \"1s\"\n[network.classes]\nfar = [\"198.51.100.0/24\", \"192.0.2.0/24\"]\n";
/// The kind of frames that pass: of class `far`.
const FAR: usize = 0;

fn pinned(bpffs: &Bpffs, dir: Option<TempDir>, config: &str) -> Result<Agent> {
    Agent::with(Setup { dir, pins: Some(bpffs.dir()), ..Setup::of(config) })
}

fn wait_operational(link: &Link, wanted: bool) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while link.is_operational()? != wanted {
        ensure!(Instant::now() < end, "its carrier does not come, or go");
    }
    Ok(())
}

/// Has a VM open the tap, receive and send so many frames, and let go.
fn turn(vm: &mut NicVm, link: &Link, sender: &mut Sender, frames: u64) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while let Err(error) = vm.ask("open") {
        ensure!(Instant::now() < end && format!("{error:#}").contains("busy"), "{error:#}");
    }
    wait_operational(link, true)?;
    vm.load(0, &kinds()[FAR].frame)?;
    vm.send(0, frames)?;
    sender.send(&kinds()[FAR].frame, frames)?;
    vm.receive(frames)?;
    vm.ask("close").map(drop)
}

#[test]
fn a_tap_that_changes_hands_while_no_agent_runs_is_never_told_on_the_wrong_vm() -> Result<()> {
    const TEST: &str = "a_tap_that_changes_hands_while_no_agent_runs_is_never_told_on_the_wrong_vm";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let bpffs = Bpffs::mount()?;
    let agent = pinned(&bpffs, None, CONFIG)?;
    let namespace = Namespace::new()?;
    let link = tap::make_persistent(&namespace, "tap0", TapOptions::default())?;
    link.set_up()?;
    let start = |id: &str| NicVm::start_in(&namespace, "tap0,closed", &["--id", id]);
    let mut vms = [start("hands-a")?, start("hands-b")?];
    let mut sender = Sender::new(&link)?;
    agent.wait_vms(&["hands-a", "hands-b"])?;
    vms[0].ask("open")?;
    agent.wait_until("the tap to be counted", PATIENCE, |agent| {
        let labels = [("vm_id", "hands-a"), ("observed", "true")];
        Ok(agent.metrics()?.one("kvmeter_vm_network_interfaces", &labels) == Some(1.0))
    })?;
    vms[0].ask("close")?;
    turn(&mut vms[0], &link, &mut sender, 100)?;
    // That its link is down is announced behind the closing, by whoever asks for it: nobody who opens it.
    wait_operational(&link, false)?;
    let dir = agent.kill()?;
    turn(&mut vms[1], &link, &mut sender, 70)?;
    turn(&mut vms[0], &link, &mut sender, 30)?;
    // One that nobody knew of, and that is gone by the time somebody does.
    let mut brief = start("hands-c")?;
    turn(&mut brief, &link, &mut sender, 11)?;
    drop(brief);
    let agent = pinned(&bpffs, Some(dir), CONFIG)?;
    turn(&mut vms[1], &link, &mut sender, 5)?;
    let stats = link.stats()?;
    let mut sum = Both::default();
    for (id, vm) in ["hands-a", "hands-b"].into_iter().zip(&mut vms) {
        let known = vm.counters()?;
        agent.wait_until("what it sent", PATIENCE, |agent| {
            Ok(Told::scraped(&agent.metrics()?, id).all().transmit == known.sent())
        })?;
        let by_class = Told::shown(&agent, id)?;
        let told = by_class.all();
        eprintln!("{id}: {by_class:?}");
        ensure!(told.transmit == known.sent(), "{id}: {told:?}, guest {known:?}");
        ensure!(told.receive.bytes <= known.received().bytes, "{id}: {told:?}, guest {known:?}");
        sum.receive.add(told.receive);
        sum.transmit.add(told.transmit);
    }
    let stop = agent.stop_line("hands-c")?;
    let brief = Told::of_line(&stop)?.all();
    eprintln!("the brief one: {brief:?}");
    let frame = &kinds()[FAR].frame;
    assert_eq!(brief.transmit, Amount::of(11, frame), "{stop}");
    sum.receive.add(brief.receive);
    sum.transmit.add(brief.transmit);
    let scrape = agent.metrics()?;
    let nobodys = scrape.one("kvmeter_network_unowned_bytes_total", &[("direction", "receive")]).context("no count")?;
    eprintln!("received: {:?} by VMs, {nobodys} bytes by nobody known, {} in all", sum.receive, stats.tx_bytes);
    assert_eq!(sum.transmit.bytes, stats.rx_bytes);
    assert_eq!(
        sum.receive.bytes as f64 + nobodys,
        stats.tx_bytes as f64,
        "and what nobody is known for is a loss told"
    );
    agent.verify()
}
