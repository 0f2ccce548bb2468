//! Law: the OpenAPI document is the agent's own, and what a real agent answers is what it says: no key more, none less.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    ledger::strict,
    skip::host,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const WRITTEN: &str = include_str!("../../docs/openapi.json");

/// Holds an answer against a component.
fn fits(document: &Value, component: &str, answer: &Value, path: &str) -> Result<()> {
    let schema = document.pointer(&format!("/components/schemas/{component}")).context(component.to_owned())?;
    let faults = strict::faults(schema, answer);
    ensure!(faults.is_empty(), "{path} is no {component}: {faults:#?}: {answer:#}");
    Ok(())
}

#[test]
fn what_a_real_agent_answers_is_what_the_document_says() -> Result<()> {
    let Some(_host) = host("what_a_real_agent_answers_is_what_the_document_says") else { return Ok(()) };
    let agent = Agent::with(Setup::of("[history]\ninterval = \"1s\"\n[metrics]\nper_vcpu = true\n"))?;
    let document = agent.json("/v1/openapi.json")?;
    ensure!(document == serde_json::from_str::<Value>(WRITTEN)?, "docs/openapi.json is another: cargo xtask docs");
    let _busy = TestVm::start(&["--id", "busy", "--vcpus", "2", "--duty", "30"])?;
    let mut ending = TestVm::start(&["--id", "ending", "--name", "one that ends"])?;
    agent.wait_vms(&["busy", "ending"])?;
    ending.signal(Signal::SIGKILL)?;
    ending.wait()?;
    agent.wait_ended(&["ending"])?;
    agent.wait_until("a sample", PATIENCE, |agent| Ok(agent.get("/v1/vms/busy/usage")?.0 == 200))?;
    for (path, component) in [
        ("/v1/status", "AgentStatus"),
        ("/v1/vms", "VmList"),
        ("/v1/vms?detail=true", "VmDetails"),
        ("/v1/vms/busy", "VmDetail"),
        ("/v1/vms/ending", "VmDetail"),
        ("/v1/vms/busy/usage", "Sample"),
        ("/v1/vms/busy/usage/range?range=1m&resolution=1s", "VmPast"),
        ("/v1/usage", "Newest"),
        ("/v1/usage/range?vms=busy,ending&range=1m", "ManyPast"),
    ] {
        let answer = agent.json(path)?;
        fits(&document, component, &answer, path)?;
    }
    let busy = agent.json("/v1/vms/busy")?;
    for key in ["cpu_ns", "memory", "latest", "samples"] {
        ensure!(!busy[key].is_null(), "no {key}, so this test shows nothing of it: {busy:#}");
    }
    let ended = agent.json("/v1/vms/ending")?;
    ensure!(ended["stopped_at"].is_string() && ended["stop_cause"].is_string(), "{ended:#}");
    for (path, status) in [("/v1/vms/nobody", 404), ("/v1/vms?detail=perhaps", 400), ("/v1/nothing", 404)] {
        fits(&document, "Problem", &agent.request("GET", path)?.problem(status)?, path)?;
    }
    Ok(())
}

#[test]
fn every_question_of_the_document_is_answered() -> Result<()> {
    let Some(_host) = host("every_question_of_the_document_is_answered") else { return Ok(()) };
    let agent = Agent::start()?;
    let document: Value = serde_json::from_str(WRITTEN)?;
    let paths = document["paths"].as_object().context("no paths")?;
    ensure!(paths.len() > 10, "{}", paths.len());
    for (path, operations) in paths {
        let other = agent.request("DELETE", &path.replace("{vm_id}", "x"))?;
        ensure!(other.code == 405, "{path} is not there: {}", other.head);
        let allowed = other.header("allow").unwrap_or_default().to_owned();
        for method in operations.as_object().context("no operations")?.keys() {
            ensure!(allowed.contains(&method.to_uppercase()), "{path}: {method}, and {allowed} is allowed");
        }
    }
    Ok(())
}
