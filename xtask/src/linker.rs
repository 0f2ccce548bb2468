//! `bpf-linker`, built from crates.io into `target/tools` against the LLVM that is here.
//!
//! Its LLVM must not be older than the compiler's, for it reads the compiler's bitcode. The build takes half a minute
//! and is done once; what it compiled on the way is removed.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::install;
use crate::workspace::{Workspace, on_path, output, run};

const VERSION: &str = "0.13.0";
/// What it prints for `--version`.
pub(crate) const VERSION_LINE: &str = "bpf-linker 0.13.0";
/// The LLVM versions that this bpf-linker can be built for.
pub(crate) const LLVM: RangeInclusive<u32> = 21..=23;

/// Development files of one LLVM.
#[derive(Debug)]
struct Llvm {
    major: u32,
    prefix: PathBuf,
}

pub(crate) fn path(workspace: &Workspace) -> PathBuf {
    workspace.target("tools/bin/bpf-linker")
}

/// Finds the linker for a compiler of this LLVM version, or builds it.
pub(crate) fn obtain(workspace: &Workspace, llvm: u32) -> Result<PathBuf> {
    let path = path(workspace);
    if works(workspace, llvm) {
        println!("setup: {VERSION_LINE} ({})", path.display());
        return Ok(path);
    }
    let llvm = obtain_llvm(llvm)?;
    build(workspace, &llvm)?;
    if !works(workspace, llvm.major) {
        bail!("bpf-linker was built but does not run: try `{} --version`", path.display());
    }
    Ok(path)
}

/// Whether the linker is there, runs, and was built for an LLVM that is new enough.
fn works(workspace: &Workspace, llvm: u32) -> bool {
    let said = output(Command::new(path(workspace)).arg("--version"));
    let list = fs::read_to_string(workspace.target("tools/.crates2.json")).unwrap_or_default();
    let suits = (llvm..=*LLVM.end()).any(|major| list.contains(&format!("\"llvm-{major}\"")));
    suits && said.is_some_and(|line| line.trim() == VERSION_LINE)
}

fn build(workspace: &Workspace, llvm: &Llvm) -> Result<()> {
    let scratch = workspace.target("tools/build");
    println!("setup: building bpf-linker {VERSION} for LLVM {} (about half a minute)", llvm.major);
    let mut command = workspace.cargo();
    command
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--quiet"])
        .args(["--no-default-features", "--features", &format!("llvm-{}", llvm.major)])
        .arg("--root")
        .arg(workspace.target("tools"))
        .arg("--target-dir")
        .arg(&scratch)
        .env("LLVM_PREFIX", &llvm.prefix)
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    let built = run(&mut command, "building bpf-linker");
    // A cache of half a gigabyte that nothing will use again; what stays of it does no harm.
    let _left = fs::remove_dir_all(&scratch);
    built
}

fn obtain_llvm(oldest: u32) -> Result<Llvm> {
    if let Some(found) = find_llvm(oldest) {
        return Ok(found);
    }
    install::llvm(oldest..=*LLVM.end())?;
    match find_llvm(oldest) {
        Some(found) => Ok(found),
        None => bail!(
            "bpf-linker needs the development files of LLVM {oldest} or newer: install llvm-{oldest}-dev or your distribution's like"
        ),
    }
}

fn find_llvm(oldest: u32) -> Option<Llvm> {
    (oldest..=*LLVM.end()).find_map(|major| {
        let own = [format!("/usr/lib/llvm-{major}/bin/llvm-config"), format!("/usr/lib64/llvm{major}/bin/llvm-config")];
        let named = [format!("llvm-config-{major}"), format!("llvm-config-{major}-64"), "llvm-config".to_owned()];
        let own = own.into_iter().map(PathBuf::from);
        own.chain(named.iter().filter_map(|name| on_path(name))).find_map(|config| inspect(&config, major))
    })
}

/// The LLVM that this `llvm-config` belongs to, if it is of this version and has its shared library.
fn inspect(config: &Path, major: u32) -> Option<Llvm> {
    let ask = |what: &str| output(Command::new(config).arg(what)).map(|answer| answer.trim().to_owned());
    let version = ask("--version")?;
    let library = Path::new(&ask("--libdir")?).join("libLLVM.so");
    let fits = version.split('.').next() == Some(major.to_string().as_str()) && library.exists();
    fits.then_some(Llvm { major, prefix: ask("--prefix")?.into() })
}
