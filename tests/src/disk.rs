//! Files on a real disk, for VMs to read and write.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use anyhow::Result;
use tempfile::TempDir;

/// A directory on a disk: not a tmpfs, which does no I/O.
pub fn on_disk() -> Result<TempDir> {
    Ok(TempDir::new_in("/var/tmp")?)
}

/// A file whose blocks are all written, so that writing it again changes its data alone.
pub fn image(dir: &TempDir, name: &str, bytes: u64) -> Result<PathBuf> {
    let path = dir.path().join(name);
    fs::write(&path, vec![1; usize::try_from(bytes)?])?;
    File::open(&path)?.sync_all()?;
    Ok(path)
}
