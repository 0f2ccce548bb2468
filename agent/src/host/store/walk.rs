//! One walk through a pool's directory, as deep as its patterns are.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ident::{fsid, is_remote, with_fsid};
use crate::storage::{FileId, Name, PlaceState, Pool, Skipped};

/// Files of one pool, and directories and names looked at in one walk.
const MAX_FILES: usize = 16_384;
const MAX_DIRS: usize = 4_096;
const MAX_NAMES: u64 = 262_144;

/// A file whose name fits.
pub(super) struct Entry {
    pub(super) id: FileId,
    pub(super) path: PathBuf,
    pub(super) name: Name,
    pub(super) stat: Metadata,
}

/// What there is.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) files: Vec<Entry>,
    /// Directories that were listed, each with device and inode.
    pub(super) dirs: Vec<(PathBuf, (u64, u64))>,
    pub(super) state: PlaceState,
}

struct Walk<'a> {
    pool: &'a Pool,
    names: u64,
    found: Walked,
}

/// Walks through a pool.
pub(super) fn walk(pool: &Pool) -> Walked {
    let mut walk = Walk { pool, names: 0, found: Walked::default() };
    let mut queue: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(dir) = queue.pop() {
        if walk.found.dirs.len() >= MAX_DIRS {
            walk.skipped().beyond += 1;
            continue;
        }
        if let Err(error) = walk.list(&dir, &mut queue) {
            if dir.is_empty() {
                walk.found.state.why = Some(error.to_string());
            } else if error.kind() != std::io::ErrorKind::NotFound {
                walk.skipped().failed += 1;
            }
        }
    }
    // The first name of a file that has several, always the same one.
    walk.found.files.sort_by(|a, b| a.path.cmp(&b.path));
    walk.found
}

impl Walk<'_> {
    fn skipped(&mut self) -> &mut Skipped {
        &mut self.found.state.skipped
    }

    fn list(&mut self, dir: &[String], queue: &mut Vec<Vec<String>>) -> std::io::Result<()> {
        let path = dir.iter().fold(self.pool.path.clone(), |path, name| path.join(name));
        let stat = fs::metadata(&path)?;
        let system = (stat.dev(), fsid(&path, stat.dev())?);
        self.found.state.remote |= dir.is_empty() && is_remote(&path);
        let entries = fs::read_dir(&path)?;
        self.found.dirs.push((path, (stat.dev(), stat.ino())));
        for entry in entries {
            let entry = entry?;
            self.names += 1;
            if self.names > MAX_NAMES {
                self.skipped().beyond += 1;
                break;
            }
            // A name that is no text is no pattern's.
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let full: Vec<&str> = dir.iter().map(String::as_str).chain([name.as_str()]).collect();
            let (is, enters) = (self.pool.name(&full), self.pool.enters(&full));
            if is.is_none() && !enters {
                continue;
            }
            match fs::symlink_metadata(entry.path()) {
                Ok(stat) if stat.is_dir() => {
                    if enters {
                        queue.push(full.into_iter().map(str::to_owned).collect());
                    }
                }
                Ok(stat) => {
                    if let Some(is) = is {
                        self.take(&entry.path(), is, stat, system);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(_) => self.skipped().failed += 1,
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, name: Name, stat: Metadata, (dev, system): (u64, u64)) {
        if !stat.is_file() {
            self.skipped().not_files += 1;
            return;
        }
        if self.found.files.len() >= MAX_FILES {
            self.skipped().beyond += 1;
            return;
        }
        // A file that is mounted over another has a file system of its own.
        let system = if stat.dev() == dev { Ok(system) } else { fsid(path, stat.dev()) };
        match system {
            Ok(system) => {
                let id = with_fsid(system, &stat);
                self.skipped().birthless += u64::from(id.birth_ns == 0);
                self.found.files.push(Entry { id, path: path.to_owned(), name, stat });
            }
            Err(_) => self.skipped().failed += 1,
        }
    }
}
