//! Law: what an orchestrator states is told apart in the record, and holds for whom and what it names.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::{Life, of_process, only},
    skip::host,
    statement::state,
    vmm::spawn::{self, TestVm},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const ROOT: &str = "uid:0";

fn start(id: &str) -> Result<TestVm> {
    TestVm::start(&["--id", id, "--duty", "10"])
}

fn end(mut vm: TestVm, signal: Signal) -> Result<()> {
    vm.signal(signal)?;
    vm.wait()?;
    Ok(())
}

fn started(agent: &Agent, id: &str) -> Result<Value> {
    agent.wait_until("a start line", PATIENCE, |a| Ok(!a.lines("vm.compute.start", id)?.is_empty()))?;
    Ok(only(&agent.ledger()?, id)?.start)
}

/// The one correction of a VM's life, once it is there.
fn corrected(agent: &Agent, id: &str) -> Result<(Life, Value)> {
    agent.wait_until("a correction", PATIENCE, |a| Ok(!a.lines("correction", id)?.is_empty()))?;
    let life = only(&agent.ledger()?, id)?;
    let [correction] = life.corrections.as_slice() else { anyhow::bail!("{} corrections", life.corrections.len()) };
    let correction = correction.clone();
    Ok((life, correction))
}

/// A correction has every key of the line whose place it takes, but for those that were stated and those of its own.
fn assert_replaces(line: &Value, correction: &Value, stated: &[&str]) {
    assert_eq!(correction["corrects"], line["id"]);
    let own = ["kind", "seq", "id", "recorded_at", "prev", "sum", "corrects"];
    let keys = line.as_object().into_iter().chain(correction.as_object()).flat_map(|line| line.keys());
    for key in keys.filter(|key| !own.contains(&key.as_str()) && !stated.contains(&key.as_str())) {
        assert_eq!(line[key], correction[key], "{key}");
    }
}

/// Labels that were stated, beside the one that says which program a VMM that nobody knows is.
fn beside(mut stated: Value) -> Value {
    stated["vmm"] = "kvmeter-testvm".into();
    stated
}

#[test]
fn the_reason_of_the_next_stop_is_stated_by_any_name_before_it_happens() -> Result<()> {
    let Some(_host) = host("the_reason_of_the_next_stop_is_stated_by_any_name_before_it_happens") else {
        return Ok(());
    };
    let agent = Agent::start()?;
    const UUID: &str = "6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a51";
    let by_id = start("stated-id")?;
    let by_uuid = TestVm::start(&["--id", "u", "--uuid", UUID, "--duty", "10"])?;
    let by_pid = start("stated-pid")?;
    let without = start("not-stated")?;
    agent.wait_vms(&["stated-id", UUID, "stated-pid", "not-stated"])?;
    state(&agent, json!({ "vm_id": "stated-id", "reason": "stop-user" }))?;
    state(&agent, json!({ "uuid": UUID.to_uppercase(), "reason": "stop-user", "snapshot_id": "kept-1" }))?;
    state(&agent, json!({ "pid": by_pid.pid(), "reason": "stop-user" }))?;
    for vm in [by_id, by_uuid, by_pid, without] {
        end(vm, Signal::SIGKILL)?;
    }
    for id in ["stated-id", UUID, "stated-pid"] {
        let stop = agent.stop_line(id)?;
        // What was seen stays: only the reason is another.
        assert_eq!((&stop["cause"], &stop["reason"]), (&"signal".into(), &"stop-user".into()), "{id}");
        assert_eq!((&stop["evidence"]["signal"], &stop["evidence"]["annotated_by"]), (&9.into(), &ROOT.into()), "{id}");
        let kept = if id == UUID { "kept-1".into() } else { Value::Null };
        assert_eq!(stop["snapshot_id"], kept, "{id}");
    }
    let plain = agent.stop_line("not-stated")?;
    assert_eq!((&plain["reason"], &plain["evidence"]["annotated_by"]), (&"stop-crash".into(), &Value::Null));
    // Each was for one stop.
    end(start("stated-id")?, Signal::SIGKILL)?;
    agent.wait_until("its second stop", PATIENCE, |a| Ok(a.lines("vm.compute.stop", "stated-id")?.len() == 2))?;
    assert_eq!(agent.lines("vm.compute.stop", "stated-id")?[1]["reason"], "stop-crash");
    agent.verify()
}

