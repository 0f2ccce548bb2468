//! `cargo xtask setup`: what the kernel side and the page need, found or installed, and written down.
//!
//! The second time it only asks the compiler and the linker for their versions. Nothing is put outside `target/`
//! except the distribution's own packages, and no default toolchain changes.

use std::fs;

use anyhow::{Context, Result};

use crate::install;
use crate::lint::kernel_clippy;
use crate::stamp::Stamp;
use crate::workspace::Workspace;
use crate::{linker, page, toolchain};

/// What is wanted beside the BPF toolchain.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Needs {
    pub(crate) tests: bool,
    pub(crate) lint: bool,
    pub(crate) bench: bool,
    /// What booting other kernels takes.
    pub(crate) kernels: bool,
}

/// `cargo xtask setup`.
pub(crate) fn setup(workspace: &Workspace, needs: Needs) -> Result<()> {
    let stamp = prepare(workspace, needs)?;
    println!("setup: ready: {}, {}", stamp.toolchain, linker::VERSION_LINE);
    Ok(())
}

/// The same for another command: silent if all is there.
pub(crate) fn prepare(workspace: &Workspace, needs: Needs) -> Result<Stamp> {
    let stamp = match Stamp::valid(workspace) {
        Some(stamp) => stamp,
        None => kernel_side(workspace)?,
    };
    page::obtain(workspace)?;
    if needs.lint && !kernel_clippy(&stamp).is_file() && stamp.kind == toolchain::DISTRIBUTION {
        install::clippy()?;
    }
    if needs.tests {
        install::for_tests();
    }
    if needs.bench {
        install::for_bench();
    }
    if needs.kernels {
        install::for_kernels()?;
    }
    Ok(stamp)
}

fn kernel_side(workspace: &Workspace) -> Result<Stamp> {
    let target = workspace.target("");
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    let toolchain = toolchain::obtain()?;
    let linker = linker::obtain(workspace, toolchain.llvm)?;
    let stamp = Stamp::new(&toolchain, linker);
    stamp.write(workspace)?;
    Ok(stamp)
}
