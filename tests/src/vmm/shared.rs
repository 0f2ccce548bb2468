//! What the threads of one VMM share: the exit counts, the thread ids of the vCPUs, and the word that it is over.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::exits::Exits;

/// Shared by all threads of the process.
#[derive(Debug, Default)]
pub struct Shared {
    /// What KVM_RUN returned, over all vCPUs.
    pub exits: Exits,
    /// Whether to report each vCPU's last exit on stderr.
    pub verbose: bool,
    tids: Mutex<Vec<(u32, i32)>>,
    over: Mutex<bool>,
    wake: Condvar,
}

impl Shared {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    /// Records that the calling thread is the vCPU with this number in the process.
    pub fn register(&self, vcpu: u32) {
        let mut tids = self.tids.lock().unwrap_or_else(PoisonError::into_inner);
        tids.push((vcpu, nix::unistd::gettid().as_raw()));
        tids.sort_unstable();
    }

    /// The thread ids of the vCPUs that have started, in the order of their numbers.
    #[must_use]
    pub fn tids(&self) -> Vec<i32> {
        self.tids.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, tid)| *tid).collect()
    }

    /// Wakes every sleeper: the VM is to end.
    pub fn set_over(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Sleeps for as long, or until the VM is to end; `None` is without limit. True when the VM is to end.
    pub fn sleep(&self, time: Option<Duration>) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        match time {
            Some(time) if time.is_zero() => *over,
            Some(time) => {
                let waited = self.wake.wait_timeout_while(over, time, |over| !*over);
                *waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => *self.wake.wait_while(over, |over| !*over).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// CPU time of the calling thread in nanoseconds, the guest's included.
#[must_use]
pub fn cpu_ns() -> u64 {
    read_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// CLOCK_MONOTONIC in nanoseconds.
#[must_use]
pub fn wall_ns() -> u64 {
    read_ns(ClockId::CLOCK_MONOTONIC)
}

fn read_ns(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux; 0 would only make a thread burn more.
    clock_gettime(clock).map(Duration::from).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// Lets the calling thread sleep to the microsecond instead of the default slack of 50.
pub fn sleep_sharply() {
    if nix::sys::prctl::set_timerslack(1000).is_err() {
        // The duty cycle corrects itself; only the exit rate is a little less even.
    }
}
