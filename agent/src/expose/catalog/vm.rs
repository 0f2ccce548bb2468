//! What a VM is and whether it lives.

use super::{Metric, Type};

metrics! {
    VM_INFO: Gauge "kvmeter_vm_info" ["vm_id", "name", "uuid", "incarnation", "hypervisor", "cgroup", "tenant"] "1",
        "What describes a VM, to join with; always 1.";
    VM_VCPUS: Gauge "kvmeter_vm_vcpus" ["vm_id", "name"] "vcpus",
        "Virtual CPUs, counted at KVM's file descriptors.";
    VM_START: Gauge "kvmeter_vm_start_time_seconds" ["vm_id", "name"] "seconds",
        "When the VM's process started, in Unix time.";
    VM_RUNNING: Gauge "kvmeter_vm_running" ["vm_id", "name"] "bool",
        "1 while the VM's process lives, 0 for a while after its end.";
}
