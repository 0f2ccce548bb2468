//! What the agent counts about its own work, apart from where that is kept: one trait, and backends behind it.
//!
//! Callers are the engine (boots, states), the bus's follower (created, destroyed), hooks and the identity cache. Every
//! call is cheap and waits for nothing: a backend counts in memory or puts into a queue of its own. Prometheus' backend
//! stands in `expose`, the only folder that imports it; with the cargo feature `metrics` off there is [`NoopMetrics`].

pub mod follow;
#[cfg(feature = "otlp")]
pub mod otlp;
mod outcome;
#[cfg(feature = "statsd")]
pub mod statsd;

use std::sync::Arc;

pub use crate::account::VmState;
pub use outcome::Outcome;

/// Where counts go. Backends are cheap to clone, or are shared as [`Shared`]; both go into tasks and threads.
pub trait MetricsCollector: Send + Sync {
    /// A VM took this long from its process's start to its first guest entry.
    fn record_vm_boot(&self, duration_secs: f64);
    /// One VM more is in this state.
    fn inc_vm_state(&self, state: VmState);
    /// One VM fewer is in this state.
    fn dec_vm_state(&self, state: VmState);
    /// A VM's start became durable.
    fn inc_vm_created(&self);
    /// A VM's end became durable.
    fn inc_vm_destroyed(&self);
    /// A hook ran this long and did, or did not, do what it was asked.
    fn record_exec(&self, duration_secs: f64, success: bool);
    /// A VM's identity was known already.
    fn inc_cache_hit(&self);
    /// A VM's identity had to be found out.
    fn inc_cache_miss(&self);

    /// The same as [`Self::record_exec`], for backends that tell four outcomes apart.
    fn record_run(&self, duration_secs: f64, outcome: Outcome) {
        self.record_exec(duration_secs, outcome == Outcome::Success);
    }
}

/// A backend as it is handed around.
pub type Shared = Arc<dyn MetricsCollector>;

impl<T: MetricsCollector + ?Sized> MetricsCollector for Arc<T> {
    fn record_vm_boot(&self, duration_secs: f64) {
        (**self).record_vm_boot(duration_secs);
    }
    fn inc_vm_state(&self, state: VmState) {
        (**self).inc_vm_state(state);
    }
    fn dec_vm_state(&self, state: VmState) {
        (**self).dec_vm_state(state);
    }
    fn inc_vm_created(&self) {
        (**self).inc_vm_created();
    }
    fn inc_vm_destroyed(&self) {
        (**self).inc_vm_destroyed();
    }
    fn record_exec(&self, duration_secs: f64, success: bool) {
        (**self).record_exec(duration_secs, success);
    }
    fn inc_cache_hit(&self) {
        (**self).inc_cache_hit();
    }
    fn inc_cache_miss(&self) {
        (**self).inc_cache_miss();
    }
    fn record_run(&self, duration_secs: f64, outcome: Outcome) {
        (**self).record_run(duration_secs, outcome);
    }
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoopMetrics;

impl MetricsCollector for NoopMetrics {
    fn record_vm_boot(&self, _: f64) {}
    fn inc_vm_state(&self, _: VmState) {}
    fn dec_vm_state(&self, _: VmState) {}
    fn inc_vm_created(&self) {}
    fn inc_vm_destroyed(&self) {}
    fn record_exec(&self, _: f64, _: bool) {}
    fn inc_cache_hit(&self) {}
    fn inc_cache_miss(&self) {}
}

/// Several backends as one; none is [`NoopMetrics`].
#[derive(Clone, Default)]
pub struct Fanout(Arc<[Shared]>);

impl Fanout {
    /// Tells all of these.
    #[must_use]
    pub fn new(backends: Vec<Shared>) -> Self {
        Self(backends.into())
    }

    fn all(&self, tell: impl FnMut(&Shared)) {
        self.0.iter().for_each(tell);
    }
}

impl MetricsCollector for Fanout {
    fn record_vm_boot(&self, duration_secs: f64) {
        self.all(|one| one.record_vm_boot(duration_secs));
    }
    fn inc_vm_state(&self, state: VmState) {
        self.all(|one| one.inc_vm_state(state));
    }
    fn dec_vm_state(&self, state: VmState) {
        self.all(|one| one.dec_vm_state(state));
    }
    fn inc_vm_created(&self) {
        self.all(|one| one.inc_vm_created());
    }
    fn inc_vm_destroyed(&self) {
        self.all(|one| one.inc_vm_destroyed());
    }
    fn record_exec(&self, duration_secs: f64, success: bool) {
        self.all(|one| one.record_exec(duration_secs, success));
    }
    fn inc_cache_hit(&self) {
        self.all(|one| one.inc_cache_hit());
    }
    fn inc_cache_miss(&self) {
        self.all(|one| one.inc_cache_miss());
    }
    fn record_run(&self, duration_secs: f64, outcome: Outcome) {
        self.all(|one| one.record_run(duration_secs, outcome));
    }
}

#[cfg(test)]
pub mod tests;
