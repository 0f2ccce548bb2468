//! Whether a unit leaves the agent the capabilities that it needs for hooks, and no other than are explained: asked of the agent
//! itself, run with the unit's bounding set.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{Profile, Workspace, on_path};

/// Each of these has to be missed by a hook that runs as another user; else the unit need not grant it.
const OF_HOOKS: [&str; 3] = ["kill", "setgid", "setuid"];
/// Where it is said what each is for.
const EXPLAINED: &str = "docs/install.md";
/// A hook as it is by default, a command run as nobody.
const HOOK: &str = "[[hooks]]\nname = \"packaged\"\ncommand = [\"/bin/true\"]\n";

/// What could be checked of it, in a few words.
pub(crate) fn check(workspace: &Workspace, unit: &str) -> Result<&'static str> {
    let granted = granted(unit)?;
    let text =
        fs::read_to_string(workspace.root.join(EXPLAINED)).with_context(|| format!("cannot read {EXPLAINED}"))?;
    for capability in &granted {
        let row = format!("`CAP_{}`", capability.to_uppercase());
        ensure!(text.contains(&row), "it grants CAP_{}, and {EXPLAINED} does not say why", capability.to_uppercase());
    }
    if !nix::unistd::geteuid().is_root() || on_path("setpriv").is_none() {
        return Ok("its capabilities not tried: that takes root and setpriv");
    }
    let config = workspace.target("packaging").join("hook.toml");
    fs::write(&config, HOOK).with_context(|| format!("cannot write {}", config.display()))?;
    let said = complaint(workspace, &config, &granted)?;
    ensure!(said.is_empty(), "a hook cannot be used under it: {said}");
    for spare in OF_HOOKS {
        let less: Vec<String> = granted.iter().filter(|capability| *capability != spare).cloned().collect();
        let said = complaint(workspace, &config, &less)?;
        ensure!(!said.is_empty(), "it grants CAP_{}, and no hook misses it", spare.to_uppercase());
    }
    Ok("its capabilities are what hooks need")
}

/// The names in the unit's bounding set, in lower case and without `CAP_`.
fn granted(unit: &str) -> Result<Vec<String>> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = lines.flat_map(str::split_whitespace).map(|name| {
        name.strip_prefix("CAP_").map(str::to_lowercase).with_context(|| format!("{name} is no capability's name"))
    });
    let names = names.collect::<Result<Vec<_>>>()?;
    if names.is_empty() {
        bail!("it bounds no capabilities");
    }
    Ok(names)
}

/// What the agent says of the hook when it has these capabilities.
fn complaint(workspace: &Workspace, config: &Path, granted: &[String]) -> Result<String> {
    let bounds: String = granted.iter().map(|capability| format!(",+{capability}")).collect();
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", &format!("--bounding-set=-all{bounds}"), "--inh-caps=-all"]);
    command.arg(workspace.binary(Profile::Dev, "kvmeter")).args(["config", "check", "--config"]).arg(config);
    let ran = command.output().context("cannot run setpriv")?;
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    ensure!(ran.status.success(), "{said}");
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_names_what_it_grants() {
        let unit = "[Service]\nCapabilityBoundingSet=CAP_BPF CAP_KILL\nCapabilityBoundingSet=CAP_SETUID\n";
        assert_eq!(granted(unit).unwrap(), ["bpf", "kill", "setuid"]);
        assert!(granted("[Service]\n").is_err() && granted("CapabilityBoundingSet=~BPF\n").is_err());
    }
}
