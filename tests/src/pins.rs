//! A bpffs of a test's own, where its agents pin: what lies there, and nothing of it left when dropped.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// A bpffs that nobody else uses. Its unmounting lets everything pinned in it go.
#[derive(Debug)]
pub struct Bpffs(TempDir);

impl Bpffs {
    /// Mounts one.
    pub fn mount() -> Result<Self> {
        let dir = TempDir::new()?;
        mount(Some("bpf"), dir.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("no bpffs can be mounted")?;
        Ok(Self(dir))
    }

    /// Where an agent is to pin.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.0.path().join("kvmeter")
    }

    /// Every pin, by its path below [`Self::dir`].
    pub fn pins(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        collect(&self.dir(), &self.dir(), &mut all)?;
        all.sort();
        Ok(all)
    }

    /// The same, but for a book of networks in the making: it takes the place of the last one in a moment.
    pub fn settled(&self) -> Result<Vec<String>> {
        Ok(self.pins()?.into_iter().filter(|pin| !pin.ends_with("/net/next")).collect())
    }
}

fn collect(top: &Path, dir: &Path, all: &mut Vec<String>) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(top, &path, all)?;
        } else {
            all.push(path.strip_prefix(top)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}
