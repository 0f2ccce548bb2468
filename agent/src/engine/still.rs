//! Which VMs a reconcile looks at: a process in which nothing has run since holds the files that it held.
//!
//! With a thousand idle VMs, reading what each holds took two thirds of the agent's CPU time. What is done to a VM from
//! outside while nothing in it runs (an image deleted under it, a stranger put into its control group) waits for the
//! next reconcile that looks at all.

use std::collections::HashSet;

use super::Engine;
use crate::clock::Instant2;

/// Every so many reconciles look at all VMs.
const ALL_EVERY: u64 = 10;
/// What looking needed is given back to the system so long after it: the answers are in by then.
const TRIM_NS: u64 = 10_000_000_000;

/// Which.
#[derive(Debug, Default)]
pub(super) struct Still {
    reconciles: u64,
    /// When memory is given back, CLOCK_BOOTTIME nanoseconds; 0 = not.
    trim_ns: u64,
}

impl Engine {
    /// VMs that the reconcile now begun need not look at. What runs from here on counts for the next.
    pub(super) fn still_vms(&mut self, at: Instant2) -> HashSet<u32> {
        let all = self.still.reconciles.is_multiple_of(ALL_EVERY);
        self.still.reconciles += 1;
        self.still.trim_ns = at.boot_ns.saturating_add(TRIM_NS);
        let mut still = HashSet::new();
        for vm in self.registry.live_mut() {
            // Without a slot nobody tells whether it has run.
            if !std::mem::take(&mut vm.stirred) && !all && vm.slot().is_some() {
                still.insert(vm.fixed.tgid);
            }
        }
        still
    }

    /// Living VMs that a reconcile looks at.
    pub(super) fn stirred_vms(&self, still: &HashSet<u32>) -> Vec<u32> {
        let living = self.registry.live().filter(|vm| !vm.exiting).map(|vm| vm.fixed.tgid);
        living.filter(|tgid| !still.contains(tgid)).collect()
    }

    /// Once a sample.
    pub(super) fn trim(&mut self, at: Instant2) {
        if self.still.trim_ns > 0 && at.boot_ns >= self.still.trim_ns {
            self.still.trim_ns = 0;
            crate::heap::trim();
        }
    }
}
