//! How much room a file system has.

use std::{io, path::Path};

/// Bytes that an unprivileged writer may still add to the file system of a directory (statvfs(3), `f_bavail`).
///
/// # Errors
/// The system's.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}
