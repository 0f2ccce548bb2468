//! Watches of inotify: on directories, whose events say that a look is worth while, and on files, whose one event says
//! that the kernel let the file go.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::ident::file_id;
use crate::storage::FileId;

/// What changes what a look would find.
const OF_DIR: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);
/// Sent when the last name and the last descriptor are gone; and a name that moves is worth a look.
const OF_FILE: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);
/// Reads of events at once.
const MAX_READS: usize = 4_096;

/// What events told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Files that the kernel let go.
    pub(super) freed: Vec<FileId>,
    /// A look is worth while.
    pub(super) dirty: bool,
}

/// All watches of one place.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: Option<Inotify>,
    dirs: HashMap<PathBuf, (WatchDescriptor, (u64, u64))>,
    files: HashMap<WatchDescriptor, FileId>,
    by_id: HashMap<FileId, WatchDescriptor>,
}

impl Watches {
    pub(super) fn new() -> Self {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).inspect_err(|error| tracing::warn!(%error, "no inotify"));
        let (dirs, files, by_id) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { inotify: inotify.ok(), dirs, files, by_id }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn has(&self, id: &FileId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Watches exactly these directories. How many cannot be.
    pub(super) fn watch_dirs(&mut self, dirs: &[(PathBuf, (u64, u64))]) -> u64 {
        let Some(inotify) = &self.inotify else { return dirs.len() as u64 };
        let wanted: HashMap<&Path, (u64, u64)> = dirs.iter().map(|(path, node)| (path.as_path(), *node)).collect();
        self.dirs.retain(|path, (wd, node)| {
            let stays = wanted.get(path.as_path()) == Some(node);
            if !stays {
                // Its directory may be gone, and the watch with it.
                let _ = inotify.rm_watch(*wd);
            }
            stays
        });
        let mut failed = 0;
        for (path, node) in dirs {
            if !self.dirs.contains_key(path) {
                match inotify.add_watch(path, OF_DIR) {
                    Ok(wd) => drop(self.dirs.insert(path.clone(), (wd, *node))),
                    Err(_) => failed += 1,
                }
            }
        }
        failed
    }

    /// Watches a file that `path` leads to; `follow` through a descriptor's link. False if it cannot be watched, or is
    /// another one by now.
    pub(super) fn watch_file(&mut self, id: &FileId, path: &Path, follow: bool) -> bool {
        if self.has(id) {
            return true;
        }
        let Some(inotify) = &self.inotify else { return false };
        let flags = if follow { OF_FILE } else { OF_FILE | AddWatchFlags::IN_DONT_FOLLOW };
        let Ok(wd) = inotify.add_watch(path, flags) else { return false };
        if self.files.contains_key(&wd) {
            return false;
        }
        // Between the look and now the path may have got another file.
        let stat = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
        if !stat.and_then(|stat| file_id(path, &stat)).is_ok_and(|found| found == *id) {
            let _ = inotify.rm_watch(wd);
            return false;
        }
        self.files.insert(wd, *id);
        self.by_id.insert(*id, wd);
        true
    }

    /// Lets files go that nobody asks about any more.
    pub(super) fn keep(&mut self, is_known: impl Fn(&FileId) -> bool) {
        let Some(inotify) = &self.inotify else { return };
        let files = &mut self.files;
        self.by_id.retain(|id, wd| {
            let stays = is_known(id);
            if !stays {
                files.remove(wd);
                let _ = inotify.rm_watch(*wd);
            }
            stays
        });
    }

    /// Takes what has been told.
    pub(super) fn drain(&mut self) -> Told {
        let mut told = Told::default();
        for _ in 0..MAX_READS {
            let Some(inotify) = &self.inotify else { return told };
            let events = match inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                Err(_) => return told,
            };
            for event in events {
                told.dirty = true;
                let Some(id) = self.files.get(&event.wd).copied() else {
                    if event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF) {
                        self.dirs.retain(|_, (wd, _)| *wd != event.wd);
                    }
                    continue;
                };
                if event.mask.contains(AddWatchFlags::IN_DELETE_SELF) {
                    told.freed.push(id);
                }
                // After that, or when its file system was unmounted: the watch is no more.
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.files.remove(&event.wd);
                    self.by_id.remove(&id);
                }
            }
        }
        told
    }
}
