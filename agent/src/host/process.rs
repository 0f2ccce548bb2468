//! Processes and threads as `/proc` shows them.
//!
//! A process can vanish between any two calls and may not be ours to look at; both are outcomes with a name
//! ([`ProcError::Gone`], [`ProcError::Denied`]), because the first is ordinary and the second must be reported.
//! Numbers are as the kernel prints them, in the unit their name says.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::file;
use crate::units::{Tgid, Tid};

/// The longest command line that is read, in bytes.
pub const MAX_CMDLINE: u64 = 64 * 1024;

/// The longest `stat`, `status` or `comm` that is read, in bytes.
const MAX_STAT: u64 = 64 * 1024;

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// The process or thread does not exist any more (ENOENT, ESRCH).
    #[error("{path} is gone")]
    Gone {
        /// What was read.
        path: PathBuf,
    },
    /// The kernel does not let us look (EACCES, EPERM).
    #[error("permission to read {path} is denied")]
    Denied {
        /// What was read.
        path: PathBuf,
    },
    /// The file is there but is not what proc(5) says.
    #[error("{path} has no usable {field}")]
    Malformed {
        /// What was read.
        path: PathBuf,
        /// The field that is missing or no number.
        field: &'static str,
    },
    /// Any other failure.
    #[error("cannot read {path}")]
    Io {
        /// What was read.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl ProcError {
    /// Sorts a system error into gone, denied and the rest.
    #[must_use]
    pub fn of(source: io::Error, path: &Path) -> Self {
        let path = path.to_owned();
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ESRCH) => Self::Gone { path },
            Some(Errno::EACCES | Errno::EPERM) => Self::Denied { path },
            _ => Self::Io { path, source },
        }
    }

    /// Whether the process ended in the meantime, which is no failure.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// Whether permission was refused.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }
}

/// What kvmeter uses of `/proc/<pid>/stat` (proc(5), `do_task_stat`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcStat {
    /// The process.
    pub tgid: Tgid,
    /// The leader's name: bytes, at most 15 for a user process, anything but NUL.
    pub comm: Vec<u8>,
    /// State letter (`R`, `S`, `D`, `T`, `Z`, …).
    pub state: char,
    /// The parent, 0 if it is outside our pid namespace.
    pub ppid: Tgid,
    /// Threads, the leader included.
    pub threads: u32,
    /// When the leader started, in clock ticks of CLOCK_BOOTTIME (field 22).
    pub start_ticks: u64,
}

/// A process's command line as the kernel keeps it: arguments that each end in NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// At most [`MAX_CMDLINE`] bytes; empty for a kernel thread or a zombie.
    pub raw: Vec<u8>,
    /// Whether there was more.
    pub truncated: bool,
}

/// The process file system below a root directory.
#[derive(Clone, Debug)]
pub struct ProcFs {
    proc: PathBuf,
}

