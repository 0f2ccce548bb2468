//! A VM's storage and its VMM's sockets: the series, and the JSON with each disk. Bytes are decimal strings there.

use std::path::Path;

use super::{
    answer::{At, Decimal, answers},
    catalog::{self, Metric},
    family::Column,
    vm::Fill,
};
use crate::{
    account::{DiskUsage, Snapshot, VmView},
    clock::Instant2,
    host::disk::image::Image,
};

/// Characters of a path that are shown.
const MAX_PATH: usize = 1_024;

/// The families, with what a VM adds to each.
pub const ROWS: [(&Metric, Fill); 5] = [
    (&catalog::VM_DISK_READ, read),
    (&catalog::VM_DISK_WRITTEN, written),
    (&catalog::VM_DISK_CAPACITY, capacity),
    (&catalog::VM_DISK_ALLOCATED, allocated),
    (&catalog::VM_HOST_SOCKET, sockets),
];

fn push(family: &mut Column, vm: &VmView, of: impl Fn(&DiskUsage) -> Option<u64>) {
    if let Some(bytes) = vm.disk.as_deref().and_then(of) {
        family.push(bytes);
    }
}

fn read(family: &mut Column, vm: &VmView, _: &Snapshot) {
    push(family, vm, |disk| Some(disk.io?.read_bytes));
}

fn written(family: &mut Column, vm: &VmView, _: &Snapshot) {
    push(family, vm, |disk| Some(disk.io?.written_bytes));
}

fn capacity(family: &mut Column, vm: &VmView, _: &Snapshot) {
    push(family, vm, |disk| disk.capacity_bytes.filter(|_| vm.end.is_none()));
}

fn allocated(family: &mut Column, vm: &VmView, _: &Snapshot) {
    push(family, vm, |disk| disk.allocated_bytes.filter(|_| vm.end.is_none()));
}

fn sockets(family: &mut Column, vm: &VmView, _: &Snapshot) {
    let Some(bytes) = vm.sockets else { return };
    family.push_word("receive", bytes.receive);
    family.push_word("transmit", bytes.transmit);
}

answers! {
    /// A VM's storage and its VMM's sockets; what was not measured is absent, with the reason beside it.
    struct Disk {
        host_socket_bytes: Option<SocketBytes> = "Bytes of the VMM's own sockets.";
        host_socket_why_not: Option<String> = "Why they are not counted.";
        disk_read_bytes: Option<Decimal> = "Bytes read from storage.";
        disk_written_bytes: Option<Decimal> = "Bytes written to storage.";
        disk_cancelled_write_bytes: Option<Decimal> = "Bytes written that never reached storage.";
        disk_why_not: Option<String> = "Why reads and writes are not known.";
        disk_cgroup: Option<GroupIo> = "The same as its control group has it.";
        disk_cgroup_why_not: Option<String> = "Why that is not known.";
        disk_capacity_bytes: Option<Decimal> = "What its disks hold.";
        disk_allocated_bytes: Option<Decimal> = "What they take.";
        disks: Option<Vec<DiskImage>> = "Each disk.";
        disks_why_not: Option<String> = "Why they are not known.";
        disks_untold: Option<u32> = "Disks beyond those that are listed.";
        disks_unobserved: Option<Vec<&'static str>> = "Disks that cannot be looked at.";
    }

    /// Bytes of sockets.
    struct SocketBytes {
        receive: Decimal = "Received.";
        transmit: Decimal = "Sent.";
    }

    /// What a control group read and wrote.
    struct GroupIo {
        source: &'static str = "Where the kernel counts it.";
        read_bytes: Decimal = "Bytes read.";
        written_bytes: Decimal = "Bytes written.";
        since: At = "From when on.";
    }

    /// One disk.
    struct DiskImage {
        path: String = "Where it is, control characters replaced.";
        kind: &'static str = "block or file.";
        role: &'static str = "What it is to the VM.";
        read_only: bool = "Whether the VM may only read it.";
        format: Option<&'static str> = "The image's format.";
        capacity_bytes: Option<Decimal> = "What it holds.";
        allocated_bytes: Option<Decimal> = "What it takes.";
        deleted: Option<bool> = "True where its name is gone.";
        why: Option<String> = "What is not known of it, and why.";
    }
}

/// All that is known of a VM's storage and sockets.
#[must_use]
pub fn of(vm: &VmView, taken: Instant2) -> Disk {
    let own = |why: &std::sync::Arc<str>| why.to_string();
    let disk = vm.disk.as_deref();
    let io = disk.and_then(|disk| disk.io);
    let disks = disk.and_then(|disk| disk.disks.as_deref());
    Disk {
        host_socket_bytes: vm
            .sockets
            .map(|bytes| SocketBytes { receive: bytes.receive.into(), transmit: bytes.transmit.into() }),
        host_socket_why_not: vm.unsocketed.as_ref().map(own),
        disk_read_bytes: io.map(|io| io.read_bytes.into()),
        disk_written_bytes: io.map(|io| io.written_bytes.into()),
        disk_cancelled_write_bytes: io.map(|io| io.cancelled_bytes.into()),
        disk_why_not: disk.and_then(|disk| disk.io_why_not.as_deref().map(str::to_owned)),
        disk_cgroup: disk.and_then(|disk| disk.group).map(|group| GroupIo {
            source: group.source,
            read_bytes: group.io.read_bytes.into(),
            written_bytes: group.io.written_bytes.into(),
            since: At::unix(taken.unix_of(group.since_ns)),
        }),
        disk_cgroup_why_not: disk.and_then(|disk| disk.group_why_not.as_deref().map(str::to_owned)),
        disk_capacity_bytes: disk.and_then(|disk| disk.capacity_bytes).map(Decimal::from),
        disk_allocated_bytes: disk.and_then(|disk| disk.allocated_bytes).map(Decimal::from),
        disks: disks.map(|disks| disks.images.iter().map(one).collect()),
        disks_why_not: disk.and_then(|disk| disk.disks_why_not.as_deref().map(str::to_owned)),
        disks_untold: disks.filter(|disks| disks.untold > 0).map(|disks| disks.untold),
        disks_unobserved: disks.filter(|disks| !disks.unobserved.is_empty()).map(|disks| disks.unobserved.clone()),
    }
}

/// A path that ends up on terminals: what steers one is replaced.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars().take(MAX_PATH).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn one(image: &Image) -> DiskImage {
    DiskImage {
        path: shown(&image.path),
        kind: if image.is_block { "block" } else { "file" },
        role: image.role.as_str(),
        read_only: image.read_only,
        format: image.format.map(|format| format.as_str()),
        capacity_bytes: image.capacity_bytes.map(Decimal::from),
        allocated_bytes: image.allocated_bytes.map(Decimal::from),
        deleted: image.deleted.then_some(true),
        why: image.why.as_deref().map(str::to_owned),
    }
}
