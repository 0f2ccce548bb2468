//! Law: lines that begin and end what is stored say whose the VM is, as far as that is known by then: also of a VM that has
//! stopped, of its snapshots, and of one that never ran here but is in the inventory; and over restarts of the agent.

use std::fs;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    orders::OrderedVm,
    skip::host,
    statement::state,
    stored::{file, pool, wait_told},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

fn whose(line: &Value) -> (Option<&str>, Option<&str>) {
    (line["tenant"].as_str(), line["labels"]["tier"].as_str())
}

#[test]
fn lines_of_storage_say_whose_it_is_to_the_end() -> Result<()> {
    let Some(_host) = host("lines_of_storage_say_whose_it_is_to_the_end") else { return Ok(()) };
    // A raw file on a tmpfs counts as memory.
    let (pools, said) = (TempDir::new_in("/var/tmp")?, TempDir::new()?);
    let inventory = said.path().join("inventory");
    fs::write(&inventory, "[vms.never-ran]\ntenant = \"globex\"\nlabels = { tier = \"tin\" }\n")?;
    let config = format!("{}[inventory]\npath = {inventory:?}\n", pool(pools.path()));
    let agent = Agent::with(Setup::of(&config))?;
    let at = |name: &str| pools.path().join(name);
    file(&at("never-ran.img"), MIB)?;
    file(&at("nobodys@base.img"), MIB)?;
    let line = wait_told(&agent, "never-ran", "start", None)?.remove(0);
    assert_eq!(whose(&line), (Some("globex"), Some("tin")), "{line}");
    let line = wait_told(&agent, "base", "start", None)?.remove(0);
    assert_eq!((whose(&line), &line["labels"]), ((None, None), &Value::Null), "nothing is made up: {line}");

    let disk = file(&at("owned.img"), 2 * MIB)?;
    let mut vm = OrderedVm::start(&["--id", "owned"])?;
    agent.wait_vms(&["owned"])?;
    state(&agent, json!({ "vm_id": "owned", "tenant": "acme", "labels": { "tier": "gold" } }))?;
    vm.order(&format!("open {} rw", disk.display()))?;
    file(&at("owned@one.img"), MIB)?;
    let snap = wait_told(&agent, "one", "start", None)?.remove(0);
    assert_eq!((&snap["vm_id"], whose(&snap)), (&json!("owned"), (Some("acme"), Some("gold"))), "{snap}");
    wait_told(&agent, "owned", "start", Some((2 * MIB) as u64))?;
    // Another tenant takes it over, it stops, and its agent dies.
    state(&agent, json!({ "vm_id": "owned", "tenant": "initech" }))?;
    vm.vm.signal(Signal::SIGKILL)?;
    vm.vm.wait()?;
    assert_eq!(agent.stop_line("owned")?["tenant"], "initech");
    let agent = Agent::with(Setup { dir: Some(agent.kill()?), ..Setup::of(&config) })?;
    agent.wait_samples(2)?;
    for name in ["owned.img", "owned@one.img", "never-ran.img"] {
        fs::remove_file(at(name))?;
    }
    let stop = wait_told(&agent, "owned", "stop", None)?.pop().context("none")?;
    assert_eq!((whose(&stop), &stop["name"]), ((Some("initech"), Some("gold")), &json!("owned")), "{stop}");
    let stop = wait_told(&agent, "one", "stop", None)?.pop().context("none")?;
    assert_eq!(whose(&stop), (Some("initech"), Some("gold")), "{stop}");
    let stop = wait_told(&agent, "never-ran", "stop", None)?.pop().context("none")?;
    assert_eq!(whose(&stop), (Some("globex"), Some("tin")), "{stop}");
    let rollup = agent.command(&["ledger", "rollup", "--by", "tenant", "--period", "day"])?;
    let text = String::from_utf8_lossy(&rollup.stdout).into_owned();
    assert!(rollup.status.success() && text.contains("globex") && text.contains("acme"), "{text}");
    agent.verify()
}