#[test]
fn what_is_stated_after_a_stop_or_a_start_takes_the_lines_place_in_a_correction() -> Result<()> {
    const TEST: &str = "what_is_stated_after_a_stop_or_a_start_takes_the_lines_place_in_a_correction";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    end(start("late-stop")?, Signal::SIGKILL)?;
    let stop = agent.stop_line("late-stop")?;
    state(
        &agent,
        json!({ "vm_id": "late-stop", "reason": "stop-user", "snapshot_id": "s", "tenant": "acme", "labels": { "a": "b" } }),
    )?;
    let (life, correction) = corrected(&agent, "late-stop")?;
    assert_eq!(life.stop.as_ref(), Some(&stop), "what is written stays");
    assert_replaces(&stop, &correction, &["reason", "snapshot_id", "tenant", "labels", "evidence"]);
    assert_eq!((&correction["reason"], &correction["snapshot_id"]), (&"stop-user".into(), &"s".into()));
    assert_eq!((&correction["tenant"], &correction["labels"]), (&"acme".into(), &beside(json!({ "a": "b" }))));
    assert_eq!(correction["evidence"]["annotated_by"], ROOT);
    assert_eq!(correction["evidence"]["killer_pid"], stop["evidence"]["killer_pid"]);

    let vm = start("late-start")?;
    let line = started(&agent, "late-start")?;
    state(&agent, json!({ "pid": vm.pid(), "reason": "clone", "source_snapshot_id": "golden" }))?;
    let (_, correction) = corrected(&agent, "late-start")?;
    assert_replaces(&line, &correction, &["reason", "source_snapshot_id", "evidence"]);
    assert_eq!((&correction["reason"], &correction["source_snapshot_id"]), (&"clone".into(), &"golden".into()));
    // A process that is gone is known for a while by the id it had.
    let pid = vm.pid();
    end(vm, Signal::SIGTERM)?;
    agent.stop_line("late-start")?;
    state(&agent, json!({ "pid": pid, "reason": "stop-crash" }))?;
    agent.wait_until("its second correction", PATIENCE, |a| Ok(a.lines("correction", "late-start")?.len() == 2))?;
    let life = only(&agent.ledger()?, "late-start")?;
    assert_eq!(life.corrections[1]["corrects"], life.stop.context("no stop")?["id"]);
    // Another agent reads what this one wrote, and proves it.
    agent.verify()?;
    let agent = Agent::with(Setup { dir: Some(agent.kill()?), ..Setup::default() })?;
    agent.verify()
}

/// A process that becomes the test VMM when told to, under the id it has.
struct Becoming(Child);

impl Becoming {
    fn new(id: &str) -> Result<Self> {
        let script = "read go && exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(spawn::binary()?).args(["--id", id, "--duty", "10"]);
        Ok(Self(command.stdin(Stdio::piped()).spawn()?))
    }

    fn go(&mut self) -> Result<()> {
        Ok(self.0.stdin.as_mut().context("its input")?.write_all(b"go\n")?)
    }
}

impl Drop for Becoming {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_reason_of_the_next_start_and_whose_it_is_are_stated_before_it_happens() -> Result<()> {
    const TEST: &str = "the_reason_of_the_next_start_and_whose_it_is_are_stated_before_it_happens";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let mut becoming = Becoming::new("by-process")?;
    state(
        &agent,
        json!({ "pid": becoming.0.id(), "reason": "restore", "source_snapshot_id": "s-7", "tenant": "acme" }),
    )?;
    state(&agent, json!({ "pid": becoming.0.id(), "name": "Web One", "labels": { "tier": "gold" } }))?;
    becoming.go()?;
    let line = started(&agent, "by-process")?;
    assert_eq!((&line["reason"], &line["source_snapshot_id"]), (&"restore".into(), &"s-7".into()));
    assert_eq!((&line["tenant"], &line["name"]), (&"acme".into(), &"Web One".into()));
    assert_eq!(
        (&line["labels"], &line["evidence"]["annotated_by"]),
        (&beside(json!({ "tier": "gold" })), &ROOT.into())
    );
    // The one after it has nothing of that.
    drop(becoming);
    agent.stop_line("by-process")?;
    let vm = start("by-process")?;
    agent.wait_until("another life", PATIENCE, |a| Ok(a.lines("vm.compute.start", "by-process")?.len() == 2))?;
    let next = of_process(&agent.ledger()?, vm.pid())?.start;
    assert_eq!((&next["reason"], &next["tenant"]), (&"restart".into(), &Value::Null));
    assert_eq!(next["evidence"]["annotated_by"], Value::Null);

