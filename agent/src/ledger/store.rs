//! The one file lines are appended to, and the few things that are ever done to it: also how the next one takes its
//! place, in steps each of which a crash may follow. [`Store`] is the seam the journal stands on; [`FileStore`] is what
//! runs in production.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::files;

/// What the file that is to take the live one's place is called until then.
pub(super) const NEXT_NAME: &str = "ledger.jsonl.new";

/// How the open file compares with what stands at its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Bytes in the open file.
    pub bytes: u64,
    /// Whether the path still names the file that was opened first.
    pub in_place: bool,
    /// When the file's bytes were last changed, unix nanoseconds; 0 where nobody can tell.
    pub modified_ns: i128,
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

    /// Writes the file that is to take this one's place beside it, and makes its bytes durable.
    ///
    /// # Errors
    /// The writing's; a store that has no names refuses.
    fn prepare(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Gives the open file a second name, under which it stays.
    ///
    /// # Errors
    /// The linking's.
    fn keep_as(&mut self, _name: &str) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Puts the prepared file in the open one's place; from then on it is the open one.
    ///
    /// # Errors
    /// The renaming's; then nothing has changed.
    fn replace(&mut self) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Takes back what the steps before a failed one left, as far as that goes.
    fn abandon(&mut self, _name: &str) {}

    /// Makes names durable (`fsync` of the directory).
    ///
    /// # Errors
    /// The sync's.
    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A regular file opened for appending, mode 0600, never through a symbolic link.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    file: File,
    identity: (u64, u64),
    /// What is to take its place.
    next: Option<File>,
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
        Ok(Self { path: path.to_owned(), file, identity: (meta.dev(), meta.ino()), next: None })
    }

    fn dir(&self) -> &Path {
        self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Which file a path names, if any.
    fn named(path: &Path) -> io::Result<Option<(u64, u64)>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
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
        let in_place = (own.dev(), own.ino()) == self.identity && Self::named(&self.path)? == Some(self.identity);
        let modified_ns = i128::from(own.mtime()) * 1_000_000_000 + i128::from(own.mtime_nsec());
        Ok(Standing { bytes: own.len(), in_place, modified_ns })
    }

    fn prepare(&mut self, bytes: &[u8]) -> io::Result<()> {
        let path = self.path.with_file_name(NEXT_NAME);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = open(&path, true)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.next = Some(file);
        Ok(())
    }

    fn keep_as(&mut self, name: &str) -> io::Result<()> {
        let kept = self.path.with_file_name(name);
        match fs::hard_link(&self.path, &kept) {
            // Left by an earlier try.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        if Self::named(&kept)? == Some(self.identity) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file has that name"))
    }

    fn replace(&mut self) -> io::Result<()> {
        let Some(next) = self.next.take() else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        let identity = files::identity(&next)?;
        if let Err(error) = fs::rename(self.path.with_file_name(NEXT_NAME), &self.path) {
            // What counts is who has the name now; it may have been renamed all the same.
            if !matches!(Self::named(&self.path), Ok(Some(one)) if one == identity) {
                return Err(error);
            }
        }
        (self.file, self.identity) = (next, identity);
        Ok(())
    }

    fn abandon(&mut self, name: &str) {
        self.next = None;
        // What stays is taken for what it is at the next try and at the next start.
        let _ = fs::remove_file(self.path.with_file_name(NEXT_NAME));
        let kept = self.path.with_file_name(name);
        let is_ours = |path: &Path| matches!(Self::named(path), Ok(Some(one)) if one == self.identity);
        // Never the last name it has.
        if is_ours(&kept) && is_ours(&self.path) {
            let _ = fs::remove_file(kept);
        }
    }

    fn sync_names(&mut self) -> io::Result<()> {
        File::open(self.dir())?.sync_all()
    }
}
