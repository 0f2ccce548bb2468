//! The series of each VM.

use prometheus::proto::MetricFamily;

use super::{
    catalog,
    family::{Family, seconds},
    work::WorkFamilies,
};
use crate::account::{Role, Snapshot, VmView};

/// All families with a `vm_id`.
#[must_use]
pub fn families(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut info = Family::new(&catalog::VM_INFO);
    let mut cpu = Family::new(&catalog::VM_CPU);
    let mut delay = Family::new(&catalog::VM_CPU_DELAY);
    let mut running = Family::new(&catalog::VM_RUNNING);
    let (mut work, mut gauges) = (WorkFamilies::new(snapshot.host.detail), Gauges::new());
    for vm in &snapshot.vms {
        let fixed = &vm.fixed;
        let (id, name) = (fixed.vm_id.as_str(), fixed.name.as_str());
        info.push(&[id, name, &fixed.uuid, &fixed.incarnation, &fixed.hypervisor, &fixed.cgroup, ""], 1.0);
        if let Some(usage) = &vm.cpu {
            for role in Role::ALL {
                let time = usage.of(role);
                cpu.push(&[id, name, role.as_label()], seconds(time.runtime_ns));
                delay.push(&[id, name, role.as_label()], seconds(time.run_delay_ns));
            }
        }
        work.push(vm);
        running.push(&[id, name], if vm.end.is_none() { 1.0 } else { 0.0 });
        if vm.end.is_none() {
            gauges.push(vm);
        }
    }
    let mut all = vec![info.done(), cpu.done(), delay.done(), running.done()];
    all.extend(work.done());
    all.extend(gauges.done());
    all
}

/// Gauges, which only a running VM has.
struct Gauges {
    memory: Family,
    vcpus: Family,
    start: Family,
}

impl Gauges {
    fn new() -> Self {
        Self {
            memory: Family::new(&catalog::VM_MEMORY_CONFIGURED),
            vcpus: Family::new(&catalog::VM_VCPUS),
            start: Family::new(&catalog::VM_START),
        }
    }

    fn push(&mut self, vm: &VmView) {
        let labels = [vm.fixed.vm_id.as_str(), vm.fixed.name.as_str()];
        if vm.fixed.mem_bytes > 0 {
            self.memory.push(&labels, vm.fixed.mem_bytes as f64);
        }
        if vm.fixed.vcpus > 0 {
            self.vcpus.push(&labels, f64::from(vm.fixed.vcpus));
        }
        self.start.push(&labels, seconds(vm.fixed.started_at));
    }

    fn done(self) -> [MetricFamily; 3] {
        [self.memory.done(), self.vcpus.done(), self.start.done()]
    }
}
