//! Law: where lines go changes nothing else.

use std::time::Duration;

use anyhow::Result;
use kvmeter_tests::{
    agent::{Agent, Setup},
    script::{open_dir, script, text},
    skip::host,
    vmm::spawn::TestVm,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of a ledger in what an agent wrote on standard error, between those of its log.
fn recorded(log: &str) -> Vec<Value> {
    log.lines()
        .filter(|line| line.starts_with("{\"kind\":"))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[test]
fn other_recorders_leave_no_file_and_views_and_hooks_work_all_the_same() -> Result<()> {
    let Some(_host) = host("other_recorders_leave_no_file_and_views_and_hooks_work_all_the_same") else {
        return Ok(());
    };
    for recorder in ["stderr", "discard"] {
        let dir = open_dir()?;
        let gets = script(dir.path(), "gets", &format!("cat >> {}/got", dir.path().display()))?;
        let agent = Agent::with(Setup::of(&format!(
            "sample_interval = \"200ms\"\n[ledger]\nrecorder = \"{recorder}\"\nheartbeat = \"1s\"\n\
             [[hooks]]\nname = \"gets\"\ncommand = [{gets:?}]\nmax_concurrent = 1\n"
        )))?;
        let vm = TestVm::start(&["--id", "recorded", "--duty", "20"])?;
        agent.wait_vms(&["recorded"])?;
        drop(vm);
        let count = || text(&dir.path().join("got")).lines().filter(|line| line.contains("\"recorded\"")).count();
        agent.wait_until("start and stop at the hook", PATIENCE, |_| Ok(count() == 2))?;
        assert!(agent.metrics()?.one("kvmeter_ledger_sequence", &[]) >= Some(3.0));
        assert!(!agent.metering().exists(), "no file of {recorder}");
        let (status, _, home) = agent.stop()?;
        assert!(status.success(), "{status}");
        let lines = recorded(&text(&home.path().join("agent.log")));
        if recorder == "discard" {
            assert!(lines.is_empty(), "{lines:?}");
            continue;
        }
        let kinds: Vec<&str> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
        assert_eq!((kinds.first(), kinds.last()), (Some(&"agent.up"), Some(&"agent.down")), "{kinds:?}");
        assert!(lines.iter().zip(1..).all(|(line, seq)| line["seq"] == seq), "no hole");
        let about = lines.iter().filter(|line| line["vm_id"] == "recorded");
        let about: Vec<&str> =
            about.filter_map(|line| line["kind"].as_str()).filter(|kind| *kind != "vm.compute.usage").collect();
        assert_eq!(about, ["vm.compute.start", "vm.compute.stop"]);
    }
    Ok(())
}
