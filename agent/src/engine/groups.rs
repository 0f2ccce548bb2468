//! VMs' own control groups: looked for once a VM has lived to see a sample and again at each reconcile, each time in one
//! search for all that is counted in them.

use std::collections::HashSet;

use super::Engine;
use crate::{clock::Instant2, host::GroupSearch};

impl Engine {
    /// Once a sample: the groups of VMs that are new.
    pub(super) fn find_groups(&mut self, at: Instant2) {
        let new = self.registry.live().filter(|vm| !vm.exiting && !vm.memory.has_looked());
        let new = new.map(|vm| vm.fixed.tgid).collect::<Vec<_>>();
        self.search_groups(&new, at);
    }

    /// At a reconcile: VMs are moved from group to group, and strangers come into them. `still` are not looked at.
    pub(super) fn follow_groups(&mut self, still: &HashSet<u32>, at: Instant2) {
        self.search_groups(&self.stirred_vms(still), at);
    }

    fn search_groups(&mut self, tgids: &[u32], at: Instant2) {
        let search = GroupSearch::new(&self.root);
        // A VM at a time: what was seen of it serves all.
        for tgid in tgids {
            self.follow_throttling(&search, *tgid);
            self.follow_group_io(&search, *tgid, at);
            self.follow_socket_group(&search, *tgid);
            self.follow_memory_group(&search, *tgid);
        }
    }
}
