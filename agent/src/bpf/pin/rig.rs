//! A bpffs of a test's own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Mounted as long as it is held; what is pinned in it goes with it.
pub(crate) struct Bpffs(tempfile::TempDir);

impl Bpffs {
    pub(crate) fn mount() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(dir.path()).status().expect("mount");
        assert!(mounted.success());
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where interfaces are pinned.
    pub(crate) fn network(&self) -> PathBuf {
        self.path().join("net")
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
