//! Which VMs are paused. Only those are looked at whose vCPUs have not run for a whole sample.

use super::Engine;
use crate::{
    account::Role,
    host::pause,
    units::{Tgid, Tid},
    vm::{Origin, Vm},
};

impl Engine {
    /// Looks at VMs whose vCPUs stand still; one whose vCPUs have run is not paused.
    pub(super) fn sample_paused(&mut self) {
        let procfs = &self.procfs;
        for vm in self.registry.live_mut().filter(|vm| !matches!(vm.origin, Origin::Final)) {
            let ran_ns = vm.cpu.map(|cpu| cpu.of(Role::Vcpu).runtime_ns);
            let stood_still = ran_ns.is_some() && vm.pause.ran_ns == ran_ns;
            vm.pause.ran_ns = ran_ns;
            let paused = stood_still && (vm.pause.paused || looks_held(procfs, vm));
            if vm.pause.paused != paused {
                vm.pause.paused = paused;
                vm.changed = true;
            }
        }
    }
}

/// What cannot be seen is not called paused.
fn looks_held(procfs: &crate::host::ProcFs, vm: &Vm) -> bool {
    let vcpus: Vec<Tid> = vm.vcpu_order.iter().map(|tid| Tid(*tid)).collect();
    pause::is_held(procfs, Tgid(vm.fixed.tgid), &vcpus).unwrap_or(false)
}
