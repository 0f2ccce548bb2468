//! What an end is judged by: who sent signals, and whether the host is going down.

use super::{Engine, annotate::Annotations};
use crate::{
    bpf::{Exit, VmReading},
    clock::Instant2,
    host::{libvirt_log, shutdown},
    ledger::Past,
    lifecycle::{Ending, Verdict, verdict},
    vm::identity::Hypervisor,
};

/// How long a look at the host's state is good for: a thousand VMs stopped at once take one.
const GOOD_FOR_NS: u64 = 200_000_000;

/// Whether the host is going down, as of the last look.
#[derive(Clone, Copy, Debug, Default)]
struct HostDown {
    looked_ns: u64,
    down: bool,
}

/// What starts and ends are judged by, beside readings.
#[derive(Default)]
pub(super) struct Why {
    /// What was stated of VMs.
    pub(super) annotations: Annotations,
    /// Lives that are over.
    pub(super) past: Past,
    host_down: HostDown,
}

impl Engine {
    /// Judges the end of a process that was seen to end.
    pub(super) fn judge(&mut self, reading: &VmReading, exit: Exit, at: Instant2) -> Verdict {
        let host_down = self.is_host_going_down(at);
        let qemu = self.registry.of_tgid(reading.tgid).filter(|vm| vm.fixed.hypervisor == Hypervisor::Qemu.as_str());
        let shutoff = qemu.and_then(|vm| libvirt_log::shutoff(&self.root, &vm.fixed.name, vm.fixed.started_at));
        let signals = self.kernel.as_ref().and_then(|kernel| kernel.signals(reading.slot));
        verdict(&Ending {
            status: Some(exit.code),
            last_exit: reading.last_exit,
            signals: signals.as_ref(),
            host_down,
            shutoff,
        })
    }

    fn is_host_going_down(&mut self, at: Instant2) -> bool {
        if self.why.host_down.looked_ns == 0 || at.boot_ns.saturating_sub(self.why.host_down.looked_ns) > GOOD_FOR_NS {
            self.why.host_down =
                HostDown { looked_ns: at.boot_ns, down: shutdown::is_under_way(&self.root, at.unix_ns) };
        }
        self.why.host_down.down
    }
}
