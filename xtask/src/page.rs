//! What the live page is drawn with: uPlot of the npm registry, under `target/page`.
//!
//! `agent/page/package-lock.json` has its version and the hash of its archive; npm refuses another one. Nothing of it runs
//! while it is installed. Done once, and again when the lock changes.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::install;
use crate::workspace::{Workspace, on_path, run};

const LOCK: &str = "package-lock.json";
/// What says which lock was installed from; written last.
const STAMP: &str = "installed.json";
/// What the agent's build takes.
const LIBRARY: &str = "node_modules/uplot/dist/uPlot.iife.min.js";

/// Sees to it that the library is there.
pub(crate) fn obtain(workspace: &Workspace) -> Result<()> {
    let (from, to) = (workspace.root.join("agent/page"), workspace.target("page"));
    let lock = fs::read_to_string(from.join(LOCK)).with_context(|| format!("cannot read agent/page/{LOCK}"))?;
    let installed = fs::read_to_string(to.join(STAMP)).is_ok_and(|before| before == lock);
    if installed && to.join(LIBRARY).is_file() {
        return Ok(());
    }
    if on_path("npm").is_none() {
        install::npm()?;
    }
    println!("setup: installing what the page is drawn with");
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    for name in ["package.json", LOCK] {
        fs::copy(from.join(name), to.join(name)).with_context(|| format!("cannot copy agent/page/{name}"))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]).arg(&to);
    run(&mut npm, "installing what the page is drawn with")?;
    if !to.join(LIBRARY).is_file() {
        bail!("npm has installed no {LIBRARY} in {}", to.display());
    }
    fs::write(to.join(STAMP), lock).with_context(|| format!("cannot write {}", to.join(STAMP).display()))
}
