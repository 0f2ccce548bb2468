//! The JSON of the API: a VM as the contract shows it.

use std::collections::BTreeMap;

use kvmeter_common::vm::RoleTime;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{disk, network, vm::roles, work_detail};
use crate::{
    account::{Snapshot, VmView, past::Past},
    clock::rfc3339,
    ledger::Shape,
};

/// A VM in the list.
#[derive(Debug, Serialize)]
pub struct VmEntry<'a> {
    vm_id: &'a str,
    incarnation: &'a str,
    name: &'a str,
    uuid: &'a str,
    tenant: &'a str,
    labels: &'a BTreeMap<String, String>,
    hypervisor: &'a str,
    state: &'static str,
    shape: Shape,
    started_at: String,
    stopped_at: Option<String>,
}

/// One VM for the list.
#[must_use]
pub fn entry(vm: &VmView) -> VmEntry<'_> {
    let fixed = &vm.fixed;
    VmEntry {
        vm_id: &fixed.vm_id,
        incarnation: &fixed.incarnation,
        name: vm.name(),
        uuid: vm.uuid(),
        tenant: vm.tenant(),
        labels: &vm.owner.labels,
        hypervisor: &fixed.hypervisor,
        state: vm.state().as_str(),
        shape: Shape { cpu: fixed.vcpus, mem_bytes: fixed.mem_bytes, storage_bytes: fixed.storage_bytes },
        started_at: rfc3339(fixed.started_at),
        stopped_at: vm.end.as_ref().map(|end| rfc3339(end.stopped_at)),
    }
}

/// The list, sorted by vm_id; with `full`, all that is known of each.
#[must_use]
pub fn list(snapshot: &Snapshot, full: bool, history: &dyn Past) -> Value {
    let mut vms: Vec<_> = snapshot.vms.iter().map(AsRef::as_ref).collect();
    vms.sort_by(|a, b| a.fixed.vm_id.cmp(&b.fixed.vm_id));
    let one = |vm: &VmView| if full { detail(vm, snapshot, history) } else { json!(entry(vm)) };
    json!({ "vms": vms.into_iter().map(one).collect::<Vec<_>>() })
}

/// One VM with all that is known. What was not measured is absent.
#[must_use]
pub fn detail(vm: &VmView, snapshot: &Snapshot, history: &dyn Past) -> Value {
    let mut value = json!(entry(vm));
    let mut more = Map::new();
    more.insert("pid".into(), json!(vm.fixed.tgid));
    more.insert("vmm".into(), json!(vm.fixed.vmm));
    more.insert("cgroup".into(), json!(vm.fixed.cgroup));
    more.insert("adopted".into(), json!(vm.fixed.adopted));
    more.insert("cpu_source".into(), json!(vm.source));
    more.insert("read_at".into(), json!(rfc3339(snapshot.taken.unix_of(snapshot.read_ns(vm)))));
    if let Some(first) = vm.first_run_ns {
        more.insert("first_run_at".into(), json!(rfc3339(snapshot.taken.unix_of(first))));
    }
    if vm.cpu.is_some() {
        let by_role = |of: fn(RoleTime) -> u64| -> Value {
            roles(vm).map(|(role, time)| (role.as_label().to_owned(), json!(of(time).to_string()))).collect()
        };
        more.insert("cpu_ns".into(), by_role(|time| time.runtime_ns));
        more.insert("cpu_delay_ns".into(), by_role(|time| time.run_delay_ns));
    }
    more.extend(work_detail::of(vm, snapshot.sampled_ns));
    if let Some(network) = network::detail(vm) {
        more.insert("network".into(), network);
    }
    more.extend(disk::of(vm, snapshot.taken));
    if let Some(end) = &vm.end {
        more.insert("stop_cause".into(), json!(end.cause));
        more.insert("stop_reason".into(), json!(end.reason));
    }
    if let Some(latest) = &vm.latest {
        more.insert("latest".into(), json!(latest.as_ref()));
    }
    if let Some(workload) = &vm.workload {
        more.insert("workload".into(), json!(workload.as_ref()));
    }
    more.insert("samples".into(), json!(history.len(&vm.fixed.vm_id)));
    if let Some(object) = value.as_object_mut() {
        object.extend(more);
    }
    value
}

/// The newest life of a vm_id.
#[must_use]
pub fn find<'a>(snapshot: &'a Snapshot, vm_id: &str) -> Option<&'a VmView> {
    snapshot
        .vms
        .iter()
        .map(AsRef::as_ref)
        .filter(|vm: &&VmView| vm.fixed.vm_id == vm_id)
        .max_by_key(|vm| vm.fixed.start_ns)
}
