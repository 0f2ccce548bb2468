//! A process's memory as `/proc` shows it, through descriptors that are kept open.
//!
//! A kept descriptor pins the process, so a reused id is never read through it; which process it was opened for is
//! proven by the start in its `stat`. `status` tells of one thread's memory: a leader that has ended shows none, and
//! then another thread is asked. What a file does not say is absent. `group` and `pss` are the two dearer sources.

mod group;
mod parse;
mod pss;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

pub use group::{MemoryGroup, groups_counted_by};
pub use parse::{Faults, Resident};
pub use pss::{PssAnswer, PssFile, PssReader, pss_readable};

use super::{ProcError, ProcFs};
use crate::units::Tgid;

/// Room for an ordinary `status`; one with many groups of its user is longer.
const ORDINARY: usize = 4096;
/// The longest `status` that is read: 65,536 supplementary groups are 0.7 MB.
const LONGEST: usize = 1 << 20;
/// Threads that are asked for the memory of a process whose leader has ended.
const MAX_ASKED: usize = 64;

/// What `/proc` shows of a process's memory; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// Resident memory by type (`RssAnon`, `RssFile`, `RssShmem`).
    pub resident: Option<Resident>,
    /// Swapped out (`VmSwap`).
    pub swap_bytes: Option<u64>,
    /// Most there was resident (`VmHWM`), without hugetlb.
    pub peak_bytes: Option<u64>,
    /// Pages of hugetlb (`HugetlbPages`), which no other number here contains.
    pub hugetlb_bytes: Option<u64>,
    /// Page faults of all threads, the ended ones included.
    pub faults: Option<Faults>,
}

/// The open files of one process.
#[derive(Debug)]
pub struct MemoryFiles {
    tgid: Tgid,
    dir: PathBuf,
    stat: File,
    status: File,
}

impl MemoryFiles {
    /// Opens the files of the process that began in the clock tick `start_tick`.
    ///
    /// # Errors
    /// [`ProcError::Gone`] if that process has ended or its id is another's now.
    pub fn open(procfs: &ProcFs, tgid: Tgid, start_tick: u64) -> Result<Self, ProcError> {
        let dir = procfs.of(tgid);
        // In this order: if `stat` is the right process's, the id was its all along.
        let status = open(&dir.join("status"))?;
        let stat = open(&dir.join("stat"))?;
        let files = Self { tgid, dir, stat, status };
        let path = files.dir.join("stat");
        let start = fetch(&files.stat).map_err(|error| ProcError::of(error, &path))?;
        match parse::start_ticks(&start) {
            Some(tick) if tick == start_tick => Ok(files),
            Some(_) => Err(ProcError::Gone { path }),
            None => Err(ProcError::Malformed { path, field: "starttime" }),
        }
    }

    /// Reads both files, two calls in all; `None` once the process has given its memory back.
    ///
    /// # Errors
    /// If a file cannot be read for another reason.
    pub fn read(&mut self, procfs: &ProcFs) -> io::Result<Option<MemoryReading>> {
        let Some(mut reading) = self.status()? else {
            return self.by_another_thread(procfs);
        };
        reading.faults = gone_is_none(fetch(&self.stat))?.and_then(|text| parse::faults(&text));
        Ok(Some(reading))
    }

    fn status(&mut self) -> io::Result<Option<MemoryReading>> {
        Ok(gone_is_none(fetch(&self.status))?.and_then(|text| parse::status(&text)))
    }

    /// The leader has ended or the process has: a thread that shows memory is asked from now on.
    fn by_another_thread(&mut self, procfs: &ProcFs) -> io::Result<Option<MemoryReading>> {
        let Ok(tids) = procfs.thread_ids(self.tgid) else { return Ok(None) };
        let leader = self.tgid.get();
        for tid in tids.into_iter().filter(|tid| tid.get() != leader).take(MAX_ASKED) {
            let Ok(file) = open(&self.dir.join("task").join(tid.to_string()).join("status")) else { continue };
            self.status = file;
            let Some(mut reading) = self.status()? else { continue };
            // Still the same process: its id was not given to another, whose thread this would be.
            reading.faults = gone_is_none(fetch(&self.stat))?.and_then(|text| parse::faults(&text));
            return Ok(reading.faults.map(|_| reading));
        }
        Ok(None)
    }

    /// Opens what [`PssReader`] reads. `None` if the process has ended.
    ///
    /// # Errors
    /// [`ProcError`]; `Denied` without the right to trace the process.
    pub fn pss_file(&mut self) -> Result<Option<PssFile>, ProcError> {
        let path = self.dir.join("smaps_rollup");
        let file = open(&path)?;
        // Opened anew each time; the descriptor that pins the process says whether the id is still its.
        let alive = gone_is_none(fetch(&self.stat)).map_err(|error| ProcError::of(error, &path))?;
        Ok(alive.map(|_| PssFile(file)))
    }
}

fn open(path: &Path) -> Result<File, ProcError> {
    File::open(path).map_err(|error| ProcError::of(error, path))
}

/// The whole text with one call, or with more if it is long. Nothing of it is kept: of a thousand VMs that would be
/// megabytes.
fn fetch(file: &File) -> io::Result<Vec<u8>> {
    let mut text = vec![0; ORDINARY];
    loop {
        let length = file.read_at(&mut text, 0)?;
        if length < text.len() || text.len() >= LONGEST {
            text.truncate(length);
            return Ok(text);
        }
        text.resize(text.len() * 4, 0);
    }
}

fn gone_is_none<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        Err(error) => Err(error),
    }
}
