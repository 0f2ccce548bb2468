//! The programs that go into a machine, linked statically, for there is no C library inside.
//!
//! They are built apart, in `target/kernels/build`: other flags would rebuild everything else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::workspace::{Workspace, run, shown};

/// Naming a target keeps these flags from build scripts and macros, which cannot be linked so.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Line tables would be most of what a machine has to unpack.
const FLAGS: &str = "-C target-feature=+crt-static -C strip=symbols";
const BINARIES: [&str; 3] = ["kvmeter", "kvmeter-testvm", "kvmeter-kernelcheck"];
/// Test programs of the long form: about VMs' lives, and their interfaces while no agent runs. None needs a program that is
/// not in the machine. The law of `accounting` is among the checks.
const SUITES: [&str; 4] = ["adoption", "lifecycle", "outlive_hands", "outlive_network"];

/// A program to put into a machine.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    file: PathBuf,
}

/// Builds them; with the test programs, if they are wanted.
pub(crate) fn build(workspace: &Workspace, suites: bool) -> Result<Vec<Program>> {
    let mut command = cargo(workspace, "build");
    run(command.args(["--package", "kvmeter", "--bins"]), "building static programs")?;
    let mut programs: Vec<_> =
        BINARIES.iter().map(|name| Program { name: format!("bin/{name}"), file: built(workspace, name) }).collect();
    if suites {
        programs.extend(tests(workspace)?);
    }
    Ok(programs)
}

/// Where a program is once it is built; linked statically it runs on the host as well.
pub(crate) fn built(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.target("kernels/build").join(TARGET).join("debug").join(name)
}

fn cargo(workspace: &Workspace, verb: &str) -> Command {
    let mut command = workspace.cargo();
    command.args([verb, "--package", "kvmeter-tests", "--target", TARGET, "--target-dir"]);
    command.arg(workspace.target("kernels/build")).env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// The test programs, where cargo says it put them.
fn tests(workspace: &Workspace) -> Result<Vec<Program>> {
    let mut command = cargo(workspace, "test");
    command.args(["--no-run", "--message-format=json"]).stderr(Stdio::inherit());
    command.args(SUITES.iter().flat_map(|name| ["--test", name]));
    let ran = command.output().context("cannot run cargo")?;
    if !ran.status.success() {
        bail!("building static test programs failed: {} ended with {}", shown(&command), ran.status);
    }
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let found: Vec<_> = messages
        .filter_map(|message| {
            let file = PathBuf::from(message["executable"].as_str()?);
            let name = message["target"]["name"].as_str().filter(|name| SUITES.contains(name))?;
            Some(Program { name: format!("tests/{name}"), file })
        })
        .collect();
    if found.len() != SUITES.len() {
        bail!("cargo built {} of {} test programs", found.len(), SUITES.len());
    }
    Ok(found)
}

/// Puts programs and their directories into a machine's first file system.
pub(crate) fn add(archive: &mut Archive, programs: &[Program]) -> Result<()> {
    for directory in ["bin", "tests"] {
        archive.directory(directory);
    }
    for program in programs {
        archive.file(&program.name, &read(&program.file)?);
        if program.name.ends_with("-kernelcheck") {
            archive.file("init", &read(&program.file)?);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
