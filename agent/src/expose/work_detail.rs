//! The JSON of what a VM's threads did, each vCPU by itself. Nanoseconds are decimal strings, as everywhere.

use serde_json::{Map, Value, json};

use crate::{
    account::{Role, VmView, work},
    bpf::VcpuReading,
    vm::{exit_class, exit_reason},
};

fn strings<'a>(pairs: impl IntoIterator<Item = (&'a str, u64)>) -> Value {
    pairs.into_iter().map(|(key, ns)| (key.to_owned(), json!(ns.to_string()))).collect()
}

fn counts(pairs: impl IntoIterator<Item = (&'static str, u64)>) -> Value {
    pairs.into_iter().map(|(key, count)| (key.to_owned(), json!(count))).collect()
}

/// All that is known of what a VM's threads did, and of its memory up to `sampled_ns`; what was not measured is absent.
#[must_use]
pub fn of(vm: &VmView, sampled_ns: u64) -> Map<String, Value> {
    let mut all = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            all.insert(key.to_owned(), value);
        }
    };
    put("guest_ns", vm.guest_ns.map(|ns| json!(ns.to_string())));
    put("halt_poll_ns", vm.halt_poll_ns.map(|ns| json!(ns.to_string())));
    put("cpu_throttled_ns", vm.throttled_ns.map(|ns| json!(ns.to_string())));
    put("cpu_throttled_why_not", vm.unthrottled.as_deref().map(|why| json!(why)));
    put("memory", vm.memory.as_deref().map(|memory| super::memory::json(memory, sampled_ns)));
    let Some(work) = &vm.work else { return all };
    let cpu = vm.cpu.unwrap_or_default();
    put("vcpu_mode_ns", work::modes(cpu.of(Role::Vcpu).runtime_ns, &work.vcpu).map(strings));
    if work.halts_told {
        put("halted_ns", Some(json!(work.vcpu.halted_ns.to_string())));
        put("halts", Some(json!(work.vcpu.halts)));
    }
    if work.vcpu.entries > 0 {
        put("guest_entries", Some(json!(work.vcpu.entries)));
        put("exits", Some(counts(exit_class::by_label(&work.vcpu.exits))));
    }
    put("userspace_exits", Some(counts(exit_reason::by_label(&work.userspace_exits))));
    if vm.cpu.is_some() {
        put("preempted_ns", Some(strings(work::waited_for(cpu.run_delay_ns(), work, &vm.offenders))));
    }
    let number = |vcpu: &VcpuReading| vm.vcpu_order.iter().position(|tid| *tid == vcpu.tid);
    put("vcpus", Some(work.vcpus.iter().map(|vcpu| one(vcpu, number(vcpu))).collect()));
    all
}

fn one(vcpu: &VcpuReading, number: Option<usize>) -> Value {
    let mut value = json!({
        "vcpu": number,
        "tid": vcpu.tid,
        "cpu_ns": vcpu.time.runtime_ns.to_string(),
        "cpu_delay_ns": vcpu.time.run_delay_ns.to_string(),
        "halts": vcpu.times.halts,
        "halted_ns": vcpu.times.halted_ns.to_string(),
    });
    if let (Some(modes), Some(object)) = (work::modes(vcpu.time.runtime_ns, &vcpu.times), value.as_object_mut()) {
        object.insert("mode_ns".to_owned(), strings(modes));
        object.insert("guest_entries".to_owned(), json!(vcpu.times.entries));
        object.insert("exits".to_owned(), counts(exit_class::by_label(&vcpu.times.exits)));
    }
    value
}
