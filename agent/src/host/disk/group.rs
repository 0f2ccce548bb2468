//! Storage I/O of a VM's own control groups: `io.stat` of version 2, `blkio.throttle.io_service_bytes` of version 1.
//!
//! Both count bytes that block devices were asked for, by device. Version 2 counts all groups below in each
//! (`rbytes`, `wbytes`), so the top one is read; version 1 counts each group by itself, so they are added up, and
//! leaves buffered writes to the root. It is another measure than the process's own, told beside it, never added.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::host::WhyNot;
use crate::host::cgroup::Controller;
use crate::host::throttle::{GroupSearch, place};
use crate::units::Tgid;

const V2_STAT: &str = "io.stat";
const V1_STAT: &str = "blkio.throttle.io_service_bytes";
/// Some hundred devices; of more, the lines that fit are no sum, and reading fails.
const MAX_STAT: usize = 64 * 1024;

/// What a VM's groups count, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupIo {
    /// Read.
    pub read_bytes: u64,
    /// Written.
    pub written_bytes: u64,
}

/// The open files of one VM's groups.
#[derive(Debug)]
pub struct GroupIoFiles {
    /// Their name.
    pub source: &'static str,
    /// The group that holds all others.
    pub top: PathBuf,
    /// One a group that is read.
    pub files: Vec<GroupIoFile>,
}

/// The open file of one group.
#[derive(Debug)]
pub struct GroupIoFile {
    /// The group's directory.
    pub dir: PathBuf,
    file: File,
    /// What no line of a device means: in version 2 that nothing was asked of any.
    nothing: GroupReading,
}

/// What one group's file said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupReading {
    /// Bytes so far.
    Counted(GroupIo),
    /// It counts nothing: version 1 has no line for any device as long as no limit was ever set on one (since Linux
    /// 6.10, `blk_throtl_init` on demand).
    Uncounted,
    /// The group was removed.
    Gone,
}

impl GroupIoFiles {
    /// Opens the groups that the process has now.
    ///
    /// # Errors
    /// [`WhyNot`]: its groups are not its own, or do not count.
    pub fn find(search: &GroupSearch, tgid: Tgid) -> Result<Self, WhyNot> {
        let place = place::of(search, tgid, Controller::Io)?;
        let source = if place.top.join(V1_STAT).exists() { V1_STAT } else { V2_STAT };
        let dirs = if source == V2_STAT { vec![place.top.clone()] } else { place.dirs.clone() };
        let nothing =
            if source == V2_STAT { GroupReading::Counted(GroupIo::default()) } else { GroupReading::Uncounted };
        let mut files = Vec::with_capacity(dirs.len());
        for dir in dirs {
            let path = dir.join(source);
            match File::open(&path) {
                Ok(file) => files.push(GroupIoFile { dir, file, nothing }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(WhyNot::Unreadable { path, source: error }),
            }
        }
        if files.is_empty() {
            return Err(WhyNot::Uncounted { group: place.top.clone(), what: "block I/O" });
        }
        Ok(Self { source, top: place.top.clone(), files })
    }
}

impl GroupIoFile {
    /// What it says now.
    ///
    /// # Errors
    /// If it cannot be read, or is longer than is read.
    pub fn read(&self) -> io::Result<GroupReading> {
        let mut text = vec![0; MAX_STAT];
        let length = match self.file.read_at(&mut text, 0) {
            Ok(length) if length < MAX_STAT => length,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "more devices than are read")),
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => return Ok(GroupReading::Gone),
            Err(error) => return Err(error),
        };
        Ok(parse(text.get(..length).unwrap_or_default()).map_or(self.nothing, GroupReading::Counted))
    }
}

/// `8:0 rbytes=1 wbytes=2 …` of version 2, `8:0 Read 1` of version 1; `None` without a line of a device.
fn parse(text: &[u8]) -> Option<GroupIo> {
    let mut sum = None;
    for line in String::from_utf8_lossy(text).lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next().is_none_or(|device| !device.contains(':')) {
            continue;
        }
        let sum: &mut GroupIo = sum.get_or_insert_default();
        let mut before = "";
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((before, word));
            let value = value.parse::<u64>().unwrap_or(0);
            match key {
                "rbytes" | "Read" => sum.read_bytes = sum.read_bytes.saturating_add(value),
                "wbytes" | "Write" => sum.written_bytes = sum.written_bytes.saturating_add(value),
                _ => {}
            }
            before = word;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_and_devices_added_up() {
        let v2 = b"8:0 rbytes=4096 wbytes=1024 rios=1 wios=2 dbytes=9 dios=1\n253:0 rbytes=1 wbytes=2\n";
        assert_eq!(parse(v2), Some(GroupIo { read_bytes: 4097, written_bytes: 1026 }));
        let v1 = b"8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Async 0\n8:0 Discard 7\n8:0 Total 30\n8:16 Read 1\nTotal 31\n";
        assert_eq!(parse(v1), Some(GroupIo { read_bytes: 11, written_bytes: 20 }));
        assert_eq!((parse(b""), parse(b"Total 0\n")), (None, None), "nothing counted is no zero");
    }
}
