//! What the thread publishes and others read: figures a VM, last figures of ended VMs, and what belongs to nobody.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::eventfd::EventFd;

use super::model::{Unowned, VmKey};
use crate::account::{NetworkUsage, network::Traffic};

/// Last figures that are kept until somebody asks.
const MAX_FINAL: usize = 4_096;

/// Figures of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkTally {
    /// What belongs to no VM, and what could not be told.
    pub unowned: Unowned,
    /// Traffic of writers of whom it is not known yet whether they are VMs.
    pub undecided: Traffic,
    /// Times the kernel dropped announcements because we were slow; everything was listed again.
    pub overflows: u64,
    /// Scans, listings and counters that could not be read.
    pub errors: u64,
    /// Packets that may be told on an interface's earlier writer: more processes wrote to it, one after the other, than
    /// the kernel programs have accounts for between two readings.
    pub shared_packets: u64,
    /// Interfaces that are counted now.
    pub interfaces: usize,
    /// Network namespaces that are listened in now.
    pub namespaces: usize,
    /// Processes that were scanned so far.
    pub scans: u64,
}

/// Figures of all VMs as of one sample.
pub type Usages = Arc<BTreeMap<VmKey, Arc<NetworkUsage>>>;

#[derive(Default)]
struct State {
    usages: Usages,
    last: BTreeMap<VmKey, Arc<NetworkUsage>>,
    order: VecDeque<VmKey>,
    tally: NetworkTally,
    samples: u64,
}

/// The published state.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    waker: OnceLock<Arc<EventFd>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while publishing left whole figures behind: each is put in with one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, usages: Usages, tally: NetworkTally) {
        let mut state = self.lock();
        state.usages = usages;
        state.tally = tally;
        state.samples += 1;
        self.changed.notify_all();
    }

    pub(super) fn finish(&self, vm: VmKey, usage: Arc<NetworkUsage>) {
        let mut state = self.lock();
        Arc::make_mut(&mut state.usages).remove(&vm);
        if state.last.insert(vm, usage).is_none() {
            state.order.push_back(vm);
        }
        if state.order.len() > MAX_FINAL
            && let Some(oldest) = state.order.pop_front()
        {
            state.last.remove(&oldest);
        }
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = self.waker.get() {
            // A full counter still wakes.
            let _ = waker.write(1);
        }
    }

    pub(super) fn waking(&self, waker: Arc<EventFd>) {
        // The first one stays: there is one loop.
        let _ = self.waker.set(waker);
    }

    pub(super) fn usage(&self, vm: VmKey) -> Option<Arc<NetworkUsage>> {
        let state = self.lock();
        state.last.get(&vm).or_else(|| state.usages.get(&vm)).cloned()
    }

    /// Those of all VMs that have not ended.
    pub(super) fn usages(&self) -> Usages {
        Arc::clone(&self.lock().usages)
    }

    pub(super) fn tally(&self) -> NetworkTally {
        self.lock().tally
    }

    pub(super) fn samples(&self) -> u64 {
        self.lock().samples
    }

    pub(super) fn wait_final(&self, vm: VmKey, at_most: Duration) -> Option<Arc<NetworkUsage>> {
        self.wait(at_most, |state| state.last.get(&vm).cloned())
    }

    pub(super) fn wait_sample(&self, serial: u64, at_most: Duration) -> bool {
        self.wait(at_most, |state| (state.samples >= serial).then_some(())).is_some()
    }

    fn wait<T>(&self, at_most: Duration, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        let until = Instant::now() + at_most;
        let mut state = self.lock();
        loop {
            let found = look(&state);
            let left = until.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return found;
            }
            state =
                self.changed.wait_timeout(state, left).map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
    }
}
