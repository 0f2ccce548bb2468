//! Builds the kernel programs and hands the object to the agent as `OUT_DIR/kvmeter-ebpf`.
//!
//! It decides nothing about toolchains: `cargo xtask setup` wrote down in `target/setup.stamp` which cargo, rustc and
//! linker compile for BPF, and this script runs them. Their output goes to `target/ebpf`, one directory for every
//! profile and for clippy, with its own lock, so that the outer cargo is never waited for. `KVMETER_EBPF_OBJECT`
//! names a ready object instead. What fails is said in one sentence.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The kernel programs' package, binary and object, all of one name.
const PROGRAMS: &str = "kvmeter-ebpf";

/// The page's charting library.
const CHARTS: [&str; 2] = ["uPlot.iife.min.js", "uPlot.min.css"];

/// What the outer cargo, clippy, rust-analyzer or rustup put into the environment and the inner cargo must not see.
const FOREIGN: [&str; 11] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

fn main() -> Outcome<()> {
    let root = workspace_root()?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=KVMETER_GIT_COMMIT={}", git_commit(&root));
    if let Err(error) = provide(&root) {
        // Cargo shows this as one `error:` line; a non-zero exit would bury it under the script's environment.
        println!("cargo::error={}", error.to_string().replace('\n', " "));
    }
    if let Err(error) = charts(&root) {
        println!("cargo::error={}", error.to_string().replace('\n', " "));
    }
    Ok(())
}

/// Puts the page's charting library, which `cargo xtask setup` brought, where the agent includes it from.
fn charts(root: &Path) -> Outcome<()> {
    println!("cargo::rerun-if-env-changed=KVMETER_UPLOT_DIR");
    let given = env::var_os("KVMETER_UPLOT_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    let from = given.unwrap_or_else(|| root.join("target/page/node_modules/uplot/dist"));
    for name in CHARTS {
        let path = from.join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        let bytes = fs::read(&path).map_err(|_absent| {
            format!(
                "{} is not there: run `cargo xtask setup` once (it installs the page's charting library under target/)",
                path.display()
            )
        })?;
        fs::write(PathBuf::from(env::var("OUT_DIR")?).join(name), bytes)?;
    }
    Ok(())
}

/// Puts the object where the agent includes it from.
fn provide(root: &Path) -> Outcome<()> {
    let object = ready_object().map_or_else(|| build(root), Ok)?;
    let bytes = fs::read(&object).map_err(|e| format!("cannot read the kernel programs {}: {e}", object.display()))?;
    let copy = PathBuf::from(env::var("OUT_DIR")?).join(PROGRAMS);
    if fs::read(&copy).ok().as_deref() != Some(&bytes) {
        fs::write(&copy, &bytes).map_err(|e| format!("cannot write {}: {e}", copy.display()))?;
    }
    Ok(())
}

fn workspace_root() -> Outcome<PathBuf> {
    let agent = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = agent.parent().ok_or("the agent's package has no directory above it")?;
    Ok(root.to_path_buf())
}

/// The object that the builder of this package made by other means, if there is one.
fn ready_object() -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed=KVMETER_EBPF_OBJECT");
    let path = PathBuf::from(env::var_os("KVMETER_EBPF_OBJECT").filter(|value| !value.is_empty())?);
    println!("cargo::rerun-if-changed={}", path.display());
    Some(path)
}

fn build(root: &Path) -> Outcome<PathBuf> {
    for sources in ["agent-ebpf", "agent-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(sources).display());
    }
    let tools = stamp(&root.join("target/setup.stamp"))?;
    let output = root.join("target/ebpf");
    let target = bpf_target()?;
    let mut cargo = Command::new(tool(&tools, "cargo")?);
    for name in FOREIGN {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(root)
        .env("RUSTC", tool(&tools, "rustc")?)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(tool(&tools, "linker")?)?)
        .args(["build", "--quiet", "--release", "--bins", "--package", PROGRAMS])
        .args(["--target", target, "-Z", "build-std=core", "--target-dir"])
        .arg(&output);
    let ran = cargo.output().map_err(|e| format!("cannot run {}: {e}", cargo.get_program().display()))?;
    if !ran.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&ran.stderr));
        for line in String::from_utf8_lossy(&ran.stderr).lines() {
            println!("cargo::warning={line}");
        }
        return Err("the kernel programs do not build: see the lines above; if the toolchain changed, run `cargo xtask setup` once".into());
    }
    Ok(output.join(target).join("release").join(PROGRAMS))
}

/// What `cargo xtask setup` wrote: `key=value` lines.
fn stamp(path: &Path) -> Outcome<BTreeMap<String, String>> {
    println!("cargo::rerun-if-changed={}", path.display());
    let text = fs::read_to_string(path).map_err(|_absent| {
        "kernel programs cannot be built yet: run `cargo xtask setup` once (it installs the BPF toolchain under target/)"
    })?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn tool<'a>(tools: &'a BTreeMap<String, String>, key: &str) -> Outcome<&'a str> {
    let found = tools.get(key).filter(|path| Path::new(path).exists());
    let missing = || format!("the BPF toolchain that was set up has lost its {key}: run `cargo xtask setup` once");
    Ok(found.ok_or_else(missing)?)
}

fn bpf_target() -> Outcome<&'static str> {
    match env::var("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => Ok("bpfeb-unknown-none"),
        _little => Ok("bpfel-unknown-none"),
    }
}

/// The flags that aya-build gives, and the linker. xtask's lint gives the same, so that `core` is built once.
fn rustflags(linker: &str) -> Outcome<String> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    Ok([
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={linker}"),
        "-Clink-arg=--btf".to_owned(),
    ]
    .join("\u{1f}"))
}

/// The commit this is built from, or `unknown` outside a git work tree.
fn git_commit(root: &Path) -> String {
    println!("cargo::rerun-if-env-changed=KVMETER_GIT_COMMIT");
    if let Ok(given) = env::var("KVMETER_GIT_COMMIT") {
        return given;
    }
    if let Some(directory) = git(root, &["rev-parse", "--absolute-git-dir"]) {
        let directory = PathBuf::from(directory);
        // The reflog grows with every commit and checkout; HEAD alone stays the same while its branch moves. Where
        // there is no reflog yet, the first commit makes a branch. Only what exists is named: cargo would rerun for
        // ever for the sake of a missing file.
        let log = directory.join("logs/HEAD");
        let moves = if log.exists() { log } else { directory.join("refs/heads") };
        for watched in [directory.join("HEAD"), moves].iter().filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", watched.display());
        }
    }
    git(root, &["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let ran = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(ran.stdout).ok()?;
    (ran.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
