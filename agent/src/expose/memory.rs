//! The series and the JSON of a VM's memory. A size is shown only while the VM runs, a counter also after its end.

use serde_json::{Map, Value, json};

use super::{
    catalog::{self, Metric},
    family::{Family, MetricFamily},
    vm::{Fill, labels},
};
use crate::account::{MemoryUsage, Snapshot, VmView, snapshot::Detail};

/// The families, with what a VM adds to each.
pub const ROWS: [(&Metric, Fill); 9] = [
    (&catalog::VM_MEMORY_CONFIGURED, configured),
    (&catalog::VM_MEMORY_RESIDENT, resident),
    (&catalog::VM_MEMORY_HUGETLB, |family, vm, _| size(family, vm, |memory| memory.hugetlb_bytes)),
    (&catalog::VM_MEMORY_SWAP, |family, vm, _| size(family, vm, |memory| memory.swap_bytes)),
    (&catalog::VM_MEMORY_PEAK, |family, vm, _| size(family, vm, |memory| memory.peak_resident_bytes)),
    (&catalog::VM_MEMORY_PSS, |family, vm, _| size(family, vm, |memory| memory.pss_bytes)),
    (&catalog::VM_MEMORY_CGROUP, |family, vm, _| size(family, vm, |memory| memory.cgroup_bytes)),
    (&catalog::VM_PAGE_FAULTS, faults),
    (&catalog::VM_GUEST_FAULTS, guest_faults),
];

fn configured(family: &mut Family, vm: &VmView, _: Detail) {
    if vm.end.is_none() && vm.fixed.mem_bytes > 0 {
        family.push(&labels(vm), vm.fixed.mem_bytes as f64);
    }
}

fn size(family: &mut Family, vm: &VmView, of: fn(&MemoryUsage) -> Option<u64>) {
    if let Some(bytes) = vm.memory.as_deref().filter(|_| vm.end.is_none()).and_then(of) {
        family.push(&labels(vm), bytes as f64);
    }
}

fn resident(family: &mut Family, vm: &VmView, _: Detail) {
    let ([id, name], memory) = (labels(vm), vm.memory.as_deref().filter(|_| vm.end.is_none()));
    if let Some(resident) = memory.and_then(|memory| memory.resident) {
        family.push(&[id, name, "anon"], resident.anon_bytes as f64);
        family.push(&[id, name, "file"], resident.file_bytes as f64);
        family.push(&[id, name, "shmem"], resident.shmem_bytes as f64);
    }
}

/// The integral of all VMs: of one whose memory stands still it is a matter of the snapshot's instant.
#[must_use]
pub fn integral(snapshot: &Snapshot) -> MetricFamily {
    let mut family = Family::new(&catalog::VM_MEMORY_INTEGRAL);
    for vm in &snapshot.vms {
        if let Some(byte_ns) = vm.memory.as_deref().and_then(|memory| memory.byte_ns(snapshot.sampled_ns)) {
            family.push(&labels(vm), byte_ns as f64 / 1e9);
        }
    }
    family.done()
}

fn faults(family: &mut Family, vm: &VmView, _: Detail) {
    let [id, name] = labels(vm);
    if let Some(faults) = vm.memory.as_deref().and_then(|memory| memory.faults) {
        family.push(&[id, name, "minor"], faults.minor as f64);
        family.push(&[id, name, "major"], faults.major as f64);
    }
}

fn guest_faults(family: &mut Family, vm: &VmView, _: Detail) {
    if let Some(count) = vm.memory.as_deref().and_then(|memory| memory.guest_faults) {
        family.push(&labels(vm), count as f64);
    }
}

/// All that is known of a VM's memory; what was not measured is absent. Bytes and counts, all whole; the integral is a
/// decimal string, as it is in the ledger, up to `sampled_ns`.
#[must_use]
pub fn json(memory: &MemoryUsage, sampled_ns: u64) -> Value {
    let mut all = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            all.insert(key.to_owned(), value);
        }
    };
    let resident =
        memory.resident.map(|by| json!({ "anon": by.anon_bytes, "file": by.file_bytes, "shmem": by.shmem_bytes }));
    put("resident_bytes", resident);
    put("used_bytes", memory.used_bytes().map(Value::from));
    put("hugetlb_bytes", memory.hugetlb_bytes.map(Value::from));
    put("swap_bytes", memory.swap_bytes.map(Value::from));
    put("peak_resident_bytes", memory.peak_resident_bytes.map(Value::from));
    put("pss_bytes", memory.pss_bytes.map(Value::from));
    put("cgroup_bytes", memory.cgroup_bytes.map(Value::from));
    put("cgroup_why_not", memory.cgroup_why_not.as_deref().map(Value::from));
    put("byte_ns", memory.byte_ns(sampled_ns).map(|byte_ns| json!(byte_ns.to_string())));
    put("peak_bytes", memory.peak_bytes.map(Value::from));
    put("page_faults", memory.faults.map(|faults| json!({ "minor": faults.minor, "major": faults.major })));
    put("guest_page_faults", memory.guest_faults.map(Value::from));
    put("why_not", memory.why_not.as_deref().map(Value::from));
    put("read", Some(json!(if memory.on_change { "when it moved" } else { "at every sample" })));
    Value::Object(all)
}
