//! The series and the JSON of a VM's memory. A size is shown only while the VM runs, a counter also after its end.

use super::{
    answer::{Decimal, answers},
    catalog::{self, Metric},
    family::Column,
    vm::Fill,
};
use crate::account::{MemoryUsage, Snapshot, VmView};

/// The families, with what a VM adds to each.
pub const ROWS: [(&Metric, Fill); 10] = [
    (&catalog::VM_MEMORY_CONFIGURED, configured),
    (&catalog::VM_MEMORY_RESIDENT, resident),
    (&catalog::VM_MEMORY_HUGETLB, |family, vm, _| size(family, vm, |memory| memory.hugetlb_bytes)),
    (&catalog::VM_MEMORY_SWAP, |family, vm, _| size(family, vm, |memory| memory.swap_bytes)),
    (&catalog::VM_MEMORY_PEAK, |family, vm, _| size(family, vm, |memory| memory.peak_resident_bytes)),
    (&catalog::VM_MEMORY_PSS, |family, vm, _| size(family, vm, |memory| memory.pss_bytes)),
    (&catalog::VM_MEMORY_CGROUP, |family, vm, _| size(family, vm, |memory| memory.cgroup_bytes)),
    (&catalog::VM_PAGE_FAULTS, faults),
    (&catalog::VM_GUEST_FAULTS, guest_faults),
    (&catalog::VM_MEMORY_INTEGRAL, integral),
];

fn configured(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if vm.end.is_none() && vm.fixed.mem_bytes > 0 {
        family.push(vm.fixed.mem_bytes);
    }
}

fn size(family: &mut Column, vm: &VmView, of: fn(&MemoryUsage) -> Option<u64>) {
    if let Some(bytes) = vm.memory.as_deref().filter(|_| vm.end.is_none()).and_then(of) {
        family.push(bytes);
    }
}

fn resident(family: &mut Column, vm: &VmView, _: &Snapshot) {
    let memory = vm.memory.as_deref().filter(|_| vm.end.is_none());
    if let Some(resident) = memory.and_then(|memory| memory.resident) {
        family.push_word("anon", resident.anon_bytes);
        family.push_word("file", resident.file_bytes);
        family.push_word("shmem", resident.shmem_bytes);
    }
}

/// The integral: of a VM whose memory stands still it is a matter of the snapshot's instant.
fn integral(family: &mut Column, vm: &VmView, snapshot: &Snapshot) {
    if let Some(byte_ns) = vm.memory.as_deref().and_then(|memory| memory.byte_ns(snapshot.sampled_ns)) {
        family.push_real(byte_ns as f64 / 1e9);
    }
}

fn faults(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if let Some(faults) = vm.memory.as_deref().and_then(|memory| memory.faults) {
        family.push_word("minor", faults.minor);
        family.push_word("major", faults.major);
    }
}

fn guest_faults(family: &mut Column, vm: &VmView, _: &Snapshot) {
    if let Some(count) = vm.memory.as_deref().and_then(|memory| memory.guest_faults) {
        family.push(count);
    }
}

answers! {
    /// What a VM holds of memory; what was not measured is absent.
    struct Memory {
        resident_bytes: Option<Resident> = "Resident memory by what it is.";
        used_bytes: Option<u64> = "Resident memory, hugetlb included.";
        hugetlb_bytes: Option<u64> = "Memory in huge pages of hugetlbfs.";
        swap_bytes: Option<u64> = "Swapped out.";
        peak_resident_bytes: Option<u64> = "The most that was resident.";
        pss_bytes: Option<u64> = "Resident memory, what is shared divided by its sharers.";
        cgroup_bytes: Option<u64> = "What its control group is charged.";
        cgroup_why_not: Option<String> = "Why that is not known.";
        byte_ns: Option<Decimal> = "The integral of used memory over time, byte-nanoseconds.";
        peak_bytes: Option<u64> = "The most that was used at a reading.";
        page_faults: Option<Faults> = "Page faults of the process.";
        guest_page_faults: Option<u64> = "Page faults of the guest that KVM resolved.";
        why_not: Option<String> = "Why memory is not read.";
        read: &'static str = "When it is read.";
    }

    /// Resident memory by what it is, bytes.
    struct Resident {
        anon: u64 = "Anonymous.";
        file: u64 = "Of files.";
        shmem: u64 = "Shared.";
    }

    /// Page faults.
    struct Faults {
        minor: u64 = "Without input.";
        major: u64 = "With input.";
    }
}

/// What is known of a VM's memory up to `sampled_ns`.
#[must_use]
pub fn answer(memory: &MemoryUsage, sampled_ns: u64) -> Memory {
    Memory {
        resident_bytes: memory.resident.map(|by| Resident {
            anon: by.anon_bytes,
            file: by.file_bytes,
            shmem: by.shmem_bytes,
        }),
        used_bytes: memory.used_bytes(),
        hugetlb_bytes: memory.hugetlb_bytes,
        swap_bytes: memory.swap_bytes,
        peak_resident_bytes: memory.peak_resident_bytes,
        pss_bytes: memory.pss_bytes,
        cgroup_bytes: memory.cgroup_bytes,
        cgroup_why_not: memory.cgroup_why_not.as_deref().map(str::to_owned),
        byte_ns: memory.byte_ns(sampled_ns).map(Decimal),
        peak_bytes: memory.peak_bytes,
        page_faults: memory.faults.map(|faults| Faults { minor: faults.minor, major: faults.major }),
        guest_page_faults: memory.guest_faults,
        why_not: memory.why_not.as_deref().map(str::to_owned),
        read: if memory.on_change { "when it moved" } else { "at every sample" },
    }
}
