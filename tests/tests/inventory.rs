//! Law: the operator's inventory says whose a VM is; a change is told once, and a file with a mistake changes nothing.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    skip::host,
    vmm::spawn::TestVm,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A file that is replaced whole, as editors and configuration managers do.
struct File(TempDir);

impl File {
    fn new(text: &str) -> Result<Self> {
        let file = Self(TempDir::new()?);
        file.write(text)?;
        Ok(file)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("inventory")
    }

    fn write(&self, text: &str) -> Result<()> {
        std::fs::write(self.0.path().join("next"), text)?;
        Ok(std::fs::rename(self.0.path().join("next"), self.path())?)
    }

    fn setup(&self) -> Setup {
        Setup::of(&format!("[inventory]\npath = {:?}\n", self.path()))
    }
}

fn inventory(agent: &Agent) -> Result<Value> {
    let status = agent.json("/v1/status")?;
    let features = status["features"].as_array().context("features")?;
    Ok(features.iter().find(|feature| feature["name"] == "inventory").cloned().unwrap_or_default())
}

fn wait_tenant(agent: &Agent, vm_id: &str, tenant: &str) -> Result<()> {
    agent.wait_until(tenant, PATIENCE, |agent| Ok(agent.json(&format!("/v1/vms/{vm_id}"))?["tenant"] == tenant))
}

#[test]
fn an_inventorys_word_is_told_with_the_start_each_change_once_and_no_mistake_at_all() -> Result<()> {
    let Some(_host) = host("an_inventorys_word_is_told_with_the_start_each_change_once_and_no_mistake_at_all") else {
        return Ok(());
    };
    let file = File::new("[vms.db-1]\ntenant = \"acme\"\nlabels = { tier = \"gold\" }\n[vms.web-1]\ntenant = \"x\"\n")?;
    let agent = Agent::with(file.setup())?;
    let vm = TestVm::start(&["--id", "db-1", "--duty", "5"])?;
    agent.wait_vms(&["db-1"])?;
    let start = agent.lines("vm.compute.start", "db-1")?;
    assert_eq!((&start[0]["tenant"], &start[0]["labels"]["tier"]), (&json!("acme"), &json!("gold")));
    assert_eq!(start[0]["labels"]["vmm"], "kvmeter-testvm", "of an unknown VMM the executable is named");
    assert_eq!(start[0]["hypervisor"], "unknown");
    let told = agent.metrics()?.one("kvmeter_vm_info", &[("vm_id", "db-1"), ("tenant", "acme")]);
    assert_eq!(told, Some(1.0));
    assert_eq!(inventory(&agent)?["available"], true);

    file.write(r#"{"vms": {"db-1": {"tenant": "globex", "labels": {"tier": "silver"}}}}"#)?;
    wait_tenant(&agent, "db-1", "globex")?;
    let changes = agent.lines("vm.identity", "db-1")?;
    assert_eq!(changes.len(), 1);
    assert_eq!((&changes[0]["tenant"], &changes[0]["labels"]["tier"]), (&json!("globex"), &json!("silver")));
    assert_eq!((&changes[0]["name"], &changes[0]["shape"]), (&json!("db-1"), &start[0]["shape"]));

    file.write("{\"vms\": {\"db-1\": {\"owner\": \"evil\"}}}")?;
    agent.wait_until("the mistake", PATIENCE, |agent| Ok(inventory(agent)?["available"] == false))?;
    let why = inventory(&agent)?["why"].to_string();
    assert!(why.contains("unknown field `owner`") && why.contains("the one of 1 VMs"), "{why}");
    let output = agent.command(&["vm", "db-1"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("globex") && text.contains("labels.tier"), "{text}");

    // Over a restart with the broken file what was told stands, and nothing is told twice.
    let (_, _, dir) = agent.stop()?;
    let agent = Agent::with(Setup { dir: Some(dir), ..file.setup() })?;
    agent.wait_vms(&["db-1"])?;
    wait_tenant(&agent, "db-1", "globex")?;
    file.write("[vms.db-1]\ntenant = \"globex\"\n")?;
    agent.wait_until("the good file", PATIENCE, |agent| Ok(inventory(agent)?["available"] == true))?;
    agent.wait_samples(2)?;
    assert_eq!(agent.lines("vm.identity", "db-1")?.len(), 1);
    drop(vm);
    let stop = agent.stop_line("db-1")?;
    assert_eq!((&stop["tenant"], &stop["labels"]["tier"]), (&json!("globex"), &json!("silver")));
    agent.verify()
}

#[test]
fn a_path_that_leads_nowhere_is_told_and_hurts_nobody() -> Result<()> {
    let Some(_host) = host("a_path_that_leads_nowhere_is_told_and_hurts_nobody") else { return Ok(()) };
    let file = File::new("")?;
    std::fs::remove_file(file.path())?;
    let agent = Agent::with(file.setup())?;
    let _vm = TestVm::start(&["--id", "db-2", "--duty", "5"])?;
    agent.wait_vms(&["db-2"])?;
    assert_eq!(inventory(&agent)?["available"], false);
    file.write("[vms.db-2]\ntenant = \"late\"\n")?;
    wait_tenant(&agent, "db-2", "late")?;
    assert_eq!(agent.lines("vm.identity", "db-2")?.len(), 1);
    agent.verify()
}
