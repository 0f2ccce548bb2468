//! Where one VM's storage figures come from, and what they were last.

use std::sync::Arc;

use crate::{
    account::DiskUsage,
    host::{
        WhyNot,
        disk::{
            TaskIo, TaskIoFile,
            group::{GroupIo, GroupIoFiles},
            image::Disks,
        },
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

/// A VM's control groups, with what others before them had counted.
#[derive(Debug)]
pub struct Groups {
    files: GroupIoFiles,
    /// Counted in groups that were left.
    before: GroupIo,
    /// What these had counted when the VM came to them.
    base: GroupIo,
}

/// Storage of one VM.
#[derive(Debug, Default)]
pub struct VmDisk {
    /// The process's own counter.
    pub file: Source<TaskIoFile>,
    /// Its groups'.
    pub groups: Source<Groups>,
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

    /// Takes what a look for its groups found; groups that are left keep what they had counted. One that is gone says
    /// nothing new.
    pub fn take_groups(&mut self, found: Result<GroupIoFiles, WhyNot>) {
        match found {
            Ok(files) => match &self.groups {
                Source::Open(known) if known.files.is_same_as(&files) => {}
                Source::Open(_) => {
                    self.read_groups();
                    self.come_to(files, true);
                }
                _ => self.come_to(files, self.usage.group.is_some()),
            },
            Err(why) if why.is_gone() => {}
            Err(why) => {
                self.read_groups();
                self.groups = Source::Absent;
                let why: Arc<str> = why.to_string().into();
                if self.usage.group_why_not.as_ref() != Some(&why) {
                    Arc::make_mut(&mut self.usage).group_why_not = Some(why);
                }
            }
        }
    }

    /// Begins to count in groups; `later`: what they had counted by now is another's, or told already.
    fn come_to(&mut self, files: GroupIoFiles, later: bool) {
        let base = if later { files.read() } else { Ok(None) };
        self.moved = true;
        self.groups = match base {
            Ok(base) => {
                let before = self.usage.group.map(|(_, io)| io).unwrap_or_default();
                Source::Open(Groups { files, before, base: base.unwrap_or_default() })
            }
            // Without it everything would be told again; the next reconcile tries again.
            Err(error) => {
                Arc::make_mut(&mut self.usage).group_why_not = Some(error.to_string().into());
                Source::Absent
            }
        };
    }

    /// Reads its groups, where they are its own. False when they could not be read.
    pub fn read_groups(&mut self) -> bool {
        let Source::Open(groups) = &self.groups else { return true };
        let now = match groups.files.read() {
            Ok(Some(now)) => now,
            Ok(None) => {
                if self.usage.group_why_not.is_none() {
                    Arc::make_mut(&mut self.usage).group_why_not = Some(UNCOUNTED.into());
                }
                return true;
            }
            Err(_) => return false,
        };
        let grown = |now: u64, base: u64, before: u64| before.saturating_add(now.saturating_sub(base));
        let io = GroupIo {
            read_bytes: grown(now.read_bytes, groups.base.read_bytes, groups.before.read_bytes),
            written_bytes: grown(now.written_bytes, groups.base.written_bytes, groups.before.written_bytes),
        };
        let source = groups.files.source();
        if self.usage.group != Some((source, io)) {
            Arc::make_mut(&mut self.usage).advance_group(source, io);
        }
        true
    }

    /// Takes a list of its disks; true if it is another than before. A failure leaves the last one.
    pub fn take_disks(&mut self, found: Result<Disks, String>) -> bool {
        self.asked = false;
        match found {
            Ok(disks) if self.usage.disks.as_deref() == Some(&disks) => false,
            Ok(disks) => {
                let usage = Arc::make_mut(&mut self.usage);
                usage.disks = Some(Arc::new(disks));
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
