//! `target/setup.stamp`: which tools compile for BPF, as `key=value` lines.
//!
//! `setup` writes it, `lint` and `agent/build.rs` read it. A stamp holds only as long as its tools still answer with
//! what they answered then. It is written only when it changes, for a newer one rebuilds the agent.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::toolchain::{self, Toolchain};
use crate::workspace::{Workspace, output};

/// Bumped when the keys change their meaning; an older stamp is then made anew.
const VERSION: &str = "1";
const FILE: &str = "setup.stamp";

/// What compiles and links the kernel programs.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    pub(crate) kind: String,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
    /// What `rustc --version` said.
    pub(crate) toolchain: String,
}

impl Stamp {
    pub(crate) fn new(toolchain: &Toolchain, linker: PathBuf) -> Self {
        Self {
            kind: toolchain.kind.to_owned(),
            cargo: toolchain.cargo.clone(),
            rustc: toolchain.rustc.clone(),
            linker,
            toolchain: toolchain.version.clone(),
        }
    }

    /// The stamp, if there is one and what it names is still so.
    pub(crate) fn valid(workspace: &Workspace) -> Option<Self> {
        let stamp = parse(&fs::read_to_string(workspace.target(FILE)).ok()?)?;
        let moved = stamp.linker != crate::linker::path(workspace);
        let unwanted = !toolchain::wanted(&stamp.kind);
        if moved || unwanted || !stamp.cargo.is_file() {
            return None;
        }
        let rustc = output(toolchain::clean(&stamp.rustc).arg("--version"))?;
        // Runs the linker as well: it is bound to a shared LLVM that an upgrade may have taken away.
        let linker = output(Command::new(&stamp.linker).arg("--version"))?;
        (rustc.trim() == stamp.toolchain && linker.trim() == crate::linker::VERSION_LINE).then_some(stamp)
    }

    pub(crate) fn write(&self, workspace: &Workspace) -> Result<()> {
        let path = workspace.target(FILE);
        let text = format!(
            "version={VERSION}\nkind={}\ncargo={}\nrustc={}\nlinker={}\ntoolchain={}\n",
            self.kind,
            self.cargo.display(),
            self.rustc.display(),
            self.linker.display(),
            self.toolchain,
        );
        if fs::read_to_string(&path).is_ok_and(|before| before == text) {
            return Ok(());
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Makes the next setup look at everything again.
pub(crate) fn forget(workspace: &Workspace) -> Result<()> {
    let path = workspace.target(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _gone => Ok(()),
    }
}

fn parse(text: &str) -> Option<Stamp> {
    let value = |key: &str| text.lines().filter_map(|line| line.split_once('=')).find(|(name, _)| *name == key);
    let value = |key: &str| value(key).map(|(_, value)| value.to_owned());
    if value("version")? != VERSION {
        return None;
    }
    Some(Stamp {
        kind: value("kind")?,
        cargo: value("cargo")?.into(),
        rustc: value("rustc")?.into(),
        linker: value("linker")?.into(),
        toolchain: value("toolchain")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_another_version_or_with_a_key_missing_is_none() {
        let full = "version=1\nkind=rustup\ncargo=/c\nrustc=/r\nlinker=/l\ntoolchain=rustc 1.96.0 (a=b)\n";
        assert_eq!(parse(full).unwrap().toolchain, "rustc 1.96.0 (a=b)");
        assert!(parse(&full.replace("version=1", "version=0")).is_none());
        assert!(parse(&full.replace("linker=", "linkr=")).is_none());
        assert!(parse("").is_none());
    }
}
