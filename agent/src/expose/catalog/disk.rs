//! A VM's storage, and the sockets of its VMM.

use super::{Metric, Type};

metrics! {
    VM_DISK_READ: Counter "kvmeter_vm_disk_read_bytes_total" ["vm_id", "name"] "bytes",
        "Bytes the VM's process fetched from storage, as the kernel accounts them to it; what came from the page cache is none.";
    VM_DISK_WRITTEN: Counter "kvmeter_vm_disk_written_bytes_total" ["vm_id", "name"] "bytes",
        "Bytes the VM's process made to be written to storage; what was truncated before is not taken off.";
    VM_DISK_CAPACITY: Gauge "kvmeter_vm_disk_capacity_bytes" ["vm_id", "name"] "bytes",
        "Size of the VM's disks as the guest sees them, backing files left out; absent if a disk's size is not known.";
    VM_DISK_ALLOCATED: Gauge "kvmeter_vm_disk_allocated_bytes" ["vm_id", "name"] "bytes",
        "What the VM's disks take on the host, backing files left out; absent if a disk is a block device.";
    VM_HOST_SOCKET: Counter "kvmeter_vm_host_socket_bytes_total" ["vm_id", "name", "direction"] "bytes",
        "Bytes of the VMM's own sockets from the IP header on, as the VMM sees them; no guest traffic of an interface; absent where the VM has no cgroup v2 of its own.";
}
