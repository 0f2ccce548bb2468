//! `cargo xtask bench`: builds what measures and what is measured, and runs it as root.
//!
//! `kvmeter-bench` does the measuring; here is only where things come from and go to. `docs/performance.md` is written
//! only by a whole run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::BenchArgs;
use crate::setup::{self, Needs};
use crate::stamp::Stamp;
use crate::toolchain::{self, PROGRAMS, bpf_target};
use crate::workspace::{Profile, Workspace, on_path, run};

/// `cargo xtask bench`.
pub(crate) fn bench(workspace: &Workspace, args: &BenchArgs) -> Result<()> {
    let stamp = setup::prepare(workspace, Needs { bench: true, ..Needs::default() })?;
    // Kernel programs are always optimised; a short run need not wait for the rest.
    let profile = if args.quick { Profile::Dev } else { Profile::Release };
    workspace.build(profile)?;
    let object = object(workspace, &stamp)?;
    let whole = !args.quick && args.only.is_empty();
    let fresh = workspace.target("bench/performance.md");
    let mut command = as_root(&workspace.binary(profile, "kvmeter-bench"), &object)?;
    command.current_dir(&workspace.root);
    if args.quick {
        command.arg("--quick");
    }
    for part in &args.only {
        command.args(["--only", part]);
    }
    if whole {
        command.arg("--output").arg(&fresh);
    }
    if fresh.exists() {
        fs::remove_file(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
    }
    let outcome = run(&mut command, "the benchmark");
    // A part that failed is told in the table; the others are worth having.
    if whole && fresh.exists() {
        let table = workspace.root.join("docs/performance.md");
        fs::copy(&fresh, &table).with_context(|| format!("cannot write {}", table.display()))?;
        println!("bench: {} written", table.display());
    }
    outcome
}

/// Builds the kernel programs with those to compare them with.
fn object(workspace: &Workspace, stamp: &Stamp) -> Result<PathBuf> {
    let mut command = toolchain::kernel_command(workspace, stamp, &stamp.cargo, &["build", "--quiet"]);
    run(&mut command, "building the kernel programs of the benchmark")?;
    // A copy: the agent's next build puts its own object in this place.
    let object = workspace.target("bench").join(PROGRAMS);
    fs::create_dir_all(workspace.target("bench")).context("cannot make target/bench")?;
    let built = workspace.target("ebpf").join(bpf_target()).join("release").join(PROGRAMS);
    fs::copy(built, &object).with_context(|| format!("cannot write {}", object.display()))?;
    Ok(object)
}

/// The program as root, told where the object is.
fn as_root(program: &Path, object: &Path) -> Result<Command> {
    let setting = format!("KVMETER_BENCH_OBJECT={}", object.display());
    if geteuid().is_root() {
        let mut command = Command::new("env");
        command.arg(setting).arg(program);
        return Ok(command);
    }
    if on_path("sudo").is_none() {
        bail!("the benchmark loads kernel programs and starts VMs: run it as root, for there is no sudo here");
    }
    println!("bench: loading kernel programs and starting VMs needs root; using sudo");
    let mut command = Command::new("sudo");
    command.args(["-E", "env"]).arg(setting).arg(program);
    Ok(command)
}
