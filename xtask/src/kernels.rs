//! `cargo xtask kernels`: the agent and its checks on Debian's kernels, each booted in software emulation.
//!
//! KVM runs inside on emulated SVM, so guest entries and exits are real, which no CI machine's own KVM need have. The long
//! form boots all kernels, runs some of the test programs too and writes `docs/kernels.md`; the short form boots the
//! oldest and the newest and holds what it saw against that file.

mod apt;
pub(crate) mod boot;
mod cpio;
pub(crate) mod fetch;
pub(crate) mod list;
mod modules;
mod parcel;
mod report;
pub(crate) mod statics;
mod table;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::setup::{self, Needs};
use crate::workspace::Workspace;
use fetch::Fetched;
use list::Kernel;
use report::Column;
use statics::Program;

pub(crate) use apt::KEYRING;

/// Machines at a time. Each is emulated by one thread, and the hosts that this is for have two CPUs.
const AT_ONCE: usize = 2;

/// Where the types of each kernel are kept, for tests of field offsets.
pub(crate) const TYPES: &str = "kernels/btf";

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct KernelsArgs {
    /// Only the oldest and the newest kernel, without the test programs, and write nothing
    #[arg(long)]
    pub(crate) short: bool,
    /// Only this kernel, such as 6.1, and write nothing
    #[arg(long, value_name = "SERIES")]
    pub(crate) only: Option<String>,
}

/// `cargo xtask kernels`.
pub(crate) fn kernels(workspace: &Workspace, args: &KernelsArgs) -> Result<()> {
    let chosen = list::chosen(args)?;
    setup::prepare(workspace, Needs { kernels: true, ..Needs::default() })?;
    let programs = statics::build(workspace, !args.short)?;
    let fetch = |kernel| Ok((kernel, fetch::fetch(&workspace.target("kernels"), kernel)?));
    let fetched = chosen.into_iter().map(fetch).collect::<Result<Vec<_>>>()?;
    let mut columns = Vec::new();
    for pair in fetched.chunks(AT_ONCE) {
        columns.extend(thread::scope(|scope| {
            let boots: Vec<_> = pair
                .iter()
                .map(|(kernel, fetched)| scope.spawn(|| column(workspace, kernel, fetched, &programs, args.short)))
                .collect();
            let join = |boot: thread::ScopedJoinHandle<'_, _>| boot.join().unwrap_or_else(|_| bail!("a boot panicked"));
            // All are waited for, whichever fail.
            boots.into_iter().map(join).collect::<Vec<_>>().into_iter().collect::<Result<Vec<_>>>()
        })?);
    }
    let document = workspace.root.join("docs/kernels.md");
    if args.short || args.only.is_some() {
        table::compare(&document, &columns)?;
    } else {
        table::write(&document, &columns)?;
        println!("kernels: {} written", document.display());
    }
    let failed: Vec<_> = columns.iter().flat_map(Column::failures).collect();
    if !failed.is_empty() {
        bail!("{} checks failed:\n{}", failed.len(), failed.join("\n"));
    }
    Ok(())
}

/// Boots one, and what it told.
fn column(
    workspace: &Workspace,
    kernel: &Kernel,
    fetched: &Fetched,
    programs: &[Program],
    short: bool,
) -> Result<Column> {
    let began = Instant::now();
    println!("kernels: {}: booting {}", kernel.series, fetched.release);
    let folder = workspace.target("kernels").join(kernel.series);
    let files = boot::boot(&folder, kernel.series, fetched, programs, short)?;
    keep_types(workspace, &fetched.release, &files)?;
    let column = Column::new(kernel.series, &fetched.release, &files)?;
    println!("kernels: {}: {column} in {:.0} s", kernel.series, began.elapsed().as_secs_f64());
    Ok(column)
}

/// Keeps a kernel's types as `target/kernels/btf/RELEASE`.
fn keep_types(workspace: &Workspace, release: &str, files: &parcel::Files) -> Result<()> {
    let directory: PathBuf = workspace.target(TYPES);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let types = files.get("vmlinux").context("the machine brought no types of its kernel")?;
    let path = directory.join(release);
    fs::write(&path, types).with_context(|| format!("cannot write {}", path.display()))
}
