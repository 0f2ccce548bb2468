//! A Rust that can compile for BPF: any compiler with the sources of `core` beside it.
//!
//! First everything that is already on the machine (a rustup nightly, then the distribution's), then what can be had:
//! `rust-src` for an existing nightly, the distribution's packages, a nightly. Compilers are called by their own path,
//! never through rustup's proxies, and no default changes. `KVMETER_TOOLCHAIN=rustup|distribution` narrows the choice.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::install;
use crate::linker::LLVM;
use crate::stamp::Stamp;
use crate::workspace::{Workspace, on_path, output, shown};

/// The oldest minor release of Rust 1 that compiles the workspace.
const OLDEST_MINOR: u32 = 95;
pub(crate) const RUSTUP: &str = "rustup";
pub(crate) const DISTRIBUTION: &str = "distribution";

/// A compiler with its cargo and the sources of `core`.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    pub(crate) kind: &'static str,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    /// What `rustc --version` says.
    pub(crate) version: String,
    /// The major version of its LLVM, which the linker's must not be older than.
    pub(crate) llvm: u32,
}

/// Finds a toolchain, or installs one.
pub(crate) fn obtain() -> Result<Toolchain> {
    if let Some(found) = find() {
        println!("setup: {} ({})", found.version, found.rustc.display());
        return Ok(found);
    }
    for (kind, step) in
        [(RUSTUP, add_sources as fn() -> Result<()>), (DISTRIBUTION, install::rust), (RUSTUP, add_nightly)]
    {
        if !wanted(kind) {
            continue;
        }
        match step() {
            Ok(()) => {}
            Err(error) => println!("setup: {error:#}"),
        }
        if let Some(found) = find() {
            println!("setup: {} ({})", found.version, found.rustc.display());
            return Ok(found);
        }
    }
    bail!(
        "no Rust 1.{OLDEST_MINOR} or later with the sources of `core` is to be had: install a rustup nightly with \
         `rustup toolchain install nightly --component rust-src`, or the distribution's rustc, cargo and rust-src"
    )
}

/// Whether `KVMETER_TOOLCHAIN` lets this kind in.
pub(crate) fn wanted(kind: &str) -> bool {
    env::var("KVMETER_TOOLCHAIN").map_or(true, |only| only.is_empty() || only == kind)
}

/// The kernel programs' package, and its object's name.
pub(crate) const PROGRAMS: &str = "kvmeter-ebpf";

/// The target that the kernel programs are compiled for.
pub(crate) const fn bpf_target() -> &'static str {
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

/// A cargo command about the kernel programs, those of the benchmark included; the flags are those of `agent/build.rs`.
pub(crate) fn kernel_command(workspace: &Workspace, stamp: &Stamp, program: &Path, subcommand: &[&str]) -> Command {
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", stamp.linker.display()),
        "-Clink-arg=--btf".to_owned(),
    ];
    let mut command = clean(program);
    command
        .current_dir(&workspace.root)
        .env("RUSTC", &stamp.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args(subcommand)
        .args(["--release", "--bins", "--package", PROGRAMS, "--features", "bench"])
        .args(["--target", bpf_target(), "-Z", "build-std=core", "--target-dir"])
        .arg(workspace.target("ebpf"));
    command
}

/// A command that no outer cargo or rustup proxy tells which toolchain or libraries to use.
pub(crate) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in [
        "CARGO",
        "RUSTUP_TOOLCHAIN",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "LD_LIBRARY_PATH",
    ] {
        command.env_remove(name);
    }
    command
}

fn find() -> Option<Toolchain> {
    let nightlies = nightlies().into_iter().map(|home| (RUSTUP, home.join("bin")));
    let distribution = versioned().into_iter().map(|home| (DISTRIBUTION, home.join("bin")));
    nightlies
        .chain([(DISTRIBUTION, PathBuf::from("/usr/bin"))])
        .chain(distribution)
        .filter(|(kind, _)| wanted(kind))
        .find_map(|(kind, directory)| inspect(kind, &directory))
}

/// The rustup nightlies, the undated one first.
fn nightlies() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")));
    let mut found = home.map(|home| entries(&home.join("toolchains"), "nightly")).unwrap_or_default();
    found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    found
}

/// Ubuntu's `rustc-1.NN` packages live in directories of their own; the newest first.
fn versioned() -> Vec<PathBuf> {
    let mut found = entries(Path::new("/usr/lib"), "rust-1.");
    found.sort();
    found.reverse();
    found
}

fn entries(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    list.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(named).collect()
}

/// The toolchain in this directory, if it is complete and new enough.
fn inspect(kind: &'static str, directory: &Path) -> Option<Toolchain> {
    let rustc = directory.join("rustc");
    let cargo = directory.join("cargo");
    let about = output(clean(&rustc).arg("-vV"))?;
    let sysroot = output(clean(&rustc).args(["--print", "sysroot"]))?;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    let (minor, llvm) = versions(&about)?;
    let usable = minor >= OLDEST_MINOR && LLVM.contains(&llvm) && sources.is_file() && cargo.is_file();
    let version = about.lines().next()?.to_owned();
    usable.then_some(Toolchain { kind, cargo, rustc, version, llvm })
}

/// The minor release of Rust 1 and the major version of LLVM in what `rustc -vV` prints.
fn versions(about: &str) -> Option<(u32, u32)> {
    let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name));
    let minor = field("release: 1.")?.split('.').next()?.parse().ok()?;
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((minor, llvm))
}

/// Asks rustup for the sources of a nightly that lacks them.
fn add_sources() -> Result<()> {
    let Some(home) = nightlies().into_iter().next() else {
        return Ok(());
    };
    let name = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
    rustup(&["component", "add", "rust-src", "--toolchain", &name], "60")
}

/// Asks rustup for a nightly where there is none.
fn add_nightly() -> Result<()> {
    if !nightlies().is_empty() {
        return Ok(());
    }
    rustup(
        &[
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src,clippy",
            "--no-self-update",
        ],
        "600",
    )
}

/// Runs rustup, with a time limit: behind a firewall that drops packets it would wait for ever.
fn rustup(arguments: &[&str], seconds: &str) -> Result<()> {
    let Some(rustup) = on_path("rustup") else { return Ok(()) };
    // rustup's own word for a machine whose toolchains are somebody's business.
    if env::var_os("RUSTUP_AUTO_INSTALL").is_some_and(|value| value == "0") {
        bail!("RUSTUP_AUTO_INSTALL=0 forbids rustup to install anything");
    }
    let mut command = Command::new("timeout");
    command.arg(seconds).arg(rustup).args(arguments);
    command.env("RUSTUP_MAX_RETRIES", "0").env_remove("RUSTUP_TOOLCHAIN");
    println!("setup: trying {}", shown(&command));
    let said = command.output()?;
    if !said.status.success() {
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        let why = text.lines().find(|line| line.contains("error")).unwrap_or("no answer in time");
        bail!("rustup has none: {why}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_rustc_says_of_itself() {
        let about = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(versions(about), Some((96, 22)));
        assert_eq!(versions("rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4"), Some((97, 22)));
        assert_eq!(versions("rustc 1.96.0\n"), None);
    }
}
