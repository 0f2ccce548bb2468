//! Law: a statement that was taken outlives the agent that took it, is used once, and nothing that stands in its file makes
//! another of it.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    skip::host,
    statement::{make, state},
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const ROOT: &str = "uid:0";

fn start(id: &str) -> Result<TestVm> {
    TestVm::start(&["--id", id, "--duty", "10"])
}

fn end(mut vm: TestVm) -> Result<()> {
    vm.signal(Signal::SIGKILL)?;
    vm.wait()?;
    Ok(())
}

fn again(dir: TempDir) -> Result<Agent> {
    Agent::with(Setup { dir: Some(dir), ..Setup::default() })
}

fn kept(agent: &Agent) -> PathBuf {
    agent.dir().join("data/annotations.jsonl")
}

/// The `n`th line of a kind about a VM, once it is there.
fn nth(agent: &Agent, kind: &str, id: &str, n: usize) -> Result<Value> {
    agent.wait_until(kind, PATIENCE, |a| Ok(a.lines(kind, id)?.len() >= n))?;
    Ok(agent.lines(kind, id)?.swap_remove(n - 1))
}

fn said(line: &Value) -> (Option<&str>, Option<&str>) {
    (line["reason"].as_str(), line["evidence"]["annotated_by"].as_str())
}

#[test]
fn what_was_stated_before_a_start_or_a_stop_outlives_the_agent_that_was_killed() -> Result<()> {
    const TEST: &str = "what_was_stated_before_a_start_or_a_stop_outlives_the_agent_that_was_killed";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let (seen, unseen, by_pid) = (start("ends-later")?, start("ends-unseen")?, start("by-pid")?);
    agent.wait_vms(&["ends-later", "ends-unseen", "by-pid"])?;
    state(&agent, json!({ "vm_id": "ends-later", "reason": "stop-user", "snapshot_id": "s-1" }))?;
    state(&agent, json!({ "vm_id": "ends-unseen", "reason": "stop-user" }))?;
    state(&agent, json!({ "pid": by_pid.pid(), "reason": "stop-user" }))?;
    let of_start =
        json!({ "reason": "clone", "source_snapshot_id": "s-0", "tenant": "acme", "labels": { "tier": "gold" } });
    for id in ["starts-later", "starts-unseen"] {
        let mut body = of_start.clone();
        body["vm_id"] = id.into();
        state(&agent, body)?;
    }
    let dir = agent.kill()?;
    end(unseen)?;
    let _early = start("starts-unseen")?;
    let agent = again(dir)?;

    // It ended while no agent ran: what was seen of that is nothing, what was stated stands.
    let stop = nth(&agent, "vm.compute.stop", "ends-unseen", 1)?;
    assert_eq!((said(&stop), &stop["cause"]), ((Some("stop-user"), Some(ROOT)), &"unknown".into()));
    for vm in [seen, by_pid] {
        end(vm)?;
    }
    let stop = agent.stop_line("ends-later")?;
    assert_eq!((said(&stop), &stop["snapshot_id"]), ((Some("stop-user"), Some(ROOT)), &"s-1".into()));
    assert_eq!((&stop["cause"], &stop["evidence"]["signal"]), (&"signal".into(), &9.into()), "what was seen stays");
    assert_eq!(said(&agent.stop_line("by-pid")?), (Some("stop-user"), Some(ROOT)));
    let late = start("starts-later")?;
    for id in ["starts-unseen", "starts-later"] {
        let line = nth(&agent, "vm.compute.start", id, 1)?;
        assert_eq!((said(&line), &line["source_snapshot_id"]), ((Some("clone"), Some(ROOT)), &"s-0".into()), "{id}");
        assert_eq!((&line["tenant"], &line["labels"]["tier"]), (&"acme".into(), &"gold".into()), "{id}");
    }
    end(late)?;
    assert_eq!(said(&agent.stop_line("starts-later")?), (Some("stop-crash"), None), "that was not stated");
    agent.verify()
}

