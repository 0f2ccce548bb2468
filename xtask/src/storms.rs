//! `cargo xtask storms`: the long forms of the storms, which take minutes: a million processes and ten thousand VMs of a
//! millisecond, wake-ups that find no room, and agents killed at as many moments as there is time for.
//!
//! They are the tests of `tests/tests/{storms,kills}.rs` that are ignored for it; each prints its figures.

use anyhow::Result;
use clap::Args;

use crate::test;
use crate::workspace::{Profile, Workspace};

#[derive(Debug, Args)]
pub(crate) struct StormsArgs {
    /// The most moments at which an agent is killed
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    kills: u64,
    /// The most minutes of killing
    #[arg(long, value_name = "M", default_value_t = 10)]
    minutes: u64,
    /// Only what has this in its name: processes, millisecond, wake_ups or killed
    #[arg(long, value_name = "PART")]
    only: Option<String>,
}

/// `cargo xtask storms`.
pub(crate) fn storms(workspace: &Workspace, args: &StormsArgs) -> Result<()> {
    let only = args.only.as_deref();
    let filters: Vec<&str> = ["--test-threads", "1"].into_iter().chain(only).collect();
    let numbers = [("KVMETER_KILLS", args.kills), ("KVMETER_KILL_MINUTES", args.minutes)];
    // Optimised: so that more agents can be started, and more VMs, in the time there is.
    test::long_form(workspace, Profile::Release, &["storms", "kills"], &filters, &numbers)
}
