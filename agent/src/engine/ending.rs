//! What an end is judged by: who sent signals, and whether the host is going down.

use super::Engine;
use crate::{
    bpf::{Exit, VmReading},
    clock::Instant2,
    host::shutdown,
    lifecycle::{Ending, Verdict, verdict},
};

/// How long a look at the host's state is good for: a thousand VMs stopped at once take one.
const GOOD_FOR_NS: u64 = 200_000_000;

/// Whether the host is going down, as of the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HostDown {
    looked_ns: u64,
    down: bool,
}

impl Engine {
    /// Judges the end of a process that was seen to end.
    pub(super) fn judge(&mut self, reading: &VmReading, exit: Exit, at: Instant2) -> Verdict {
        let host_down = self.is_host_going_down(at);
        let signals = self.kernel.as_ref().and_then(|kernel| kernel.signals(reading.slot));
        verdict(&Ending { status: Some(exit.code), last_exit: reading.last_exit, signals: signals.as_ref(), host_down })
    }

    fn is_host_going_down(&mut self, at: Instant2) -> bool {
        if self.host_down.looked_ns == 0 || at.boot_ns.saturating_sub(self.host_down.looked_ns) > GOOD_FOR_NS {
            self.host_down = HostDown { looked_ns: at.boot_ns, down: shutdown::is_under_way(&self.root, at.unix_ns) };
        }
        self.host_down.down
    }
}
