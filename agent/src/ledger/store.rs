//! The one file lines are appended to, and the few things that are ever done to it.
//! [`Store`] is the seam the journal stands on; [`FileStore`] is what runs in production.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// How the open file compares with what stands at its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Bytes in the open file.
    pub bytes: u64,
    /// Whether the path still names the file that was opened first.
    pub in_place: bool,
}

/// What a journal does to its file.
pub trait Store: Send {
    /// Appends all of `bytes`, in one write where the kernel takes it.
    ///
    /// # Errors
    /// The write's; some of the bytes may be in the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything appended durable (`fdatasync`).
    ///
    /// # Errors
    /// The sync's; the kernel may have dropped the pages.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file back to `bytes`.
    ///
    /// # Errors
    /// The truncation's.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;

    /// Drops the descriptor and opens the path anew.
    ///
    /// # Errors
    /// The opening's; the old descriptor stays in use.
    fn reopen(&mut self) -> io::Result<()>;

    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// The read's, or an end before `into` is full.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Looks at the file and its path.
    ///
    /// # Errors
    /// The look's; a missing path is not an error.
    fn standing(&self) -> io::Result<Standing>;
}

/// A regular file opened for appending, mode 0600, never through a symbolic link.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    file: File,
    identity: (u64, u64),
}

impl FileStore {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// The opening's, or that the path names no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open(path, true)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { path: path.to_owned(), file, identity: (meta.dev(), meta.ino()) })
    }

    /// The open file, for reading it from the beginning.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits();
    OpenOptions::new().read(true).append(true).create(create).mode(0o600).custom_flags(flags).open(path)
}

impl Store for FileStore {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path, false)?;
        Ok(())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn standing(&self) -> io::Result<Standing> {
        let own = self.file.metadata()?;
        let named = match fs::symlink_metadata(&self.path) {
            Ok(meta) => Some((meta.dev(), meta.ino())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let in_place = (own.dev(), own.ino()) == self.identity && named == Some(self.identity);
        Ok(Standing { bytes: own.len(), in_place })
    }
}
