//! `cargo xtask restarts`: as many agents as are wanted one after another under load, against the kernel's own counters.
//!
//! The test of `tests/tests/restarts.rs` that is ignored because it takes half an hour does it and prints the figures.

use anyhow::Result;
use clap::Args;

use crate::test;
use crate::workspace::{Profile, Workspace};

#[derive(Debug, Args)]
pub(crate) struct RestartsArgs {
    /// Agents that go on with the programs of those before them, two of three killed
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    count: u64,
    /// Agents that put programs of their own in the place of those before them
    #[arg(long, value_name = "N", default_value_t = 100)]
    takeovers: u64,
}

/// `cargo xtask restarts`.
pub(crate) fn restarts(workspace: &Workspace, args: &RestartsArgs) -> Result<()> {
    let test = "a_thousand_agents_one_after_another_leave_no_drift";
    let numbers = [("KVMETER_RESTARTS", args.count), ("KVMETER_TAKEOVERS", args.takeovers)];
    test::long_form(workspace, Profile::Dev, &["restarts"], &[test], &numbers)
}
