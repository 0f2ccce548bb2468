//! Files of others, opened below a root that no symbolic link leads out of: regular files only, bounded.
//!
//! `openat2` resolves the path in the kernel (Linux 5.6), so a link that is swapped meanwhile changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// The largest file of others that is read, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let changed = (meta.mtime(), meta.mtime_nsec());
        Ok(Self { device: meta.dev(), inode: meta.ino(), bytes: meta.size(), changed })
    }
}

/// A directory that stands for the root.
pub struct Beneath(OwnedFd);

impl Beneath {
    /// Opens it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self(open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    fn file(&self, path: &Path, flags: OFlag) -> io::Result<File> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        Ok(openat2(&self.0, path, how)?.into())
    }

    /// What state a file is in; `None` if there is none.
    #[must_use]
    pub fn stamp(&self, path: &Path) -> Option<Stamp> {
        Stamp::of(&self.file(path, OFlag::O_PATH).ok()?).ok()
    }

    /// A file's bytes, and the state they were read in.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::FileTooLarge`] over [`MAX_FILE`], [`io::ErrorKind::InvalidInput`] for what is no
    /// regular file.
    pub fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
        // A pipe would wait for its writer.
        let mut file = self.file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let stamp = Stamp::of(&file)?;
        let mut raw = Vec::new();
        (&mut file).take(MAX_FILE + 1).read_to_end(&mut raw)?;
        if raw.len() as u64 > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {MAX_FILE} bytes")));
        }
        Ok((raw, stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_leads_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/in"), "inside").unwrap();
        symlink(outside.path().join("secret"), root.path().join("absolute")).unwrap();
        symlink("../../../../../../../etc/passwd", root.path().join("etc/up")).unwrap();
        symlink("/etc/in", root.path().join("own")).unwrap();
        let beneath = Beneath::open(root.path()).unwrap();
        let read = |path: &str| beneath.read(Path::new(path));
        assert!(read("absolute").is_err() && read("etc/up").is_err() && read("../../../../../etc/passwd").is_err());
        assert_eq!(read("own").unwrap().0, b"inside", "an absolute link begins at the root");
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let root = tempfile::tempdir().unwrap();
        let full = usize::try_from(MAX_FILE).unwrap();
        fs::write(root.path().join("full"), vec![b'x'; full]).unwrap();
        fs::write(root.path().join("over"), vec![b'x'; full + 1]).unwrap();
        nix::unistd::mkfifo(&root.path().join("pipe"), Mode::S_IRWXU).unwrap();
        let beneath = Beneath::open(root.path()).unwrap();
        let kind = |path: &str| beneath.read(Path::new(path)).unwrap_err().kind();
        assert_eq!(beneath.read(Path::new("full")).unwrap().0.len(), full);
        assert_eq!(kind("over"), io::ErrorKind::FileTooLarge);
        assert_eq!(kind("pipe"), io::ErrorKind::InvalidInput);
        assert_eq!(kind("."), io::ErrorKind::InvalidInput);
        assert_eq!(kind("none"), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_was_written_anew_has_another_stamp() {
        let root = tempfile::tempdir().unwrap();
        let beneath = Beneath::open(root.path()).unwrap();
        let path = Path::new("a");
        assert_eq!(beneath.stamp(path), None);
        fs::write(root.path().join("a"), "1").unwrap();
        let first = beneath.stamp(path).unwrap();
        assert_eq!((beneath.read(path).unwrap().1, beneath.stamp(path)), (first, Some(first)));
        fs::write(root.path().join("b"), "2").unwrap();
        fs::rename(root.path().join("b"), root.path().join("a")).unwrap();
        assert_ne!(beneath.stamp(path), Some(first));
    }
}
