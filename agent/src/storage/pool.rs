//! A configured pool: a directory, and which of its files are whose.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::pattern::{MAX_DEPTH, Name, Pattern};
use crate::units::Bytes;

/// Pools of one host.
pub const MAX_POOLS: usize = 16;
/// Patterns of one kind in one pool.
pub const MAX_PATTERNS: usize = 16;

/// A directory with images and snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The directory.
    pub path: PathBuf,
    /// Patterns of images.
    pub images: Vec<Pattern>,
    /// Patterns of snapshots; these are tried first.
    pub snapshots: Vec<Pattern>,
    /// A size that changed by less is told once it has come to rest.
    pub resize_step: Bytes,
    /// Between two looks that nothing asked for.
    pub interval: Duration,
}

impl Pool {
    /// What a file is by its path from the pool's directory; the first pattern that fits, snapshots' before images'.
    #[must_use]
    pub fn name(&self, path: &[&str]) -> Option<Name> {
        self.snapshots.iter().chain(&self.images).find_map(|pattern| pattern.read(path))
    }

    /// What a file is by its whole path.
    #[must_use]
    pub fn name_of(&self, path: &str) -> Option<Name> {
        let rest = Path::new(path).strip_prefix(&self.path).ok()?;
        let parts: Option<Vec<&str>> = rest.components().map(|part| part.as_os_str().to_str()).collect();
        self.name(&parts?)
    }

    /// Whether a directory can hold files of the pool.
    #[must_use]
    pub fn enters(&self, dir: &[&str]) -> bool {
        dir.len() < MAX_DEPTH && self.snapshots.iter().chain(&self.images).any(|pattern| pattern.enters(dir))
    }

    /// Whether a path is below this pool's directory.
    #[must_use]
    pub fn holds(&self, path: &str) -> bool {
        Path::new(path).starts_with(&self.path)
    }
}
