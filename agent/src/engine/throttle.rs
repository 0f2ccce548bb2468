//! How long VMs were throttled by their control groups: found once a VM has lived through a sample, looked for again at
//! each reconcile, read at each sample.

use super::Engine;
use crate::{
    host::ThrottleSource,
    units::Tgid,
    vm::{Vm, record::Throttle},
};

impl Engine {
    /// Reads every VM's counter; looks for it where that was not done yet.
    pub(super) fn sample_throttling(&mut self) {
        let (root, procfs) = (&self.root, &self.procfs);
        let mut failed = 0;
        for vm in self.registry.live_mut().filter(|vm| !vm.exiting) {
            if matches!(vm.throttle, Throttle::NotLooked) {
                find(vm, |tgid| ThrottleSource::find(root, procfs, tgid));
            }
            failed += u64::from(!vm.read_throttling());
        }
        self.count_error("throttle", failed);
    }

    /// Looks again for each VM's groups: it may have been moved since.
    pub(super) fn follow_throttling(&mut self) {
        let (root, procfs) = (&self.root, &self.procfs);
        for vm in self.registry.live_mut().filter(|vm| !vm.exiting) {
            let tgid = Tgid(vm.fixed.tgid);
            match &mut vm.throttle {
                // What was counted stays, also where nothing is added for now.
                Throttle::Counted(source) => drop(source.follow(root, procfs, tgid)),
                _ => find(vm, |tgid| ThrottleSource::find(root, procfs, tgid)),
            }
        }
    }
}

fn find(vm: &mut Vm, look: impl Fn(Tgid) -> Result<ThrottleSource, crate::host::WhyNot>) {
    vm.throttle = match look(Tgid(vm.fixed.tgid)) {
        Ok(source) => Throttle::Counted(source),
        Err(why) => Throttle::Absent(why.to_string().into()),
    };
}
