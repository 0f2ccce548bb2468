//! The history on a disk, so that it survives a restart: `<data_dir>/history/`, for the agent's user alone.
//!
//! `<number>.blocks` have sealed blocks, in the order they were sealed, and are only added to; `<number>.open` has all
//! lines and their open blocks as of the last save. Both are made of `frame`s, each with a checksum, holding `record`s.
//! `load` reads them at the start, `save` writes them, `saver` is the thread that does so. Memory has all that the files
//! have: a file is removed when nothing in it is left there, and rewritten when too little is.

mod frame;
mod load;
mod record;
mod save;
mod saver;
#[cfg(test)]
mod tests;

pub use saver::Saver;

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::store::Restored;
use load::Segment;

/// How much may be written.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What memory may take, bytes. Files take one and a half times that at most, and the open blocks.
    pub max_memory: u64,
    /// What is left free on the file system, bytes.
    pub min_free: u64,
}

impl Bounds {
    /// Where a file of sealed blocks is full, bytes.
    fn file_bytes(self) -> u64 {
        (self.max_memory / 32).clamp(64 << 10, 64 << 20)
    }

    /// What all of them may take, bytes.
    const fn total_bytes(self) -> u64 {
        self.max_memory.saturating_add(self.max_memory / 2)
    }

    /// How many may be there: agents that are often restarted leave small ones.
    fn files(self) -> usize {
        usize::try_from(self.total_bytes() / self.file_bytes())
            .unwrap_or(usize::MAX)
            .saturating_mul(2)
            .saturating_add(64)
    }
}

/// What was read at the start.
#[derive(Debug)]
pub struct Read {
    /// The lines.
    pub lines: Vec<Restored>,
    /// Parts of files that are not as they were written; they were left out.
    pub damaged: u64,
    /// Files that were not read, and why.
    pub aside: Vec<(PathBuf, String)>,
}

/// The files, held by this process.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    bounds: Bounds,
    /// Files of sealed blocks, the one that is written now last.
    segments: Vec<Segment>,
    writing: Option<File>,
    /// Files of open blocks.
    opens: Vec<PathBuf>,
    open_bytes: u64,
    next_file: u64,
    /// The number of the next save.
    round: u64,
    /// By line: the number of the first block that is not written yet.
    saved: HashMap<u64, u64>,
    written: u64,
    _held: Flock<File>,
}

impl Disk {
    /// Makes the directory, or reads what is in it.
    ///
    /// # Errors
    /// When it cannot be made, listed or held, or another process holds it.
    pub fn open(dir: &Path, bounds: Bounds) -> io::Result<(Self, Read)> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let held = hold(dir)?;
        let mode = fs::metadata(dir)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        }
        let found = load::load(dir)?;
        for draft in &found.drafts {
            // It takes room and is no use; where it cannot be removed nothing can be written either, and that is told.
            let _ = fs::remove_file(draft);
        }
        let disk = Self {
            dir: dir.to_owned(),
            bounds,
            segments: found.segments,
            writing: None,
            open_bytes: found.opens.iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum(),
            opens: found.opens,
            next_file: found.next_file,
            round: found.next_round,
            saved: found.lines.iter().map(|line| (line.id, line.next)).collect(),
            written: 0,
            _held: held,
        };
        Ok((disk, Read { lines: found.lines, damaged: found.damaged, aside: found.aside }))
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.open_bytes + self.segments.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Bytes written since the start.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }
}

/// Holds the directory itself: that also works where nothing can be written. It is let go with the process.
fn hold(dir: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(dir)?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => io::Error::new(io::ErrorKind::ResourceBusy, "another process keeps its history there"),
        other => other.into(),
    })
}
