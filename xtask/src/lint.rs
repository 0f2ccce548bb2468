//! `cargo xtask lint`: formatting, clippy for the host and for the kernel programs, and the architecture's edges.
//!
//! Kernel programs compile for no host, so their clippy is the one beside the BPF compiler, with the flags that
//! `agent/build.rs` gives. All parts run, whichever fail.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Needs};
use crate::stamp::Stamp;
use crate::workspace::{Workspace, run};
use crate::{edges, toolchain};

pub(crate) fn lint(workspace: &Workspace) -> Result<()> {
    let stamp = setup::prepare(workspace, Needs { lint: true, ..Needs::default() })?;
    let parts: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("rustfmt", &|| format(workspace)),
        ("clippy", &|| host(workspace)),
        ("cargo features", &|| features(workspace)),
        ("clippy for the kernel programs", &|| kernel(workspace, &stamp)),
        ("edges", &|| edges::check(workspace)),
    ];
    let mut failed = Vec::new();
    for (name, part) in parts {
        println!("lint: {name}");
        if let Err(error) = part() {
            eprintln!("xtask: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}

fn format(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo().args(["fmt", "--all", "--", "--check"]), "formatting (`cargo fmt --all` mends it)")
}

fn host(workspace: &Workspace) -> Result<()> {
    let mut command = workspace.cargo();
    command.args(["clippy", "--workspace", "--exclude", "kvmeter-ebpf", "--all-targets", "--", "-D", "warnings"]);
    run(&mut command, "clippy")?;
    // What is off by default is compiled by nobody else.
    let mut command = workspace.cargo();
    command.args(["clippy", "--package", "kvmeter", "--features", "parquet", "--all-targets", "--", "-D", "warnings"]);
    run(&mut command, "clippy with Parquet")
}

/// The agent with every cargo feature, and without any, in which prometheus must not be compiled.
fn features(workspace: &Workspace) -> Result<()> {
    let mut check = workspace.cargo();
    check.args(["clippy", "-p", "kvmeter", "--no-default-features", "--", "-D", "warnings"]);
    run(&mut check, "the agent without cargo features")?;
    let mut all = workspace.cargo();
    all.args(["clippy", "-p", "kvmeter", "--all-features", "--all-targets", "--", "-D", "warnings"]);
    run(&mut all, "the agent with all cargo features")?;
    let mut tree = workspace.cargo();
    tree.args(["tree", "-p", "kvmeter", "--no-default-features", "-e", "normal", "--prefix", "none"]);
    let output = tree.output().context("cannot run cargo tree")?;
    let compiled = String::from_utf8_lossy(&output.stdout);
    let unwanted: Vec<&str> = compiled.lines().filter(|line| line.starts_with("prometheus ")).collect();
    if !output.status.success() || !unwanted.is_empty() {
        bail!("without cargo features there is still {unwanted:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn kernel(workspace: &Workspace, stamp: &Stamp) -> Result<()> {
    let clippy = kernel_clippy(stamp);
    if !clippy.is_file() {
        bail!(
            "{} is not there: install the clippy of {} (a rustup nightly: `rustup component add clippy`)",
            clippy.display(),
            stamp.toolchain
        );
    }
    let mut command = toolchain::kernel_command(workspace, stamp, &clippy, &["clippy"]);
    command.env("CARGO", &stamp.cargo).args(["--", "-D", "warnings"]);
    run(&mut command, "clippy for the kernel programs")
}

/// The `cargo-clippy` beside the cargo that builds the kernel programs.
pub(crate) fn kernel_clippy(stamp: &Stamp) -> PathBuf {
    stamp.cargo.with_file_name("cargo-clippy")
}