#[test]
fn what_was_used_is_not_used_again_by_the_next_agent() -> Result<()> {
    let Some(_host) = host("what_was_used_is_not_used_again_by_the_next_agent") else { return Ok(()) };
    let mut agent = Agent::start()?;
    for round in 1..=4 {
        let id = &format!("used-{round}");
        state(&agent, json!({ "vm_id": id, "reason": "stop-user" }))?;
        let vm = start(id)?;
        nth(&agent, "vm.compute.start", id, 1)?;
        end(vm)?;
        let stop = nth(&agent, "vm.compute.stop", id, 1)?;
        assert_eq!(said(&stop), (Some("stop-user"), Some(ROOT)));
        // At once after the line is there, and once only after the file may have been brought up to date.
        std::thread::sleep(Duration::from_millis(if round % 2 == 0 { 100 } else { 0 }));
        agent = again(agent.kill()?)?;
        let vm = start(id)?;
        nth(&agent, "vm.compute.start", id, 2)?;
        end(vm)?;
        let stop = nth(&agent, "vm.compute.stop", id, 2)?;
        assert_eq!(said(&stop), (Some("stop-crash"), None), "round {round}");
    }
    agent.verify()
}

#[test]
fn what_is_stated_of_a_stop_that_an_earlier_agent_told_corrects_that_stop_and_no_later_one() -> Result<()> {
    const TEST: &str = "what_is_stated_of_a_stop_that_an_earlier_agent_told_corrects_that_stop_and_no_later_one";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = start("told")?;
    agent.wait_vms(&["told"])?;
    end(vm)?;
    let stop = agent.stop_line("told")?;
    let agent = again(agent.kill()?)?;
    state(&agent, json!({ "vm_id": "told", "reason": "stop-user" }))?;
    // It is durable before the answer, so it is there without waiting.
    let corrections = agent.lines("correction", "told")?;
    assert_eq!(corrections.len(), 1);
    assert_eq!((&corrections[0]["corrects"], said(&corrections[0])), (&stop["id"], (Some("stop-user"), Some(ROOT))));
    // A correction is the last word on a line: what is stated now is about what comes.
    let agent = again(agent.kill()?)?;
    state(&agent, json!({ "vm_id": "told", "reason": "stop-user", "snapshot_id": "s" }))?;
    assert_eq!(agent.lines("correction", "told")?.len(), 1);
    let vm = start("told")?;
    nth(&agent, "vm.compute.start", "told", 2)?;
    end(vm)?;
    assert_eq!(nth(&agent, "vm.compute.stop", "told", 2)?["snapshot_id"], "s");
    agent.verify()
}

#[test]
fn what_has_expired_by_then_is_dropped() -> Result<()> {
    let Some(_host) = host("what_has_expired_by_then_is_dropped") else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = start("expired")?;
    agent.wait_vms(&["expired"])?;
    state(&agent, json!({ "vm_id": "expired", "reason": "stop-user", "ttl": "1s" }))?;
    let dir = agent.kill()?;
    std::thread::sleep(Duration::from_millis(1_100));
    let agent = again(dir)?;
    end(vm)?;
    assert_eq!(said(&agent.stop_line("expired")?), (Some("stop-crash"), None));
    assert_eq!(fs::read_to_string(kept(&agent))?, "", "and its file does not keep it");
    Ok(())
}

fn unread(agent: &Agent) -> Result<f64> {
    Ok(agent.metrics()?.one("kvmeter_sample_errors_total", &[("source", "annotations")]).unwrap_or(-1.0))
}

