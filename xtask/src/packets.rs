//! `cargo xtask packets`: as many packets as are wanted through a tap, each way, against the link's own counters.
//!
//! The test of `tests/tests/network.rs` that is ignored because it takes minutes does it and prints the table.

use anyhow::Result;
use clap::Args;

use crate::test;
use crate::workspace::{Profile, Workspace};

#[derive(Debug, Args)]
pub(crate) struct PacketsArgs {
    /// Packets each way
    #[arg(long, value_name = "N", default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(16..))]
    count: u64,
}

/// `cargo xtask packets`.
pub(crate) fn packets(workspace: &Workspace, args: &PacketsArgs) -> Result<()> {
    let test = "many_packets_each_way_are_told_to_the_last_one";
    test::long_form(workspace, Profile::Dev, &["network"], &[test], &[("KVMETER_PACKETS", args.count)])
}
