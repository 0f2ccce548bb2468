//! What is known of a VM's storage: what it read and wrote, the disks it has.

use std::sync::Arc;

use crate::host::disk::{
    TaskIo,
    group::GroupIo,
    image::{Disks, Image, Role},
};

/// What a VM's control groups have counted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupTold {
    /// The file it is read from.
    pub source: &'static str,
    /// Bytes since then.
    pub io: GroupIo,
    /// Since when, CLOCK_BOOTTIME nanoseconds: a group may be older than the VM, and tells nobody what was another's.
    pub since_ns: u64,
}

/// A VM's storage at one instant. What was not measured is `None`; counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes its process read and wrote, over its whole life.
    pub io: Option<TaskIo>,
    /// Why that is not known, or not known any more.
    pub io_why_not: Option<Arc<str>>,
    /// What its own control groups count; another measure, never added to `io`.
    pub group: Option<GroupTold>,
    /// Why they count nothing for it alone.
    pub group_why_not: Option<Arc<str>>,
    /// Its disks; `None` until somebody has looked.
    pub disks: Option<Arc<Disks>>,
    /// Bytes that the guest sees, over all disks; `None` if there is none, or one's size is not known.
    pub capacity_bytes: Option<u64>,
    /// Bytes that the disks take on the host, parts included; backing files, which VMs share, left out. `None` if there
    /// is no disk, or one's is not known (a block device's).
    pub allocated_bytes: Option<u64>,
    /// The sum of the VM's disks as the ledger tells it; another than `capacity_bytes` where a pool says more of them.
    pub storage_bytes: Option<u64>,
    /// Why nobody could.
    pub disks_why_not: Option<Arc<str>>,
}

impl DiskUsage {
    /// Takes a reading of the process's I/O. True when a counter would have fallen (it is kept instead).
    pub fn advance(&mut self, now: TaskIo) -> bool {
        let before = self.io.unwrap_or_default();
        let grown = TaskIo {
            read_bytes: now.read_bytes.max(before.read_bytes),
            written_bytes: now.written_bytes.max(before.written_bytes),
            cancelled_bytes: now.cancelled_bytes.max(before.cancelled_bytes),
        };
        self.io = Some(grown);
        self.io_why_not = None;
        grown != now
    }

    /// Takes what its groups count.
    pub fn advance_group(&mut self, now: GroupTold) {
        let before = self.group.map(|group| group.io).unwrap_or_default();
        let read_bytes = now.io.read_bytes.max(before.read_bytes);
        let io = GroupIo { read_bytes, written_bytes: now.io.written_bytes.max(before.written_bytes) };
        self.group = Some(GroupTold { io, ..now });
        self.group_why_not = None;
    }

    /// Takes a list of its disks, or that they are not known any more.
    pub fn set_disks(&mut self, disks: Option<Disks>) {
        self.capacity_bytes =
            disks.as_ref().and_then(|all| sum(all, |image| image.role == Role::Disk, |image| image.capacity_bytes));
        self.allocated_bytes =
            disks.as_ref().and_then(|all| sum(all, |image| image.role != Role::Backing, |image| image.allocated_bytes));
        self.disks = disks.map(Arc::new);
    }
}

fn sum(disks: &Disks, counts: impl Fn(&Image) -> bool, of: impl Fn(&Image) -> Option<u64>) -> Option<u64> {
    if disks.untold > 0 {
        return None;
    }
    let mut images = disks.images.iter().filter(|image| counts(image)).peekable();
    images.peek()?;
    images.try_fold(0u64, |sum, image| Some(sum.saturating_add(of(image)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::disk::format::Format;
    use proptest::prelude::*;

    fn image(role: Role, capacity_bytes: Option<u64>, allocated_bytes: Option<u64>) -> Image {
        let (format, path) = (Some(Format::Raw), "/d".into());
        Image {
            id: None,
            via: "/v".into(),
            path,
            is_block: false,
            role,
            format,
            read_only: false,
            deleted: false,
            capacity_bytes,
            allocated_bytes,
            why: None,
        }
    }

    fn of(images: Vec<Image>) -> DiskUsage {
        let mut usage = DiskUsage::default();
        usage.set_disks(Some(Disks { images, ..Disks::default() }));
        usage
    }

    #[test]
    fn backing_files_and_parts_add_no_capacity_and_only_parts_take_room() {
        let usage = of(vec![
            image(Role::Disk, Some(100), Some(10)),
            image(Role::Backing, Some(100), Some(7)),
            image(Role::Part, Some(50), Some(5)),
        ]);
        assert_eq!((usage.capacity_bytes, usage.allocated_bytes), (Some(100), Some(15)));
    }

    #[test]
    fn a_sum_with_a_part_unknown_is_unknown_and_no_disk_is_not_nothing() {
        let usage = of(vec![image(Role::Disk, Some(1), Some(1)), image(Role::Disk, None, None)]);
        assert_eq!((usage.capacity_bytes, usage.allocated_bytes), (None, None));
        assert_eq!((of(vec![]).capacity_bytes, DiskUsage::default().capacity_bytes), (None, None));
    }

    proptest! {
        #[test]
        fn counters_never_fall_whatever_is_read(readings in prop::collection::vec((0u64..9, 0u64..9, 0u64..9), 1..20)) {
            let mut usage = DiskUsage::default();
            let mut last = TaskIo::default();
            for (read_bytes, written_bytes, cancelled_bytes) in readings {
                usage.advance(TaskIo { read_bytes, written_bytes, cancelled_bytes });
                let now = usage.io.unwrap();
                prop_assert!(now.read_bytes >= last.read_bytes.max(read_bytes));
                prop_assert!(now.written_bytes >= last.written_bytes.max(written_bytes));
                last = now;
            }
        }
    }
}