#[test]
fn a_torn_or_hostile_file_is_told_and_survived_and_what_is_sound_in_it_stands() -> Result<()> {
    const TEST: &str = "a_torn_or_hostile_file_is_told_and_survived_and_what_is_sound_in_it_stands";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    state(&agent, json!({ "vm_id": "first", "reason": "clone" }))?;
    state(&agent, json!({ "vm_id": "second", "reason": "restore" }))?;
    state(&agent, json!({ "vm_id": "third", "reason": "clone" }))?;
    let (path, dir) = (kept(&agent), agent.kill()?);
    // Torn: the last line lacks its end. Nobody was told that it was taken if the agent died in writing it.
    let text = fs::read_to_string(&path)?;
    ensure!(text.lines().count() == 3, "{text}");
    fs::write(&path, &text[..text.len() - 2])?;
    let agent = again(dir)?;
    assert!(agent.log().contains("was being taken when the agent died"), "{}", agent.log());
    assert_eq!(unread(&agent)?, 0.0, "that is no damage");
    let dir = agent.kill()?;

    // Hostile: a reason that was changed, lines of others, what is no line at all.
    let text = fs::read_to_string(&path)?;
    let changed = text.replacen("clone", "boot", 1);
    ensure!(changed != text);
    fs::write(&path, changed)?;
    let mut file = OpenOptions::new().append(true).open(&path)?;
    file.write_all(b"{\"v\":1,\"id\":9,\"waits\":null,\"sum\":\"0000000000000000\"}\n\xff\xfe\x00\n")?;
    file.write_all(&[b'['; 100_000])?;
    file.write_all(b"\n")?;
    let agent = again(dir)?;
    assert_eq!(unread(&agent)?, 4.0);
    assert!(agent.log().contains("not all of the annotations"), "{}", agent.log());
    assert!(path.with_extension("bad").exists(), "it is there to be looked at");
    let _vms = [start("first")?, start("second")?, start("third")?];
    for (id, stated) in
        [("first", (Some("boot"), None)), ("second", (Some("restore"), Some(ROOT))), ("third", (Some("boot"), None))]
    {
        let line = nth(&agent, "vm.compute.start", id, 1)?;
        // The test VMM's command line says nothing of a snapshot, so no reason is told where none was stated.
        let expected = if stated.1.is_none() { (None, None) } else { stated };
        assert_eq!(said(&line), expected, "{id}");
    }
    let dir = agent.kill()?;

    // No file at all, but a pipe, which would hold up who opens it.
    fs::remove_file(&path)?;
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR)?;
    let agent = again(dir)?;
    assert_eq!(unread(&agent)?, 1.0);
    state(&agent, json!({ "vm_id": "fourth", "reason": "clone" }))?;
    let agent = again(agent.kill()?)?;
    let _vm = start("fourth")?;
    assert_eq!(said(&nth(&agent, "vm.compute.start", "fourth", 1)?), (Some("clone"), Some(ROOT)));
    agent.verify()
}

#[test]
fn what_cannot_be_kept_is_not_taken_and_its_maker_is_told() -> Result<()> {
    let Some(_host) = host("what_cannot_be_kept_is_not_taken_and_its_maker_is_told") else { return Ok(()) };
    let agent = Agent::start()?;
    let path = kept(&agent);
    fs::remove_file(&path)?;
    fs::create_dir(&path)?;
    fs::write(path.join("in-the-way"), "")?;
    let answer = make(&agent, &json!({ "vm_id": "unkept", "reason": "clone" }))?;
    let told = answer.problem(503)?;
    assert!(told["detail"].as_str().is_some_and(|text| text.contains("cannot be kept")), "{told}");
    let vm = start("unkept")?;
    assert_eq!(said(&nth(&agent, "vm.compute.start", "unkept", 1)?), (None, None));
    // What waits for nothing needs no file.
    state(&agent, json!({ "vm_id": "unkept", "tenant": "acme" }))?;
    assert_eq!(nth(&agent, "vm.identity", "unkept", 1)?["tenant"], "acme", "durable before the answer");
    fs::remove_dir_all(&path)?;
    state(&agent, json!({ "vm_id": "unkept", "reason": "stop-user" }))?;
    let agent = again(agent.kill()?)?;
    end(vm)?;
    assert_eq!(said(&agent.stop_line("unkept")?), (Some("stop-user"), Some(ROOT)));
    agent.verify()
}
