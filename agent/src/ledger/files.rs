//! Where a ledger's lines lie: rotated files, oldest first, and the live one behind them; and how a file beside them is
//! put into its place whole. Names say the number of the first line; what a file holds is read from the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::FILE_NAME;
use super::error::{LedgerError, Op};
use super::torn::sync_dir;

const DIGITS: usize = 20;

/// A file that is no more written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rotated {
    /// The number of its first line, as its name says.
    pub(super) first: u64,
    pub(super) path: PathBuf,
}

/// The files of a ledger at one instant.
#[derive(Debug)]
pub struct Listing {
    /// Oldest first.
    pub(super) rotated: Vec<Rotated>,
    /// The live one, opened before the others were listed, so that a rotation meanwhile leaves no hole between them.
    pub(super) live: Option<File>,
    dir: PathBuf,
}

/// What a file whose first line has this number is called once it is no more written.
pub(super) fn rotated_name(first: u64) -> String {
    format!("ledger-{first:0DIGITS$}.jsonl")
}

/// The number in such a name.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("ledger-")?.strip_suffix(".jsonl")?;
    (digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// The rotated files of a directory, oldest first.
pub(super) fn rotated(dir: &Path) -> io::Result<Vec<Rotated>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let first = path.file_name().and_then(|name| name.to_str()).and_then(first_of);
        found.extend(first.map(|first| Rotated { first, path }));
    }
    found.sort();
    Ok(found)
}

/// Device and inode of an open file.
pub(super) fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|meta| (meta.dev(), meta.ino()))
}

impl Listing {
    /// Lists a directory.
    ///
    /// # Errors
    /// What the file system says; a live file that is not there is none.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let live = match File::open(dir.join(FILE_NAME)) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let mut rotated = rotated(dir)?;
        if let Some(own) = live.as_ref().map(identity).transpose()? {
            // A rotation under way has given the live file its second name already.
            rotated.retain(|one| fs::metadata(&one.path).map_or(true, |meta| (meta.dev(), meta.ino()) != own));
        }
        Ok(Self { rotated, live, dir: dir.to_owned() })
    }

    /// Whether there is no file at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rotated.is_empty() && self.live.is_none()
    }

    /// Opens the files one after another, oldest first.
    ///
    /// # Errors
    /// A rotated file that cannot be opened (retention may have removed it meanwhile), or what `each` returns.
    pub fn each<E: From<io::Error>>(self, mut each: impl FnMut(&Path, File) -> Result<(), E>) -> Result<(), E> {
        for one in self.rotated {
            each(&one.path, File::open(&one.path)?)?;
        }
        match self.live {
            Some(file) => each(&self.dir.join(FILE_NAME), file),
            None => Ok(()),
        }
    }
}

/// Puts a file into its place: written beside it, synced, renamed, its name synced. It is there whole or as it was.
pub(super) fn put(
    dir: &Path,
    name: &str,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), LedgerError> {
    let (path, draft) = (dir.join(name), dir.join(format!("{name}.tmp")));
    let io = |doing, op, source| LedgerError::Io { doing, path: path.clone(), op, source };
    let write = || {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits();
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(flags).open(&draft)?;
        let mut out = BufWriter::new(file);
        fill(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()
    };
    write().map_err(|e| io("write", Op::Write, e))?;
    fs::rename(&draft, &path).map_err(|e| io("replace", Op::Rename, e))?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_name_says_its_first_line_and_sorts_by_it() {
        assert_eq!(rotated_name(7), "ledger-00000000000000000007.jsonl");
        for first in [0, 7, u64::MAX] {
            assert_eq!(first_of(&rotated_name(first)), Some(first));
        }
        for other in ["ledger.jsonl", "ledger-7.jsonl", "ledger-0000000000000000000x.jsonl", "ledger-.jsonl"] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }
}
