//! Law: what a queueing discipline drops on its way to the guest was sent to it, is in none of the link's counters, and is
//! told as dropped.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kvmeter_tests::{
    agent::Agent,
    net::{kind::kinds, netns::Namespace, sender::Amount},
    skip::host,
    traffic::{Told, Wired, wait_reading},
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const DROPPED: &str = "kvmeter_vm_network_dropped_packets_total";

fn tc(namespace: &Namespace, words: &str) -> Result<String> {
    let run = || Command::new("tc").args(words.split(' ')).output().context("tc of iproute2");
    let output = namespace.inside(run)?;
    ensure!(output.status.success(), "tc {words}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Packets that the discipline dropped, once it has let go of all others.
fn drops(namespace: &Namespace) -> Result<u64> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let all: Value = serde_json::from_str(&tc(namespace, "-s -j qdisc show dev tap0")?)?;
        let root = all.as_array().into_iter().flatten().find(|one| one["root"] == true).context("no discipline")?;
        if root["qlen"] == 0 {
            return root["drops"].as_u64().context("no count of drops");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("the queue does not run empty")
}

#[test]
fn what_a_queueing_discipline_drops_is_received_and_told_as_dropped() -> Result<()> {
    let Some(_host) = host("what_a_queueing_discipline_drops_is_received_and_told_as_dropped") else { return Ok(()) };
    const COUNT: u64 = 400;
    let agent = Agent::start()?;
    let namespace = Namespace::new()?;
    let mut wired = Wired::tap_in(&namespace, "queued", "")?;
    wired.counted(&agent)?;
    let frame = kinds()[0].frame.clone();
    let (mut sent, mut dropped) = (0, 0);
    // The second is another discipline, whose count begins anew.
    for handle in [7, 8] {
        tc(
            &namespace,
            &format!("qdisc replace dev tap0 root handle {handle}: tbf rate 200kbit burst 3000 limit 4000"),
        )?;
        agent.wait_samples(2)?;
        wired.sender()?.send(&frame, COUNT)?;
        sent += COUNT;
        let here = drops(&namespace)?;
        assert!(here > COUNT / 2, "{here} of {COUNT} dropped");
        dropped += here;
        wired.vm.drain()?;
        assert_eq!(Told::shown(&agent, "queued")?.all().receive, Amount::of(sent, &frame));
        let stats = wired.link.stats()?;
        assert_eq!(sent, stats.tx_packets + stats.tx_dropped + dropped, "the link knows nothing of them: {stats:?}");
        // A discipline is looked at behind a reading, and told with the next.
        wait_reading(&agent)?;
        let shown = agent.metrics()?.bytes(DROPPED, &[("vm_id", "queued"), ("direction", "receive")]);
        assert_eq!(shown, Some(stats.tx_dropped + dropped));
        tc(&namespace, "qdisc delete dev tap0 root")?;
    }
    println!("{dropped} of {sent} packets dropped by the discipline");
    Ok(())
}
