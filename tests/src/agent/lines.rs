//! What a running agent has written so far.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Agent, PATIENCE};
use crate::ledger::{Life, ledger_in, only};

impl Agent {
    /// All ledger lines so far.
    pub fn ledger(&self) -> Result<Vec<Value>> {
        ledger_in(self.dir())
    }

    /// Waits for the stop of the one life a vm_id has had, and returns that life, held against the laws.
    pub fn ended(&self, vm_id: &str) -> Result<Life> {
        self.stop_line(vm_id)?;
        only(&self.ledger()?, vm_id)
    }

    /// Ledger lines of a kind about a vm_id.
    pub fn lines(&self, kind: &str, vm_id: &str) -> Result<Vec<Value>> {
        Ok(self.ledger()?.into_iter().filter(|line| line["kind"] == kind && line["vm_id"] == vm_id).collect())
    }

    /// Waits for the one stop line of a vm_id and returns it.
    pub fn stop_line(&self, vm_id: &str) -> Result<Value> {
        self.wait_until("a stop line", PATIENCE, |a| Ok(!a.lines("vm.compute.stop", vm_id)?.is_empty()))?;
        let mut lines = self.lines("vm.compute.stop", vm_id)?;
        ensure!(lines.len() == 1, "{} stop lines for {vm_id}", lines.len());
        lines.pop().context("one line")
    }

    /// Proves the ledger with `kvmeter ledger verify`; an error with its report unless it is whole.
    pub fn verify(&self) -> Result<()> {
        let output = self.command(&["ledger", "verify"])?;
        if !output.status.success() {
            bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
