//! Whether what is in `packaging/` is sound, by the word of the program that will read it.
//!
//! JSON parses; the agent accepts its configuration; promtool accepts rules and runs their tests; systemd accepts
//! units, and the agent its capabilities under them; bash accepts scripts. A checker that is not on this machine is named, and its files are passed over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::confinement;
use crate::setup::{self, Needs};
use crate::workspace::{Profile, Workspace, on_path, relative};

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    setup::prepare(workspace, Needs { tests: true, ..Needs::default() })?;
    workspace.build(Profile::Dev)?;
    let folder = workspace.root.join("packaging");
    let mut files = Vec::new();
    collect(&folder, &mut files)?;
    files.sort();
    let mut wrong = 0;
    for path in &files {
        let verdict = judge(workspace, path);
        let name = relative(&workspace.root, path).display();
        match verdict {
            Ok(by) => println!("packaging: {name}: {by}"),
            Err(error) => {
                println!("packaging: {name}: {error:#}");
                wrong += 1;
            }
        }
    }
    if wrong > 0 {
        bail!("{wrong} of {} files in packaging/ are not sound", files.len());
    }
    Ok(())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let list = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in list {
        let path = entry.with_context(|| format!("cannot list {}", directory.display()))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Who found the file sound, or what is wrong with it.
fn judge(workspace: &Workspace, path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).context("cannot be read")?;
    let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let agent = workspace.binary(Profile::Dev, "kvmeter");
    let by = match extension.as_str() {
        "json" => serde_json::from_str::<serde_json::Value>(&text).map(|_value| "JSON").context("is no JSON"),
        "toml" => {
            asked(Command::new(agent).args(["config", "check", "--config"]).arg(path)).map(|()| "accepted by kvmeter")
        }
        "service" => {
            let by = service(workspace, &text, path)?;
            return Ok(format!("{by}; {}", confinement::check(workspace, &text)?));
        }
        "sh" | "postinst" | "prerm" | "postrm" | "preinst" => {
            asked(Command::new("bash").arg("-n").arg(path)).map(|()| "accepted by bash")
        }
        "yml" | "yaml" => prometheus(&text, path),
        _other => Ok("not checked"),
    };
    by.map(str::to_owned)
}

fn prometheus(text: &str, path: &Path) -> Result<&'static str> {
    let starts = |key: &str| text.lines().any(|line| line.starts_with(key));
    if on_path("promtool").is_none() {
        return Ok("not checked: no promtool here");
    }
    if starts("rule_files:") && starts("tests:") {
        return asked(Command::new("promtool").args(["test", "rules"]).arg(path)).map(|()| "passed by promtool");
    }
    if starts("groups:") {
        return asked(Command::new("promtool").args(["check", "rules"]).arg(path)).map(|()| "accepted by promtool");
    }
    Ok("not checked")
}

/// systemd wants the program that a unit starts to exist, so it is shown a copy that starts the one just built.
fn service(workspace: &Workspace, text: &str, path: &Path) -> Result<&'static str> {
    if on_path("systemd-analyze").is_none() {
        return Ok("not checked: no systemd-analyze here");
    }
    let agent = workspace.binary(Profile::Dev, "kvmeter");
    let folder = workspace.target("packaging");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let copy = folder.join(path.file_name().unwrap_or_default());
    fs::write(&copy, text.replace("/usr/bin/kvmeter", &agent.to_string_lossy()))
        .with_context(|| format!("cannot write {}", copy.display()))?;
    let mut command = Command::new("systemd-analyze");
    let ran = command.args(["verify", "--man=no"]).arg(&copy).output().context("cannot run systemd-analyze")?;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    // It lets an unknown key pass with a warning; what it says of the machine's own units does not matter here.
    let name = copy.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let about: Vec<_> = said.lines().filter(|line| line.contains(&name)).collect();
    if !ran.status.success() || !about.is_empty() {
        bail!("{}", if about.is_empty() { said.trim().to_owned() } else { about.join("\n") });
    }
    Ok("accepted by systemd")
}

/// Runs a checker; what it says is the error.
fn asked(command: &mut Command) -> Result<()> {
    let ran = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !ran.status.success() {
        let said = [ran.stdout, ran.stderr].concat();
        bail!("{}", String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}
