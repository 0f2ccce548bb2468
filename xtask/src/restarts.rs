//! `cargo xtask restarts`: as many agents as are wanted one after another under load, against the kernel's own counters.
//!
//! The test of `tests/tests/restarts.rs` that is ignored because it takes half an hour does it and prints the figures.

use anyhow::Result;
use clap::Args;

use crate::setup::{self, Needs};
use crate::test;
use crate::workspace::{Profile, Workspace, run};

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
    setup::prepare(workspace, Needs::default())?;
    workspace.build(Profile::Dev)?;
    let mut command = workspace.cargo();
    command
        .args(["test", "--quiet", "--package", "kvmeter-tests", "--test", "restarts", "--"])
        .args(["--ignored", "--nocapture", "a_thousand_agents_one_after_another_leave_no_drift"])
        .env("KVMETER_RESTARTS", args.count.to_string())
        .env("KVMETER_TAKEOVERS", args.takeovers.to_string())
        .env("KVMETER_BIN", workspace.binary(Profile::Dev, "kvmeter"))
        .env("KVMETER_TESTVM", workspace.binary(Profile::Dev, "kvmeter-testvm"));
    test::as_root(&mut command)?;
    run(&mut command, "restarting agents")
}
