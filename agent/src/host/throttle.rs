//! How long the kernel has kept a VM off its CPUs because its control groups had used up their quota: `cpu.stat`.
//!
//! The counter is that of each group's own quota in both versions of control groups (`cfs_bandwidth.throttled_time`,
//! kernel/sched/core.c), never that of the groups below or above it, and adds up the CPUs on which the group stood
//! still. So a VM's is the sum over its own groups; `place` says which are its own. Files are kept open and read anew
//! with one call each.

pub(super) mod place;
mod search;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

pub use place::WhyNot;
pub use search::GroupSearch;

use super::cgroup::Controller;
use crate::units::Tgid;

const STAT: &str = "cpu.stat";
/// More than any kernel's `cpu.stat`; of a longer one, the lines that are whole are read.
const MAX_STAT: usize = 1024;

/// The open `cpu.stat` of all control groups that are one VM's own.
#[derive(Debug)]
pub struct ThrottleSource {
    /// The group above all others; `None` once the process had left for one that is not its own.
    top: Option<PathBuf>,
    groups: Vec<Group>,
    carried_ns: u64,
}

/// One group.
#[derive(Debug)]
struct Group {
    dir: PathBuf,
    inode: u64,
    file: File,
    /// What it had counted before the process came from another one.
    before_ns: u64,
    last_ns: u64,
}

impl ThrottleSource {
    /// Opens the groups that the process has now. What they have counted so far is taken for the VM's: groups that hold
    /// one VM only are made for it.
    ///
    /// # Errors
    /// [`WhyNot`]: then throttling is not measured, which is not the same as none.
    pub fn find(search: &GroupSearch, tgid: Tgid) -> Result<Self, WhyNot> {
        let found = place::of(search, tgid, Controller::Cpu)?;
        let mut source = Self { top: None, groups: Vec::new(), carried_ns: 0 };
        source.open_more(&found.dirs, false)?;
        source.top = Some(found.top.clone());
        Ok(source)
    }

    /// Looks again where the process is; true if anything changed. What [`Self::read`] says never falls by it:
    /// - groups that are gone or left keep what they were last seen to have counted;
    /// - groups that are new below the same top count in full, as they are the VM's own since they were made;
    /// - after a move elsewhere, only what the new groups count from this call on.
    ///
    /// # Errors
    /// As [`Self::find`]; what was counted up to here then stays, and nothing is added until the process is found in
    /// groups of its own again. A process that is gone leaves all as it was, for a last reading.
    pub fn follow(&mut self, search: &GroupSearch, tgid: Tgid) -> Result<bool, WhyNot> {
        let found = match place::of(search, tgid, Controller::Cpu) {
            Ok(found) => found,
            Err(why) => {
                if !why.is_gone() {
                    self.leave(|_| false);
                    self.top = None;
                }
                return Err(why);
            }
        };
        let moved = self.top.as_ref() != Some(&found.top);
        let stays = |group: &Group| {
            !moved
                && found.dirs.contains(&group.dir)
                && fs::metadata(group.dir.join(STAT)).is_ok_and(|now| now.ino() == group.inode)
        };
        let left = self.leave(stays);
        let joined = self.open_more(&found.dirs, moved)?;
        self.top = Some(found.top.clone());
        Ok(left || joined)
    }

    /// Nanoseconds of standing still so far, summed over groups and CPUs. Never falls. Costs a call of `pread` a group.
    ///
    /// # Errors
    /// If a file that is still there cannot be read or has no such counter any more.
    pub fn read(&mut self) -> io::Result<u64> {
        let mut sum = self.carried_ns;
        for group in &mut self.groups {
            sum = sum.saturating_add(group.read()?);
        }
        Ok(sum)
    }

    /// Closes all groups but these, and keeps what they had counted.
    fn leave(&mut self, stays: impl Fn(&Group) -> bool) -> bool {
        let before = self.groups.len();
        let carried = &mut self.carried_ns;
        self.groups.retain_mut(|group| {
            let stays = stays(group);
            if !stays {
                // A group that cannot be read any more keeps what was read last.
                *carried = carried.saturating_add(group.read().unwrap_or_else(|_| group.own_ns()));
            }
            stays
        });
        self.groups.len() < before
    }

    /// Opens those that are not open yet and have the counter.
    fn open_more(&mut self, dirs: &[PathBuf], from_now: bool) -> Result<bool, WhyNot> {
        let before = self.groups.len();
        for dir in dirs {
            if self.groups.iter().any(|group| group.dir == *dir) {
                continue;
            }
            match Group::open(dir, from_now) {
                Ok(group) => self.groups.extend(group),
                // Removed since it was listed; it was empty then.
                Err(error) if error.kind() == io::ErrorKind::NotFound || is_removed(&error) => {}
                Err(source) => return Err(WhyNot::Unreadable { path: dir.join(STAT), source }),
            }
        }
        if self.groups.is_empty() {
            return Err(WhyNot::Uncounted { group: dirs.first().cloned().unwrap_or_default(), what: "throttled time" });
        }
        Ok(self.groups.len() > before)
    }
}

impl Group {
    /// `None` where this group has no such counter (version 2 without the controller, a kernel without quotas).
    fn open(dir: &Path, from_now: bool) -> io::Result<Option<Self>> {
        let file = File::open(dir.join(STAT))?;
        let inode = file.metadata()?.ino();
        Ok(fetch(&file)?.map(|now_ns| Self {
            dir: dir.to_owned(),
            inode,
            file,
            before_ns: if from_now { now_ns } else { 0 },
            last_ns: now_ns,
        }))
    }

    fn read(&mut self) -> io::Result<u64> {
        match fetch(&self.file) {
            Ok(Some(now_ns)) => self.last_ns = self.last_ns.max(now_ns),
            Ok(None) => return Err(io::Error::new(io::ErrorKind::InvalidData, "cpu.stat has no throttled time")),
            Err(error) if is_removed(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(self.own_ns())
    }

    fn own_ns(&self) -> u64 {
        self.last_ns.saturating_sub(self.before_ns)
    }
}

/// Whether a descriptor's group was removed, which no task is in any more.
fn is_removed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn fetch(file: &File) -> io::Result<Option<u64>> {
    let mut text = [0; MAX_STAT];
    let length = file.read_at(&mut text, 0)?;
    Ok(parse(text.get(..length).unwrap_or_default()))
}

/// `throttled_time` of version 1 or `throttled_usec` of version 2, in nanoseconds. Its line must be ended: a cut number is
/// a wrong one.
fn parse(text: &[u8]) -> Option<u64> {
    let whole = text.get(..text.iter().rposition(|byte| *byte == b'\n')?)?;
    whole.split(|byte| *byte == b'\n').find_map(|line| {
        let (value, unit_ns) = match line.strip_prefix(b"throttled_time ") {
            Some(value) => (value, 1),
            None => (line.strip_prefix(b"throttled_usec ")?, 1000),
        };
        std::str::from_utf8(value).ok()?.parse::<u64>().ok()?.checked_mul(unit_ns)
    })
}

#[cfg(test)]
mod tests;