impl ProcFs {
    /// Reads `<root>/proc`; `root` is `/` on a real host.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { proc: root.join("proc") }
    }

    /// Every process that is visible, in ascending order.
    ///
    /// # Errors
    /// If `/proc` itself cannot be listed.
    pub fn tgids(&self) -> Result<Vec<Tgid>, ProcError> {
        Ok(numbers(&self.proc)?.into_iter().map(Tgid).collect())
    }

    /// The process's `stat`.
    ///
    /// # Errors
    /// [`ProcError`], among them `Gone` once the process has been waited for.
    pub fn stat(&self, tgid: Tgid) -> Result<ProcStat, ProcError> {
        let path = self.of(tgid).join("stat");
        let raw = read(&path)?;
        parse_stat(tgid, &raw).map_err(|field| ProcError::Malformed { path, field })
    }

    /// The threads of a process, in ascending order.
    ///
    /// # Errors
    /// [`ProcError`].
    pub fn thread_ids(&self, tgid: Tgid) -> Result<Vec<Tid>, ProcError> {
        Ok(numbers(&self.of(tgid).join("task"))?.into_iter().map(Tid).collect())
    }

    /// Time a thread spent inside a guest, in clock ticks (field 43, `guest_time`).
    ///
    /// # Errors
    /// [`ProcError`].
    pub fn guest_ticks(&self, tgid: Tgid, tid: Tid) -> Result<u64, ProcError> {
        let path = self.of(tgid).join("task").join(tid.to_string()).join("stat");
        let raw = read(&path)?;
        let ticks = split_stat(&raw).and_then(|(_, fields)| number(&fields, 43));
        ticks.ok_or(ProcError::Malformed { path, field: "guest_time" })
    }

    /// The command line, cut at [`MAX_CMDLINE`].
    ///
    /// # Errors
    /// [`ProcError`].
    pub fn cmdline(&self, tgid: Tgid) -> Result<Cmdline, ProcError> {
        let read = |path: &Path| {
            let (raw, truncated) = file::bytes(path, MAX_CMDLINE).map_err(|error| ProcError::of(error, path))?;
            Ok(Cmdline { raw, truncated })
        };
        let own = read(&self.of(tgid).join("cmdline"))?;
        if !own.raw.is_empty() {
            return Ok(own);
        }
        let of_thread = |tid: Tid| read(&self.of(tgid).join("task").join(tid.to_string()).join("cmdline"));
        Ok(self.by_a_living_thread(tgid, |tid| of_thread(tid).ok().filter(|line| !line.raw.is_empty())).unwrap_or(own))
    }

    /// The leader's name, bytes without the newline.
    ///
    /// # Errors
    /// [`ProcError`].
    pub fn comm(&self, tgid: Tgid) -> Result<Vec<u8>, ProcError> {
        self.comm_at(&self.of(tgid).join("comm"))
    }

    /// A thread's name, bytes without the newline.
    ///
    /// # Errors
    /// [`ProcError`].
    pub fn thread_comm(&self, tgid: Tgid, tid: Tid) -> Result<Vec<u8>, ProcError> {
        self.comm_at(&self.of(tgid).join("task").join(tid.to_string()).join("comm"))
    }

    /// The file name of the executable, without the kernel's " (deleted)"; needs the right to trace the process.
    ///
    /// # Errors
    /// [`ProcError`]; `Gone` for a kernel thread, which has no executable.
    pub fn exe_name(&self, tgid: Tgid) -> Result<Vec<u8>, ProcError> {
        let path = self.of(tgid).join("exe");
        let of_thread = |tid: Tid| fs::read_link(self.of(tgid).join("task").join(tid.to_string()).join("exe")).ok();
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            Err(error) => self.by_a_living_thread(tgid, of_thread).ok_or_else(|| ProcError::of(error, &path))?,
        };
        let target = target.into_os_string().into_vec();
        let target = target.strip_suffix(b" (deleted)").unwrap_or(&target);
        Ok(target.rsplit(|b| *b == b'/').next().unwrap_or(target).to_vec())
    }

    /// Asks the process's other threads: a leader that has ended has let go of its memory, and with it of its command
    /// line and executable, while its threads have not.
    fn by_a_living_thread<T>(&self, tgid: Tgid, ask: impl Fn(Tid) -> Option<T>) -> Option<T> {
        let tids = self.thread_ids(tgid).ok()?;
        tids.into_iter().filter(|tid| tid.get() != tgid.get()).find_map(ask)
    }

    /// The process a thread belongs to (`Tgid:` in `status`).
    ///
    /// # Errors
    /// [`ProcError`].
    pub fn tgid_of(&self, tid: Tid) -> Result<Tgid, ProcError> {
        let path = self.proc.join(tid.to_string()).join("status");
        let raw = read(&path)?;
        let value = raw.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"));
        match value.and_then(|v| std::str::from_utf8(v).ok()).and_then(|v| v.trim().parse().ok()) {
            Some(tgid) => Ok(Tgid(tgid)),
            None => Err(ProcError::Malformed { path, field: "Tgid" }),
        }
    }

    pub(super) fn of(&self, tgid: Tgid) -> PathBuf {
        self.proc.join(tgid.to_string())
    }

    fn comm_at(&self, path: &Path) -> Result<Vec<u8>, ProcError> {
        let raw = read(path)?;
        Ok(raw.strip_suffix(b"\n").map(<[u8]>::to_vec).unwrap_or(raw))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ProcError> {
    file::bytes(path, MAX_STAT).map(|(raw, _)| raw).map_err(|error| ProcError::of(error, path))
}

/// The entries of a directory whose names are numbers, sorted.
fn numbers(path: &Path) -> Result<Vec<u32>, ProcError> {
    let entries = fs::read_dir(path).map_err(|error| ProcError::of(error, path))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| ProcError::of(error, path))?;
        found.extend(as_number(&entry.file_name()));
    }
    found.sort_unstable();
    Ok(found)
}

fn as_number(name: &OsStr) -> Option<u32> {
    std::str::from_utf8(name.as_bytes()).ok()?.parse().ok()
}

/// The comm, and the fields behind it; the comm ends at the *last* parenthesis, whatever it contains.
fn split_stat(raw: &[u8]) -> Option<(&[u8], Vec<&str>)> {
    let open = raw.iter().position(|b| *b == b'(')?;
    let close = raw.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(raw.get(close + 1..)?).ok()?;
    Some((raw.get(open + 1..close)?, rest.split_ascii_whitespace().collect()))
}

/// Field `n` of proc(5), counted from 1; the fields behind the comm begin with the third.
fn number<T: std::str::FromStr>(fields: &[&str], n: usize) -> Option<T> {
    fields.get(n.checked_sub(3)?)?.parse().ok()
}

fn parse_stat(tgid: Tgid, raw: &[u8]) -> Result<ProcStat, &'static str> {
    let (comm, fields) = split_stat(raw).ok_or("comm")?;
    Ok(ProcStat {
        tgid,
        comm: comm.to_vec(),
        state: fields.first().and_then(|state| state.chars().next()).ok_or("state")?,
        ppid: Tgid(number(&fields, 4).ok_or("ppid")?),
        threads: number(&fields, 20).ok_or("num_threads")?,
        start_ticks: number(&fields, 22).ok_or("starttime")?,
    })
}

#[cfg(test)]
mod tests;
