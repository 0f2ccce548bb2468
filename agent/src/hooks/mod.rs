//! Hooks for operators: a command or a web address is told of ledger lines once they are durable.
//!
//! Events come from the bus, each hook with a queue of its own; runs are counted in the metrics. Best effort: what an
//! agent that is gone had not delivered is not delivered by the next, and a queue's bound loses counted events.
//! Everything runs on threads of its own, so that no hook can delay a measurement, a line or a view. A hook that cannot
//! be used here is told and stops nobody from being metered; what it should have been told of counts as lost.

mod backoff;
mod command;
mod prepared;
mod ran;
mod request;
mod secret;
#[cfg(feature = "tls")]
mod tls;
mod user;
mod worker;

use std::time::Duration;

use tokio::runtime::{Handle, Runtime};

use self::prepared::Prepared;
use self::worker::{Phase, Worker};
use crate::cause;
use crate::config::Hook;
use crate::host::HostFacts;
use crate::lifecycle::{Bus, Interest, Subscription};
use crate::metrics::Shared;

pub use prepared::HookError;

/// Where the bus counts events that found a hook's queue full, or were still in it at the end.
pub const LOST: &str = "hook";
/// Where deliveries are counted that came to nothing.
pub const GIVEN_UP: &str = "hook_given_up";

/// How long a hook that is taken out of the configuration, or changed, may finish what it has begun.
const RETIREMENT: Duration = Duration::from_secs(10);
/// How long runs that were cancelled may take to end.
const BURIAL: Duration = Duration::from_secs(3);

/// The hooks of a running agent.
pub struct Hooks {
    bus: Bus,
    metrics: Shared,
    runtime: Option<Runtime>,
    workers: Vec<Worker>,
    /// Hooks that cannot be used here, with queues that take nothing.
    unusable: Vec<(Hook, Subscription)>,
}

impl Hooks {
    /// Starts hooks; without any, nothing is started.
    #[must_use]
    pub fn start(hooks: &[Hook], facts: &HostFacts, bus: &Bus, metrics: &Shared) -> Self {
        let (bus, metrics) = (bus.clone(), Shared::clone(metrics));
        let mut none = Self { bus, metrics, runtime: None, workers: Vec::new(), unusable: Vec::new() };
        none.take_over(hooks, facts);
        none
    }

    /// What keeps hooks from being used on this host.
    #[must_use]
    pub fn check(hooks: &[Hook], facts: &HostFacts) -> Vec<HookError> {
        hooks.iter().filter_map(|hook| Prepared::new(hook.clone(), facts).err()).collect()
    }

    /// Takes another configuration over: hooks that stay as they are go on undisturbed, the queue of one that changed
    /// goes to its successor, and what is under way may finish.
    pub fn take_over(&mut self, hooks: &[Hook], facts: &HostFacts) {
        let (stay, go): (Vec<_>, Vec<_>) = self.workers.drain(..).partition(|worker| hooks.contains(&worker.hook));
        self.workers = stay;
        go.iter().for_each(|worker| worker.enter(Phase::Finish));
        let before = go.iter().map(|worker| (&worker.hook, &worker.subscription));
        for (hook, subscription) in before.chain(self.unusable.iter().map(|(hook, queue)| (hook, queue))) {
            if hooks.iter().all(|other| other.name != hook.name) {
                self.bus.detach(&queue_name(hook));
                self.bus.count_lost(LOST, subscription.waiting() as u64);
            }
        }
        let unusable = std::mem::take(&mut self.unusable);
        let new: Vec<&Hook> = hooks.iter().filter(|hook| self.workers.iter().all(|w| w.hook != **hook)).collect();
        new.into_iter().for_each(|hook| self.begin(hook, facts));
        // Only now: until it has a successor, a queue is kept by whoever had it.
        drop(unusable);
        if let Some(runtime) = &self.runtime {
            go.into_iter().for_each(|worker| drop(runtime.spawn(worker.retire(RETIREMENT))));
        }
    }

    fn begin(&mut self, hook: &Hook, facts: &HostFacts) {
        let prepared = Prepared::new(hook.clone(), facts).and_then(|prepared| Ok((prepared, self.runtime()?)));
        let room = if prepared.is_ok() { hook.queue as usize } else { 0 };
        let subscription = self.bus.attach(&queue_name(hook), LOST, Interest::of(&hook.kinds), room);
        match prepared {
            Ok((prepared, runtime)) => {
                let _inside = runtime.enter();
                self.workers.push(Worker::start(prepared, subscription, &self.bus, &self.metrics));
            }
            Err(error) => {
                tracing::error!(hook = hook.name, "{}; its events are lost", cause::chain(&error));
                self.unusable.push((hook.clone(), subscription));
            }
        }
    }

    /// Where hooks run, made when the first one is.
    fn runtime(&mut self) -> Result<Handle, HookError> {
        if let Some(runtime) = &self.runtime {
            return Ok(runtime.handle().clone());
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(32).thread_name("hooks").enable_all();
        let runtime = builder.build().map_err(HookError::Runtime)?;
        Ok(self.runtime.insert(runtime).handle().clone())
    }

    /// Lets what waits and what is under way go on for `grace`, then gives it up.
    pub async fn shutdown(mut self, grace: Duration) {
        for worker in &self.workers {
            self.bus.detach(&queue_name(&worker.hook));
        }
        let deadline = tokio::time::Instant::now() + grace;
        for worker in &mut self.workers {
            let _ = tokio::time::timeout_at(deadline, worker.ended()).await;
        }
        let waiting: usize = self.workers.iter().map(|worker| worker.subscription.waiting()).sum();
        self.workers.iter().for_each(|worker| worker.enter(Phase::Cancel));
        let buried = tokio::time::Instant::now() + BURIAL;
        for worker in &mut self.workers {
            let _ = tokio::time::timeout_at(buried, worker.ended()).await;
        }
        if waiting > 0 {
            self.bus.count_lost(LOST, waiting as u64);
            tracing::warn!(events = waiting, "the agent ends before hooks were told of all events");
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits for nobody, which would not be allowed inside another runtime.
            runtime.shutdown_background();
        }
    }
}

fn queue_name(hook: &Hook) -> String {
    format!("hook:{}", hook.name)
}

#[cfg(test)]
mod tests;
