//! `cargo xtask docs`: `docs/metrics.md`, `docs/openapi.json` and `docs/ledger.schema.json`, written by the agent from its own catalog and
//! types, so that they cannot be wrong.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Needs};
use crate::workspace::{Profile, Workspace};

/// What the agent writes about itself: a file, and the command that prints it.
const WRITTEN: [(&str, &[&str]); 3] = [
    ("docs/metrics.md", &["catalog", "--markdown"]),
    ("docs/openapi.json", &["catalog", "--openapi"]),
    ("docs/ledger.schema.json", &["ledger", "schema"]),
];

pub(crate) fn docs(workspace: &Workspace, check: bool) -> Result<()> {
    setup::prepare(workspace, Needs::default())?;
    workspace.build(Profile::Dev)?;
    WRITTEN.iter().try_for_each(|(file, arguments)| one(workspace, file, arguments, check))
}

fn one(workspace: &Workspace, file: &str, arguments: &[&str], check: bool) -> Result<()> {
    let path = workspace.root.join(file);
    let fresh = printed(workspace, arguments)?;
    let before = fs::read_to_string(&path).unwrap_or_default();
    if fresh == before {
        println!("docs: {} is up to date", path.display());
        return Ok(());
    }
    if check {
        bail!("{file} is not what the agent says: run `cargo xtask docs`\n{}", difference(&before, &fresh));
    }
    fs::create_dir_all(workspace.root.join("docs")).context("cannot make docs/")?;
    fs::write(&path, fresh).with_context(|| format!("cannot write {}", path.display()))?;
    println!("docs: {} written", path.display());
    Ok(())
}

fn printed(workspace: &Workspace, arguments: &[&str]) -> Result<String> {
    let agent = workspace.binary(Profile::Dev, "kvmeter");
    let ran =
        Command::new(&agent).args(arguments).output().with_context(|| format!("cannot run {}", agent.display()))?;
    let what = format!("`kvmeter {}`", arguments.join(" "));
    if !ran.status.success() || ran.stdout.is_empty() {
        bail!("{what} ended with {} and {}", ran.status, String::from_utf8_lossy(&ran.stderr).trim());
    }
    String::from_utf8(ran.stdout).with_context(|| format!("{what} printed something that is not UTF-8"))
}

/// The first lines that only one of the two has.
fn difference(before: &str, fresh: &str) -> String {
    let only = |left: &str, right: &str, mark: char| -> Vec<String> {
        let other: std::collections::HashSet<_> = right.lines().collect();
        left.lines().filter(|line| !other.contains(line)).take(10).map(|line| format!("{mark} {line}")).collect()
    };
    [only(before, fresh, '-'), only(fresh, before, '+')].concat().join("\n")
}
