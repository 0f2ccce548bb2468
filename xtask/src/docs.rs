//! `cargo xtask docs`: `docs/metrics.md`, written by the agent from its own catalog, so that it cannot be wrong.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Needs};
use crate::workspace::{Profile, Workspace};

pub(crate) fn docs(workspace: &Workspace, check: bool) -> Result<()> {
    setup::prepare(workspace, Needs::default())?;
    workspace.build(Profile::Dev)?;
    let path = workspace.root.join("docs/metrics.md");
    let fresh = catalog(workspace)?;
    let before = fs::read_to_string(&path).unwrap_or_default();
    if fresh == before {
        println!("docs: {} is up to date", path.display());
        return Ok(());
    }
    if check {
        bail!(
            "docs/metrics.md is not what the agent's catalog says: run `cargo xtask docs`\n{}",
            difference(&before, &fresh)
        );
    }
    fs::create_dir_all(workspace.root.join("docs")).context("cannot make docs/")?;
    fs::write(&path, fresh).with_context(|| format!("cannot write {}", path.display()))?;
    println!("docs: {} written", path.display());
    Ok(())
}

fn catalog(workspace: &Workspace) -> Result<String> {
    let agent = workspace.binary(Profile::Dev, "kvmeter");
    let ran = Command::new(&agent)
        .args(["catalog", "--markdown"])
        .output()
        .with_context(|| format!("cannot run {}", agent.display()))?;
    if !ran.status.success() || ran.stdout.is_empty() {
        bail!(
            "`kvmeter catalog --markdown` ended with {} and {}",
            ran.status,
            String::from_utf8_lossy(&ran.stderr).trim()
        );
    }
    String::from_utf8(ran.stdout).context("`kvmeter catalog --markdown` printed something that is not UTF-8")
}

/// The first lines that only one of the two has.
fn difference(before: &str, fresh: &str) -> String {
    let only = |left: &str, right: &str, mark: char| -> Vec<String> {
        let other: std::collections::HashSet<_> = right.lines().collect();
        left.lines().filter(|line| !other.contains(line)).take(10).map(|line| format!("{mark} {line}")).collect()
    };
    [only(before, fresh, '-'), only(fresh, before, '+')].concat().join("\n")
}
