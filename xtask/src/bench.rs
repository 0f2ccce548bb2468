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
use crate::toolchain;
use crate::workspace::{Profile, Workspace, on_path, run};

/// The kernel programs' package, and its object's name.
const PROGRAMS: &str = "kvmeter-ebpf";

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

/// Builds the kernel programs with those to compare them with; the flags are those of `agent/build.rs`.
fn object(workspace: &Workspace, stamp: &Stamp) -> Result<PathBuf> {
    let target = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", stamp.linker.display()),
        "-Clink-arg=--btf".to_owned(),
    ];
    let output = workspace.target("ebpf");
    let mut command = toolchain::clean(&stamp.cargo);
    command
        .current_dir(&workspace.root)
        .env("RUSTC", &stamp.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args(["build", "--quiet", "--release", "--bins", "--package", PROGRAMS, "--features", "bench"])
        .args(["--target", target, "-Z", "build-std=core", "--target-dir"])
        .arg(&output);
    run(&mut command, "building the kernel programs of the benchmark")?;
    // A copy: the agent's next build puts its own object in this place.
    let object = workspace.target("bench").join(PROGRAMS);
    fs::create_dir_all(workspace.target("bench")).context("cannot make target/bench")?;
    fs::copy(output.join(target).join("release").join(PROGRAMS), &object)
        .with_context(|| format!("cannot write {}", object.display()))?;
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
