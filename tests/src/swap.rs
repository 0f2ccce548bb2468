//! Swap for one test: a file that the kernel may swap to, gone with the guard.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

const SIZE: usize = 64 << 20;

/// Swap space that a test made, unless the host had some; it is taken away when this is dropped.
#[derive(Debug)]
pub struct Swap(Option<PathBuf>);

impl Swap {
    /// What the host has, or 64 MiB in a file.
    pub fn ensure() -> Result<Self> {
        if fs::read_to_string("/proc/swaps")?.lines().count() > 1 {
            return Ok(Self(None));
        }
        // Swap takes a file without holes on a disk; /tmp may be in memory.
        let path = PathBuf::from(format!("/var/tmp/kvmeter-swap-{}", std::process::id()));
        let swap = Self(Some(path.clone()));
        let mut file = File::create(&path).with_context(|| path.display().to_string())?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&vec![0; SIZE])?;
        file.sync_all()?;
        run("mkswap", &path)?;
        run("swapon", &path)?;
        Ok(swap)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Never switched on is as good.
            let _ = run("swapoff", path);
            let _ = fs::remove_file(path);
        }
    }
}

fn run(program: &str, path: &Path) -> Result<()> {
    let output = Command::new(program).arg(path).output().with_context(|| program.to_owned())?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
