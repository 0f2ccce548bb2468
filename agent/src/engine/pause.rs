//! Which VMs are paused. A process is stopped by its own threads, which run for that: so each is looked at once after its
//! vCPUs have come to rest, and an idle VM costs nothing.

use super::Engine;
use crate::{account::Role, host::pause, units::Tgid, vm::Origin};

impl Engine {
    /// Looks at VMs whose vCPUs have just come to rest; one whose vCPUs have run is not paused.
    pub(super) fn sample_paused(&mut self) {
        let procfs = &self.procfs;
        for vm in self.registry.live_mut().filter(|vm| !matches!(vm.origin, Origin::Final)) {
            let ran_ns = vm.cpu.map(|cpu| cpu.of(Role::Vcpu).runtime_ns);
            let stood_still = ran_ns.is_some() && vm.pause.ran_ns == ran_ns;
            vm.pause.ran_ns = ran_ns;
            // What cannot be seen is not called paused.
            let stopped = || pause::is_stopped(procfs, Tgid(vm.fixed.tgid)).unwrap_or(false);
            let paused = stood_still && if vm.pause.judged { vm.pause.paused } else { stopped() };
            vm.pause.judged = stood_still;
            if vm.pause.paused != paused {
                vm.pause.paused = paused;
                vm.changed = true;
            }
        }
    }
}