    state(&agent, json!({ "vm_id": "by-name", "reason": "hibernate-wake", "source_snapshot_id": "s-8" }))?;
    let _named = start("by-name")?;
    let line = started(&agent, "by-name")?;
    assert_eq!((&line["reason"], &line["source_snapshot_id"]), (&"hibernate-wake".into(), &"s-8".into()));
    agent.verify()
}

#[test]
fn a_statement_about_a_process_does_not_hold_for_the_next_of_its_id() -> Result<()> {
    let Some(_host) = host("a_statement_about_a_process_does_not_hold_for_the_next_of_its_id") else { return Ok(()) };
    let agent = Agent::start()?;
    let becoming = Becoming::new("first")?;
    let pid = becoming.0.id();
    state(&agent, json!({ "pid": pid, "reason": "clone", "tenant": "acme" }))?;
    drop(becoming);
    for _ in 0..200 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        let mut second = Becoming::new("second")?;
        if second.0.id() != pid {
            continue;
        }
        second.go()?;
        let line = started(&agent, "second")?;
        assert!(line["incarnation"].as_str().is_some_and(|i| i.contains(&format!("-{pid}-"))));
        assert_eq!((&line["reason"], &line["tenant"]), (&Value::Null, &Value::Null));
        return agent.verify();
    }
    anyhow::bail!("the process id could not be reused: nothing was tested")
}

#[test]
fn whose_a_running_vm_is_makes_an_identity_line_and_shows() -> Result<()> {
    let Some(_host) = host("whose_a_running_vm_is_makes_an_identity_line_and_shows") else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = start("owned")?;
    agent.wait_vms(&["owned"])?;
    let done = agent.command(&[
        "annotate",
        "--vm-id",
        "owned",
        "--tenant",
        "acme",
        "--label",
        "tier=gold",
        "--name",
        "Web One",
    ])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    agent.wait_until("an identity line", PATIENCE, |a| Ok(!a.lines("vm.identity", "owned")?.is_empty()))?;
    let line = &agent.lines("vm.identity", "owned")?[0];
    assert_eq!((&line["tenant"], &line["name"]), (&"acme".into(), &"Web One".into()));
    assert_eq!(
        (&line["labels"], &line["evidence"]["annotated_by"]),
        (&beside(json!({ "tier": "gold" })), &ROOT.into())
    );
    agent.wait_until("its tenant in the API", PATIENCE, |a| Ok(a.json("/v1/vms/owned")?["tenant"] == "acme"))?;
    assert_eq!(agent.metrics()?.one("kvmeter_vm_info", &[("vm_id", "owned"), ("tenant", "acme")]), Some(1.0));
    // Said twice is no news.
    state(&agent, json!({ "vm_id": "owned", "tenant": "acme" }))?;
    end(vm, Signal::SIGTERM)?;
    let stop = agent.stop_line("owned")?;
    assert_eq!((&stop["tenant"], &stop["labels"]), (&"acme".into(), &beside(json!({ "tier": "gold" }))));
    assert_eq!(agent.lines("vm.identity", "owned")?.len(), 1);
    agent.verify()
}

#[test]
fn a_vm_whose_state_was_kept_at_its_stop_wakes_when_it_starts_from_it() -> Result<()> {
    let Some(_host) = host("a_vm_whose_state_was_kept_at_its_stop_wakes_when_it_starts_from_it") else { return Ok(()) };
    let agent = Agent::start()?;
    const UUID: &str = "6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a52";
    let platform = format!("uuid={UUID}");
    let run = |from: Option<&str>| {
        let mut args = vec!["--duty", "10", "--words", "--platform", &platform];
        args.extend(from.into_iter().flat_map(|from| ["--words", "--restore", from]));
        TestVm::start_as("cloud-hypervisor", &args)
    };
    let starts = |n: usize| -> Result<Value> {
        agent.wait_until("a start", PATIENCE, |a| Ok(a.lines("vm.compute.start", UUID)?.len() == n))?;
        Ok(agent.lines("vm.compute.start", UUID)?[n - 1]["reason"].clone())
    };
    let stops = |n: usize| agent.wait_until("a stop", PATIENCE, |a| Ok(a.lines("vm.compute.stop", UUID)?.len() == n));
    let vm = run(None)?;
    assert_eq!(starts(1)?, "boot");
    state(&agent, json!({ "uuid": UUID, "reason": "stop-user", "snapshot_id": "/saved/1" }))?;
    end(vm, Signal::SIGKILL)?;
    stops(1)?;
    let vm = run(Some("source_url=file:///saved/1"))?;
    assert_eq!(starts(2)?, "hibernate-wake");
    end(vm, Signal::SIGTERM)?;
    stops(2)?;
    let _vm = run(Some("source_url=file:///saved/1"))?;
    assert_eq!(starts(3)?, "restore", "it was not hibernated before this one");
    agent.verify()
}
