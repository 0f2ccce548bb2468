//! How long VMs were throttled by their control groups: read at a sample where threads have run since. A group's counter
//! grows when the kernel lets it run again (`unthrottle_cfs_rq`, kernel/sched/fair.c), so one that stands still has
//! nothing new, or will be read once it runs, or at the VM's end.

use super::Engine;
use crate::{
    host::{GroupSearch, ThrottleSource},
    units::Tgid,
    vm::record::Throttle,
};

impl Engine {
    /// Once a sample: reads the counters of VMs in which something has run.
    pub(super) fn sample_throttling(&mut self) {
        let mut failed = 0;
        for vm in self.registry.live_mut().filter(|vm| !vm.exiting && vm.throttle_moved) {
            vm.throttle_moved = false;
            failed += u64::from(!vm.read_throttling());
        }
        self.count_error("throttle", failed);
    }

    /// Looks for a VM's groups: it may have been moved since.
    pub(super) fn follow_throttling(&mut self, search: &GroupSearch, tgid: u32) {
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        vm.throttle_moved = true;
        match &mut vm.throttle {
            // What was counted stays, also where nothing is added for now.
            Throttle::Counted(source) => drop(source.follow(search, Tgid(tgid))),
            _ => {
                vm.throttle = match ThrottleSource::find(search, Tgid(tgid)) {
                    Ok(source) => Throttle::Counted(source),
                    Err(why) => Throttle::Absent(why.to_string().into()),
                };
            }
        }
    }
}
