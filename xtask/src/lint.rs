//! `cargo xtask lint`: formatting, clippy for the host and for the kernel programs, and the architecture's edges.
//!
//! Kernel programs compile for no host, so their clippy is the one beside the BPF compiler, with the flags that
//! `agent/build.rs` gives. All parts run, whichever fail.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::setup::{self, Needs};
use crate::stamp::Stamp;
use crate::workspace::{Workspace, run};
use crate::{edges, toolchain};

pub(crate) fn lint(workspace: &Workspace) -> Result<()> {
    let stamp = setup::prepare(workspace, Needs { lint: true, ..Needs::default() })?;
    let parts: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("rustfmt", &|| format(workspace)),
        ("clippy", &|| host(workspace)),
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
    run(&mut command, "clippy")
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
    run(&mut kernel_command(workspace, stamp, &clippy), "clippy for the kernel programs")
}

/// The `cargo-clippy` beside the cargo that builds the kernel programs.
pub(crate) fn kernel_clippy(stamp: &Stamp) -> PathBuf {
    stamp.cargo.with_file_name("cargo-clippy")
}

fn kernel_command(workspace: &Workspace, stamp: &Stamp, clippy: &std::path::Path) -> Command {
    let target = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", stamp.linker.display()),
        "-Clink-arg=--btf".to_owned(),
    ];
    let mut command = toolchain::clean(clippy);
    command
        .current_dir(&workspace.root)
        .env("CARGO", &stamp.cargo)
        .env("RUSTC", &stamp.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args(["clippy", "--release", "--bins", "--package", "kvmeter-ebpf", "--target", target])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(workspace.target("ebpf"))
        .args(["--", "-D", "warnings"]);
    command
}
