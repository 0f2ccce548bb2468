//! Where one VM's identity and shape are read beside its command line, and what was read last: the cache of one
//! incarnation.

use std::sync::Arc;

use super::identity::Clues;
use crate::host::source::Stamps;

/// Sources of one VM.
#[derive(Clone, Debug, Default)]
pub struct VmSource {
    /// Files that may say more.
    pub clues: Arc<Clues>,
    /// The states of these files when they were read; `None` until they were.
    pub stamps: Option<Stamps>,
    /// They are being looked at.
    pub asked: bool,
    /// Descriptors of vCPUs that its process holds; 0 = not counted.
    pub held: u32,
    /// Descriptors of KVM VMs that it holds, as counted last.
    pub held_vms: u32,
    /// How many vCPU threads were known when these were counted.
    pub counted: usize,
    /// vCPUs and memory as a manager of the host says they are now.
    pub live: (Option<u32>, Option<u64>),
}

impl VmSource {
    /// vCPUs: what KVM shows. A VMM may keep the descriptor of one that was unplugged, so a manager that says fewer is
    /// believed, and one that says more is not.
    #[must_use]
    pub fn vcpus(&self) -> Option<u32> {
        match (self.held, self.live.0) {
            (0, live) => live,
            (held, None) => Some(held),
            (held, Some(live)) => Some(held.min(live)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_may_say_fewer_vcpus_than_kvm_shows_and_never_more() {
        let of = |held, live| VmSource { held, live: (live, None), ..VmSource::default() }.vcpus();
        assert_eq!([of(0, None), of(0, Some(2)), of(4, None)], [None, Some(2), Some(4)]);
        assert_eq!([of(4, Some(2)), of(4, Some(9))], [Some(2), Some(4)]);
    }
}
