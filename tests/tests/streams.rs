//! Law: a stream tells each sample and each durable line once, in order; who comes back gets what was missed, who is slow
//! is told how many were lost, and nobody else notices.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    skip::host,
    sse::Sse,
    vmm::spawn::{TestFleet, TestVm},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn each_second() -> Result<Agent> {
    Agent::with(Setup::of("[history]\ninterval = \"1s\"\n"))
}

fn kept(agent: &Agent, vm: &str) -> Result<u64> {
    agent.json(&format!("/v1/vms/{vm}"))?["samples"].as_u64().context("no samples")
}

#[test]
fn samples_come_as_they_are_taken_and_who_comes_back_misses_none() -> Result<()> {
    let Some(_host) = host("samples_come_as_they_are_taken_and_who_comes_back_misses_none") else { return Ok(()) };
    let agent = each_second()?;
    let mut vm = TestVm::start(&["--id", "s", "--duty", "30"])?;
    agent.wait_vms(&["s"])?;
    let path = "/v1/vms/s/usage/stream";
    let mut whole = Sse::open(&agent, path, None)?;
    let mut away = Sse::open(&agent, path, None)?;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (id, sample) = whole.next_of("sample")?;
        ids.push(id);
        let at = kvmeter::clock::parse_rfc3339(sample.data["at"].as_str().context("no at")?).context("no instant")?;
        assert_eq!(id, at / 1_000_000, "the id is the sample's time: {sample:?}");
        assert!(sample.data["cpu_percent"].as_f64().is_some_and(|cpu| cpu > 0.0), "{sample:?}");
    }
    let (last, _) = away.next_of("sample")?;
    drop(away);
    let before = kept(&agent, "s")?;
    agent.wait_until("samples that one misses", PATIENCE, |agent| Ok(kept(agent, "s")? > before + 3))?;
    let mut back = Sse::open(&agent, path, Some(last))?;
    let mut missed = Vec::new();
    while missed.len() < 6 {
        missed.push(back.next_of("sample")?.0);
    }
    while ids.last() < missed.last() {
        ids.push(whole.next_of("sample")?.0);
    }
    let due: Vec<u64> = ids.iter().copied().filter(|id| *id > last && Some(id) <= missed.last()).collect();
    assert_eq!(missed, due, "who comes back gets what the other got");
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");

    vm.signal(Signal::SIGKILL)?;
    vm.wait()?;
    for mut stream in [whole, back] {
        let end = loop {
            let event = stream.event()?;
            if event.event != "sample" {
                break event;
            }
        };
        assert_eq!(end.event, "end");
        assert!(stream.is_closed()?, "nothing comes after the end");
    }
    agent.request("GET", "/v1/vms/nobody/usage/stream")?.problem(404).map(drop)
}

#[test]
fn an_id_that_is_too_old_is_told_as_a_loss() -> Result<()> {
    let Some(_host) = host("an_id_that_is_too_old_is_told_as_a_loss") else { return Ok(()) };
    let agent = each_second()?;
    let _vm = TestVm::start(&["--id", "o"])?;
    agent.wait_vms(&["o"])?;
    agent.wait_until("samples", PATIENCE, |agent| Ok(kept(agent, "o")? > 2))?;
    let mut stream = Sse::open(&agent, "/v1/vms/o/usage/stream", Some(1_000))?;
    let dropped = stream.event()?;
    assert!(dropped.event == "dropped" && dropped.data["count"].as_u64() > Some(0), "{dropped:?}");
    let (first, _) = stream.next_of("sample")?;
    let (second, _) = stream.next_of("sample")?;
    assert!(first < second, "and then all that is left, the oldest first");
    Ok(())
}

/// The lines of a ledger, as they stand in the file, by number.
fn lines(agent: &Agent) -> Result<Vec<(u64, String)>> {
    let text = std::fs::read_to_string(agent.metering().join("ledger.jsonl"))?;
    let number = |line: &str| -> Result<u64> { serde_json::from_str::<Value>(line)?["seq"].as_u64().context("no seq") };
    text.lines().map(|line| Ok((number(line)?, line.to_owned()))).collect()
}

