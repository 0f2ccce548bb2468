//! The file that statements which wait are kept in: a line is appended for each change, and once most of them are out of
//! date the file is written anew and renamed into place. What others did to it, or a failed write left, is made good the
//! same way: this process knows what waits.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

/// How much of a file is read, bytes: what may wait takes a few megabytes at most.
const MAX_BYTES: u64 = 64 << 20;
/// Lines out of date that are let stand, beside as many as are not.
const STALE: usize = 1_024;

/// The bytes of a file, and whether it held more than are read. Never through a symbolic link, and of regular files only.
///
/// # Errors
/// What the file system says; a missing file is an empty one.
pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    // A pipe that nobody writes would hold an open without O_NONBLOCK up for ever.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    let max = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
    let more = bytes.len() > max;
    bytes.truncate(max);
    Ok((bytes, more))
}

/// Puts a file aside, beside where it was, in place of one put there before.
///
/// # Errors
/// What the file system says.
pub(super) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_extension("bad");
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// A file that is kept.
pub(super) struct KeptFile {
    path: PathBuf,
    /// The newest line of each number whose statement waits.
    live: BTreeMap<u64, Vec<u8>>,
    /// The open file; `None` until it could be written.
    file: Option<File>,
    /// Lines in it.
    lines: usize,
}

impl KeptFile {
    /// One that will hold these lines from the next change on.
    pub(super) const fn new(path: PathBuf, live: BTreeMap<u64, Vec<u8>>) -> Self {
        Self { path, live, file: None, lines: 0 }
    }

    /// Appends the lines of these changes; they are durable when it returns, if `sync`.
    ///
    /// # Errors
    /// What the file system says; then statements that are new were not taken, and the next change writes the file anew.
    pub(super) fn change(&mut self, changes: Vec<Change>, sync: bool) -> io::Result<()> {
        let (mut fresh, mut bytes) = (Vec::new(), Vec::new());
        let count = changes.len();
        for Change { id, line, waits } in changes {
            bytes.extend_from_slice(&line);
            let known = if waits { self.live.insert(id, line) } else { self.live.remove(&id) };
            fresh.extend((waits && known.is_none()).then_some(id));
        }
        let written = self.write(&bytes, count, sync);
        if written.is_err() {
            self.file = None;
            self.live.retain(|id, _| !fresh.contains(id));
        }
        written
    }

    fn write(&mut self, bytes: &[u8], count: usize, sync: bool) -> io::Result<()> {
        let stale = self.lines + count > 2 * self.live.len() + STALE;
        match &mut self.file {
            Some(file) if !stale && is_at(file, &self.path)? => {
                file.write_all(bytes)?;
                self.lines += count;
                if sync { file.sync_data() } else { Ok(()) }
            }
            _ => self.write_anew(),
        }
    }

    /// Writes what waits into a new file, which takes the old one's place once it is durable.
    ///
    /// # Errors
    /// What the file system says; the old file stays.
    pub(super) fn write_anew(&mut self) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&self.live.values().flatten().copied().collect::<Vec<u8>>())?;
        file.sync_data()?;
        fs::rename(&draft, &self.path)?;
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        File::open(parent)?.sync_all()?;
        (self.file, self.lines) = (Some(file), self.live.len());
        Ok(())
    }
}

/// One statement's newest line.
pub(in crate::engine) struct Change {
    /// Its number.
    pub(in crate::engine) id: u64,
    /// The line, with its newline.
    pub(in crate::engine) line: Vec<u8>,
    /// Whether anything of it still waits.
    pub(in crate::engine) waits: bool,
}

/// Whether the path still names the open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(id: u64, line: &str, waits: bool) -> Change {
        Change { id, line: format!("{line}\n").into_bytes(), waits }
    }

    #[test]
    fn what_waits_is_in_the_file_whatever_others_do_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept.jsonl");
        let mut kept = KeptFile::new(path.clone(), BTreeMap::new());
        let text = || String::from_utf8(read(&path).unwrap().0).unwrap();
        kept.change(vec![change(1, "one", true)], true).unwrap();
        kept.change(vec![change(2, "two", true), change(1, "over", false)], true).unwrap();
        assert_eq!(text(), "one\ntwo\nover\n");
        fs::remove_file(&path).unwrap();
        kept.change(vec![change(3, "three", true)], true).unwrap();
        assert_eq!(text(), "two\nthree\n");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("in the way"), "").unwrap();
        assert!(kept.change(vec![change(4, "four", true), change(2, "over", false)], true).is_err());
        assert!(read(&path).is_err());
        fs::remove_dir_all(&path).unwrap();
        kept.change(vec![change(5, "five", true)], true).unwrap();
        assert_eq!(text(), "three\nfive\n", "what is new was not taken; what is over is over");
    }

    #[test]
    fn the_file_does_not_grow_with_what_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept.jsonl");
        let mut kept = KeptFile::new(path.clone(), BTreeMap::new());
        kept.change(vec![change(0, "stays", true)], false).unwrap();
        for id in 1..5_000 {
            kept.change(vec![change(id, "x", true), change(id, "y", false)], false).unwrap();
        }
        let text = String::from_utf8(read(&path).unwrap().0).unwrap();
        assert!(text.lines().count() <= STALE + 4 && text.starts_with("stays\n"), "{}", text.len());
    }

    #[test]
    fn what_is_no_file_is_refused_at_once_and_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept.jsonl");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(read(&path).is_err());
        assert_eq!(put_aside(&path).unwrap(), dir.path().join("kept.bad"));
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(read(&path).is_err());
        put_aside(&path).unwrap();
        assert_eq!(read(&path).unwrap(), (Vec::new(), false));
    }
}
