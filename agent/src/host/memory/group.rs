//! What a VM's own control group counts of memory: page cache and kernel memory on its behalf included.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

use crate::host::cgroup::Controller;
use crate::host::throttle::{GroupSearch, WhyNot, place};
use crate::units::Tgid;

/// The counters of version 1 and of version 2.
const USAGE: [&str; 2] = ["memory.usage_in_bytes", "memory.current"];
/// Version 1 before 5.11 could count each group by itself.
const HIERARCHY: &str = "memory.use_hierarchy";

/// The open counters of the groups that are one VM's own: of the one above all others, which counts those below it,
/// or of each where it does not.
#[derive(Debug)]
pub struct MemoryGroup {
    files: Vec<File>,
}

impl MemoryGroup {
    /// Finds the groups as they are now. One that a stranger is in, too, is nobody's.
    ///
    /// # Errors
    /// [`WhyNot`].
    pub fn find(search: &GroupSearch, tgid: Tgid) -> Result<Self, WhyNot> {
        let found = place::of(search, tgid, Controller::Memory)?;
        let each = fs::read_to_string(found.top.join(HIERARCHY)).is_ok_and(|text| text.trim() == "0");
        let dirs = if each { found.dirs.as_slice() } else { std::slice::from_ref(&found.top) };
        let mut files = Vec::with_capacity(dirs.len());
        for dir in dirs {
            let Some(path) = USAGE.iter().map(|name| dir.join(name)).find(|path| path.exists()) else {
                return Err(WhyNot::Uncounted { group: dir.clone(), what: "memory" });
            };
            files.push(File::open(&path).map_err(|source| WhyNot::Unreadable { path, source })?);
        }
        Ok(Self { files })
    }

    /// Bytes charged to the groups now; `None` once one was removed.
    ///
    /// # Errors
    /// If a counter is there and cannot be read.
    pub fn read(&self) -> io::Result<Option<u64>> {
        let mut sum = 0u64;
        for file in &self.files {
            let mut text = [0; 32];
            let length = match file.read_at(&mut text, 0) {
                Ok(length) => length,
                Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => return Ok(None),
                Err(error) => return Err(error),
            };
            let value = parse(text.get(..length).unwrap_or_default());
            let value = value.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a number of bytes"))?;
            sum = sum.saturating_add(value);
        }
        Ok(Some(sum))
    }
}

/// A number with its newline.
pub(super) fn parse(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text.strip_suffix(b"\n")?).ok()?.parse().ok()
}

/// Which version of control groups counts memory here, if any does.
#[must_use]
pub fn groups_counted_by(root: &Path) -> Option<&'static str> {
    place::version(root, Controller::Memory)
}