#[test]
fn events_are_the_ledgers_lines_live_and_from_the_files() -> Result<()> {
    let Some(_host) = host("events_are_the_ledgers_lines_live_and_from_the_files") else { return Ok(()) };
    let agent = Agent::start()?;
    let mut live = Sse::open(&agent, "/v1/events?kinds=vm.compute.start,vm.compute.stop", None)?;
    let mut first = TestVm::start(&["--id", "e1"])?;
    let (seq, start) = live.next_of("vm.compute.start")?;
    assert_eq!((&start.data["vm_id"], start.data["seq"].as_u64()), (&"e1".into(), Some(seq)));
    first.signal(Signal::SIGKILL)?;
    first.wait()?;
    let (stop, _) = live.next_of("vm.compute.stop")?;
    let _second = TestVm::start(&["--id", "e2"])?;
    let (newest, _) = live.next_of("vm.compute.start")?;

    let mut again = Sse::open(&agent, "/v1/events", Some(0))?;
    let mut told = Vec::new();
    while told.last().is_none_or(|(seq, _)| *seq < newest) {
        let event = again.event()?;
        told.push((event.id.context("no id")?, event.text));
    }
    let due = lines(&agent)?;
    assert_eq!(told, due[..told.len()], "each line once, byte by byte");
    let mut rest = Sse::open(&agent, "/v1/events?kinds=vm.compute.start", Some(stop))?;
    assert_eq!(rest.next_of("vm.compute.start")?.0, newest, "only what was asked for");
    let bad = agent.request("GET", "/v1/events?kinds=vm.compute.begin")?.problem(400)?;
    assert_eq!(bad["parameter"], "kinds");

    let (_, _, dir) = agent.stop()?;
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::default() })?;
    let mut back = Sse::open(&agent, "/v1/events", Some(newest))?;
    let (down, _) = back.next_of("agent.down")?;
    let (up, _) = back.next_of("agent.up")?;
    ensure!(down == newest + 1 && up == down + 1, "an agent that comes back goes on with the ledger's lines");
    Ok(())
}

/// Reads heartbeats until there is no more or `most` are told or lost: which were told, and how many were lost.
fn heartbeats(stream: &mut Sse, most: usize) -> Result<(BTreeSet<u64>, u64)> {
    let (mut told, mut lost) = (BTreeSet::new(), 0);
    while (told.len() as u64 + lost) < most as u64 {
        let Ok(event) = stream.event() else { break };
        match event.event.as_str() {
            "dropped" => lost += event.data["count"].as_u64().context("no count")?,
            _ => ensure!(told.insert(event.id.context("no id")?), "twice: {event:?}"),
        }
    }
    Ok((told, lost))
}

#[test]
fn a_slow_reader_is_told_how_many_it_lost() -> Result<()> {
    let Some(_host) = host("a_slow_reader_is_told_how_many_it_lost") else { return Ok(()) };
    let agent = Agent::with(Setup::of("[ledger]\nheartbeat = \"1s\"\n"))?;
    let path = "/v1/events?kinds=vm.compute.usage";
    let (mut slow, mut fast) = (Sse::open(&agent, path, None)?, Sse::open(&agent, path, None)?);
    let reader = std::thread::spawn(move || heartbeats(&mut fast, usize::MAX));
    let fleet = TestFleet::start(200, &["--id", "f"])?;
    // More than the buffers of a socket hold.
    let records = |agent: &Agent| -> Result<f64> {
        Ok(agent.metrics()?.sum("kvmeter_ledger_records_total", &[("kind", "vm.compute.usage")]))
    };
    agent.wait_until("heartbeats", 3 * PATIENCE, |agent| Ok(records(agent)? > 4_000.0))?;
    drop(fleet);
    agent.wait_until("their ends", PATIENCE, |agent| {
        let metrics = agent.metrics()?;
        Ok(metrics.sum("kvmeter_ledger_records_total", &[("kind", "vm.compute.stop")]) >= 200.0)
    })?;
    let beats: BTreeSet<u64> =
        agent.ledger()?.iter().filter(|l| l["kind"] == "vm.compute.usage").filter_map(|l| l["seq"].as_u64()).collect();
    let (told, lost) = heartbeats(&mut slow, beats.len())?;
    assert!(lost > 0 && told.is_subset(&beats), "{lost} lost");
    assert_eq!(told.len() as u64 + lost, beats.len() as u64, "told and lost are all there were");
    agent.wait_until("the count", PATIENCE, |agent| {
        let counted = agent.metrics()?.one("kvmeter_watch_dropped_total", &[]);
        Ok(counted >= Some(lost as f64))
    })?;
    agent.stop()?;
    let (seen, missed) = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    assert_eq!(seen.len() as u64 + missed, beats.len() as u64, "of the other as well");
    Ok(())
}
