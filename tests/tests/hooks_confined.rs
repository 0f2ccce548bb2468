//! Law: as it is packaged, the agent can run hooks as another user and end them, and what runs has none of its rights.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    script::{open_dir, script, text},
    skip::{host, installed, skipped},
    vmm::spawn::TestVm,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// `setpriv` with what the packaged unit leaves the agent.
fn as_packaged() -> Result<Vec<std::ffi::OsString>> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/kvmeter.service");
    let unit = std::fs::read_to_string(unit)?;
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("no bounding set")?;
    let bounds: String =
        set.split_whitespace().map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    anyhow::ensure!(unit.contains("\nNoNewPrivileges=yes\n"));
    let bounds = format!("--bounding-set=-all{bounds}");
    Ok(["setpriv", "--no-new-privs", &bounds, "--inh-caps=-all"].map(Into::into).to_vec())
}

#[test]
fn under_the_packaged_units_capabilities_hooks_run_as_nobody_and_are_ended() -> Result<()> {
    const TEST: &str = "under_the_packaged_units_capabilities_hooks_run_as_nobody_and_are_ended";
    if !installed("setpriv") {
        skipped(TEST, "needs setpriv (util-linux)");
        return Ok(());
    }
    let Some(_host) = host(TEST) else { return Ok(()) };
    let dir = open_dir()?;
    let at = dir.path().display();
    let who = format!("id -un >> {at}/ran-as; grep -E '^(Cap|Groups)' /proc/self/status >> {at}/rights");
    let who = script(dir.path(), "who", &who)?;
    let hangs = script(dir.path(), "hangs", &format!("echo $$ >> {at}/pids; exec sleep 1000"))?;
    let config = format!(
        "[[hooks]]\nname = \"who\"\ncommand = [{who:?}]\nkinds = [\"vm.compute.start\"]\n\
         [[hooks]]\nname = \"hangs\"\ncommand = [{hangs:?}]\nkinds = [\"vm.compute.start\"]\ntimeout = \"3s\"\nretries = 0\n"
    );
    let agent = Agent::with(Setup { config, wrapper: as_packaged()?, ..Setup::default() })?;
    drop(TestVm::start(&["--id", "hooked", "--duty", "20"])?);
    let runs = |a: &Agent, outcome| anyhow::Ok(a.metrics()?.one("kvmeter_hook_runs_total", &[("outcome", outcome)]));
    let done = |a: &Agent| -> Result<bool> { Ok(runs(a, "success")? == Some(1.0) && runs(a, "timeout")? == Some(1.0)) };
    agent.wait_until("both runs", PATIENCE, done)?;
    assert_eq!(text(&dir.path().join("ran-as")), "nobody\n");
    let rights = text(&dir.path().join("rights"));
    for line in rights.lines() {
        let (name, value) = line.split_once(':').context("no value")?;
        let none = value.trim().is_empty() || value.trim().chars().all(|digit| digit == '0');
        // The bounding set stays, and gives nothing to who may gain nothing.
        assert!(none || name == "CapBnd", "{rights}");
    }
    assert!(rights.contains("CapEff") && rights.contains("CapPrm"), "{rights}");
    let pids = text(&dir.path().join("pids"));
    assert_eq!(pids.lines().count(), 1, "it ran for three seconds");
    for pid in pids.lines() {
        let stat = text(Path::new(&format!("/proc/{pid}/stat")));
        assert!(stat.is_empty() || stat.contains(") Z "), "process {pid} of a hook lives on: {stat}");
    }
    // And it measures as before.
    agent.stop_line("hooked")?;
    assert_eq!(agent.json("/v1/status")?["cpu_source"], "bpf");
    agent.verify()
}
