//! Two VMs for tests of what is shown: one that runs, and one that has ended and still lingers.

use std::time::Duration;

use anyhow::Result;

use crate::{agent::Agent, vmm::spawn::TestVm};

const PATIENCE: Duration = Duration::from_secs(60);

/// One VM that runs, and one that has ended and is still shown.
pub fn one_of_each(agent: &Agent) -> Result<TestVm> {
    let runs = TestVm::start(&["--id", "runs", "--duty", "20", "--vcpus", "2"])?;
    let _ended = TestVm::start(&["--id", "ended", "--lifetime", "200ms"])?.wait()?;
    agent.wait_until("one of each", PATIENCE, |a| {
        let metrics = a.metrics()?;
        let state = |id| metrics.one("kvmeter_vm_running", &[("vm_id", id)]);
        Ok(state("runs") == Some(1.0) && state("ended") == Some(0.0))
    })?;
    Ok(runs)
}
