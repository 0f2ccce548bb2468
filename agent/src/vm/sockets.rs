//! How the sockets of one VM's VMM are counted: the programs on its own control group, and what was counted before.

use std::{path::PathBuf, sync::Arc};

use crate::bpf::{CountedGroup, SocketBytes};

/// The sockets of one VM.
#[derive(Default)]
pub struct VmSockets {
    /// The group that is counted now, and its directory.
    pub group: Option<(PathBuf, CountedGroup)>,
    /// Counted in groups that were left.
    before: SocketBytes,
    /// What is told; `None` as long as nothing was counted.
    pub bytes: Option<SocketBytes>,
    /// Why nothing is counted now.
    pub why_not: Option<Arc<str>>,
    /// Its threads have run since it was read.
    pub moved: bool,
}

impl VmSockets {
    /// Takes a reading of the present group; what is told never falls. True if it grew.
    pub fn take(&mut self, now: SocketBytes) -> bool {
        let told = self.bytes.unwrap_or_default();
        let sum = SocketBytes {
            receive: self.before.receive.saturating_add(now.receive).max(told.receive),
            transmit: self.before.transmit.saturating_add(now.transmit).max(told.transmit),
        };
        self.bytes.replace(sum) != Some(sum)
    }

    /// Begins to count in a group; what others had counted stays.
    pub fn enter(&mut self, dir: PathBuf, group: CountedGroup) {
        self.before = self.bytes.unwrap_or_default();
        self.group = Some((dir, group));
        self.why_not = None;
    }

    /// Stops counting; what was counted stays. True if the reason is a new one.
    pub fn leave(&mut self, why: &str) -> bool {
        self.group = None;
        let new = self.why_not.as_deref() != Some(why);
        self.why_not = Some(why.into());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_never_fall_when_a_vm_changes_its_group() {
        let mut sockets = VmSockets::default();
        assert!(sockets.take(SocketBytes { receive: 5, transmit: 7 }));
        sockets.leave("moved");
        sockets.before = sockets.bytes.unwrap();
        assert!(!sockets.take(SocketBytes::default()), "a new group begins at nothing");
        assert!(sockets.take(SocketBytes { receive: 1, transmit: 0 }));
        assert_eq!(sockets.bytes, Some(SocketBytes { receive: 6, transmit: 7 }));
    }
}
