//! A VM's storage and its VMM's sockets: the series, and the JSON with each disk. Bytes are decimal strings there.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    catalog::{self, Metric},
    family::Family,
    vm::{Fill, labels},
};
use crate::{
    account::{DiskUsage, VmView, snapshot::Detail},
    clock::{Instant2, rfc3339},
    host::disk::image::{Disks, Image},
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

fn push(family: &mut Family, vm: &VmView, of: impl Fn(&DiskUsage) -> Option<u64>) {
    if let Some(bytes) = vm.disk.as_deref().and_then(of) {
        family.push(&labels(vm), bytes as f64);
    }
}

fn read(family: &mut Family, vm: &VmView, _: Detail) {
    push(family, vm, |disk| Some(disk.io?.read_bytes));
}

fn written(family: &mut Family, vm: &VmView, _: Detail) {
    push(family, vm, |disk| Some(disk.io?.written_bytes));
}

fn capacity(family: &mut Family, vm: &VmView, _: Detail) {
    push(family, vm, |disk| disk.capacity_bytes().filter(|_| vm.end.is_none()));
}

fn allocated(family: &mut Family, vm: &VmView, _: Detail) {
    push(family, vm, |disk| disk.allocated_bytes().filter(|_| vm.end.is_none()));
}

fn sockets(family: &mut Family, vm: &VmView, _: Detail) {
    let (Some(bytes), [id, name]) = (vm.sockets, labels(vm)) else { return };
    family.push(&[id, name, "receive"], bytes.receive as f64);
    family.push(&[id, name, "transmit"], bytes.transmit as f64);
}

/// All that is known of a VM's storage and sockets; what was not measured is absent, with the reason beside it.
#[must_use]
pub fn of(vm: &VmView, taken: Instant2) -> Map<String, Value> {
    let mut all = Map::new();
    let bytes = |bytes: u64| json!(bytes.to_string());
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            all.insert(key.to_owned(), value);
        }
    };
    put("host_socket_bytes", vm.sockets.map(|b| json!({"receive": bytes(b.receive), "transmit": bytes(b.transmit)})));
    put("host_socket_why_not", vm.unsocketed.as_deref().map(|why| json!(why)));
    let Some(disk) = &vm.disk else { return all };
    put("disk_read_bytes", disk.io.map(|io| bytes(io.read_bytes)));
    put("disk_written_bytes", disk.io.map(|io| bytes(io.written_bytes)));
    put("disk_cancelled_write_bytes", disk.io.map(|io| bytes(io.cancelled_bytes)));
    put("disk_why_not", disk.io_why_not.as_deref().map(|why| json!(why)));
    put(
        "disk_cgroup",
        disk.group.map(|group| {
            let (io, since) = (group.io, rfc3339(taken.unix_of(group.since_ns)));
            let (read, written) = (bytes(io.read_bytes), bytes(io.written_bytes));
            json!({"source": group.source, "read_bytes": read, "written_bytes": written, "since": since})
        }),
    );
    put("disk_cgroup_why_not", disk.group_why_not.as_deref().map(|why| json!(why)));
    put("disk_capacity_bytes", disk.capacity_bytes().map(bytes));
    put("disk_allocated_bytes", disk.allocated_bytes().map(bytes));
    put("disks", disk.disks.as_deref().map(|disks| disks.images.iter().map(one).collect()));
    put("disks_why_not", disk.disks_why_not.as_deref().map(|why| json!(why)));
    let found = |of: fn(&Disks) -> bool| disk.disks.as_deref().filter(|disks| of(disks));
    put("disks_untold", found(|disks| disks.untold > 0).map(|disks| json!(disks.untold)));
    put("disks_unobserved", found(|disks| !disks.unobserved.is_empty()).map(|disks| json!(disks.unobserved)));
    all
}

/// A path that ends up on terminals: what steers one is replaced.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars().take(MAX_PATH).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn one(image: &Image) -> Value {
    let mut value = json!({
        "path": shown(&image.path),
        "kind": if image.is_block { "block" } else { "file" },
        "role": image.role.as_str(),
        "read_only": image.read_only,
    });
    let Some(object) = value.as_object_mut() else { return value };
    let mut put = |key: &str, value: Option<Value>| object.extend(value.map(|value| (key.to_owned(), value)));
    put("format", image.format.map(|format| json!(format.as_str())));
    put("capacity_bytes", image.capacity_bytes.map(|bytes| json!(bytes.to_string())));
    put("allocated_bytes", image.allocated_bytes.map(|bytes| json!(bytes.to_string())));
    put("deleted", image.deleted.then_some(json!(true)));
    put("why", image.why.as_deref().map(|why| json!(why)));
    value
}
