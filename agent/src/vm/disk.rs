//! Where one VM's storage figures come from, and what they were last.

use std::sync::Arc;

use super::group_io::GroupCount;
use crate::{
    account::DiskUsage,
    host::{
        WhyNot,
        disk::{TaskIo, TaskIoFile, group::GroupIoFiles, image::Disks},
    },
};

/// Why groups of version 1 tell nothing.
const UNCOUNTED: &str = "its control group counts no block I/O: the kernel does so once a limit was set on the device";

/// Something that is opened once it is needed.
#[derive(Debug, Default)]
pub enum Source<T> {
    /// Nobody has looked yet.
    #[default]
    NotLooked,
    /// It is read.
    Open(T),
    /// It cannot be.
    Absent,
}

/// Storage of one VM.
#[derive(Debug, Default)]
pub struct VmDisk {
    /// The process's own counter.
    pub file: Source<TaskIoFile>,
    /// Its groups'.
    pub groups: Source<GroupCount>,
    /// What is known.
    pub usage: Arc<DiskUsage>,
    /// Its threads have run since it was read.
    pub moved: bool,
    /// Its disks are being listed.
    pub asked: bool,
}

impl VmDisk {
    /// One whose counters an earlier agent told.
    #[must_use]
    pub fn told(read_bytes: Option<u64>, written_bytes: Option<u64>) -> Self {
        let mut disk = Self { moved: true, ..Self::default() };
        if read_bytes.is_some() || written_bytes.is_some() {
            let (read_bytes, written_bytes) = (read_bytes.unwrap_or(0), written_bytes.unwrap_or(0));
            disk.take_io(TaskIo { read_bytes, written_bytes, cancelled_bytes: 0 });
        }
        disk
    }

    /// Takes a reading of the process's I/O; true when a counter would have fallen.
    pub fn take_io(&mut self, io: TaskIo) -> bool {
        Arc::make_mut(&mut self.usage).advance(io)
    }

    /// Lets all files go; what is known stays.
    pub fn close(&mut self) {
        self.file = Source::Absent;
        self.groups = Source::Absent;
    }

    /// Says why the process's I/O cannot be read. What was read stays.
    pub fn no_io(&mut self, why: &str) {
        self.file = Source::Absent;
        Arc::make_mut(&mut self.usage).io_why_not = Some(why.into());
    }

    /// Takes what a look for its groups found at `now_ns`. What they had counted by then is told already, or another's.
    pub fn take_groups(&mut self, found: Result<GroupIoFiles, WhyNot>, now_ns: u64) {
        let files = match found {
            Ok(files) => files,
            // One that is gone says nothing new.
            Err(why) if why.is_gone() => return,
            Err(why) => {
                self.read_groups();
                self.lose_groups(&why.to_string());
                return;
            }
        };
        self.moved = true;
        let followed = match &mut self.groups {
            Source::Open(known) => known.follow(files),
            _ => {
                let before = self.usage.group.map(|group| (group.io, group.since_ns));
                GroupCount::begin(files, before, now_ns).map(|count| self.groups = Source::Open(count))
            }
        };
        // Without what they had counted all of it would be told; the next reconcile tries again.
        if let Err(error) = followed {
            self.lose_groups(&error.to_string());
        }
    }

    fn lose_groups(&mut self, why: &str) {
        self.groups = Source::Absent;
        if self.usage.group_why_not.as_deref() != Some(why) {
            Arc::make_mut(&mut self.usage).group_why_not = Some(why.into());
        }
    }

    /// Reads its groups, where they are its own. False when one could not be read.
    pub fn read_groups(&mut self) -> bool {
        let Source::Open(groups) = &mut self.groups else { return true };
        let read = groups.read();
        match groups.told() {
            Some(now) if self.usage.group != Some(now) => Arc::make_mut(&mut self.usage).advance_group(now),
            None if self.usage.group_why_not.is_none() => {
                Arc::make_mut(&mut self.usage).group_why_not = Some(UNCOUNTED.into());
            }
            _ => {}
        }
        read.is_ok()
    }

    /// Its disks are not known any more; true if that is new.
    pub fn no_disks(&mut self, why: &str) -> bool {
        let known = self.usage.disks.is_some() || self.usage.disks_why_not.as_deref() != Some(why);
        if known {
            let usage = Arc::make_mut(&mut self.usage);
            usage.set_disks(None);
            usage.disks_why_not = Some(why.into());
        }
        known
    }

    /// Takes a list of its disks; true if it is another than before. A failure leaves the last one.
    pub fn take_disks(&mut self, found: Result<Disks, String>) -> bool {
        self.asked = false;
        match found {
            Ok(disks) if self.usage.disks.as_deref() == Some(&disks) => false,
            Ok(disks) => {
                let usage = Arc::make_mut(&mut self.usage);
                usage.set_disks(Some(disks));
                usage.disks_why_not = None;
                true
            }
            Err(why) => {
                Arc::make_mut(&mut self.usage).disks_why_not = Some(why.into());
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_are_not_known_any_more_are_absent_with_the_reason_and_come_back() {
        let mut disk = VmDisk::default();
        assert!(disk.take_disks(Ok(Disks::default())));
        assert!(disk.no_disks("hangs") && !disk.no_disks("hangs"));
        assert_eq!((disk.usage.disks.is_none(), disk.usage.disks_why_not.as_deref()), (true, Some("hangs")));
        assert!(disk.take_disks(Ok(Disks::default())));
        assert_eq!((disk.usage.disks.is_some(), disk.usage.disks_why_not.is_none()), (true, true));
    }
}
