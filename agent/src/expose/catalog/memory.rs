//! A VM's memory.

use super::{Metric, Type};

metrics! {
    VM_MEMORY_CONFIGURED: Gauge "kvmeter_vm_memory_configured_bytes" ["vm_id", "name"] "bytes",
        "Memory the VM was configured with; absent where its VMM does not tell.";
    VM_MEMORY_RESIDENT: Gauge "kvmeter_vm_memory_resident_bytes" ["vm_id", "name", "type"] "bytes",
        "Memory of the VM's process in RAM: private (anon), of files, shared (shmem); hugetlb is apart.";
    VM_MEMORY_HUGETLB: Gauge "kvmeter_vm_memory_hugetlb_bytes" ["vm_id", "name"] "bytes",
        "Pages of hugetlb the VM has mapped; no part of resident memory; up to a minute old while nothing else moves.";
    VM_MEMORY_SWAP: Gauge "kvmeter_vm_memory_swap_bytes" ["vm_id", "name"] "bytes",
        "Memory of the VM's process that is swapped out.";
    VM_MEMORY_PEAK: Gauge "kvmeter_vm_memory_peak_resident_bytes" ["vm_id", "name"] "bytes",
        "The most that was resident, by the kernel's own mark; hugetlb left out.";
    VM_MEMORY_PSS: Gauge "kvmeter_vm_memory_pss_bytes" ["vm_id", "name"] "bytes",
        "Resident memory with shared pages by their share, read every memory.pss_interval, of memory that stands still every tenth time; absent where it is 0s.";
    VM_MEMORY_CGROUP: Gauge "kvmeter_vm_memory_cgroup_bytes" ["vm_id", "name"] "bytes",
        "What the VM's control group is charged for, page cache and kernel memory included; absent where it is not the VM's own.";
    VM_MEMORY_INTEGRAL: Counter "kvmeter_vm_memory_byte_seconds_total" ["vm_id", "name"] "byte-seconds",
        "Resident and hugetlb memory over the time that was observed; off by half the sample interval times what rose and fell at most.";
    VM_PAGE_FAULTS: Counter "kvmeter_vm_page_faults_total" ["vm_id", "name", "type"] "faults",
        "Page faults of the VM's process on the host, vCPUs included; up to a minute old while its memory stands still.";
    VM_GUEST_FAULTS: Counter "kvmeter_vm_guest_page_faults_total" ["vm_id", "name"] "faults",
        "Faults of the guest on its memory that KVM handled, since the agent came; absent where KVM's back end does not tell.";
}
