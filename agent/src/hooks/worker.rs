//! One hook at work: takes events from its queue, has so many deliveries under way, tries each again with pauses.
//!
//! A worker is told to go through phases and never goes back: it works; it finishes what it has begun and takes nothing
//! new; it gives up what is still under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::backoff;
use super::prepared::{Action, Prepared};
use super::ran::Ran;
use super::secret::Secret;
use super::{GIVEN_UP, command, request};
use crate::cause;
use crate::config::Hook;
use crate::lifecycle::{Bus, Event, Subscription};
use crate::metrics::{MetricsCollector as _, Outcome, Shared};

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Everything.
    Work,
    /// What it has begun.
    Finish,
    /// Nothing any more.
    Cancel,
}

/// A worker as others see it.
pub(super) struct Worker {
    pub(super) hook: Hook,
    pub(super) subscription: Subscription,
    phase: watch::Sender<Phase>,
    done: JoinHandle<()>,
}

impl Worker {
    /// Starts one in the runtime it is called in.
    pub(super) fn start(prepared: Prepared, subscription: Subscription, bus: &Bus, metrics: &Shared) -> Self {
        let (phase, told) = watch::channel(Phase::Work);
        let hook = prepared.hook.clone();
        let job = Arc::new(Job { prepared, phase: told, bus: bus.clone(), metrics: Arc::clone(metrics) });
        let done = tokio::spawn(work(job, subscription.clone()));
        Self { hook, subscription, phase, done }
    }

    /// Goes on to a phase.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| std::mem::replace(now, phase.max(*now)) < phase);
    }

    /// Lets what it has begun go on for a while, then gives it up.
    pub(super) async fn retire(mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.ended()).await;
        self.enter(Phase::Cancel);
        self.ended().await;
    }

    /// Waits until nothing is under way.
    pub(super) async fn ended(&mut self) {
        if !self.done.is_finished() {
            let _ = (&mut self.done).await;
        }
    }
}

/// What a delivery needs.
struct Job {
    prepared: Prepared,
    phase: watch::Receiver<Phase>,
    bus: Bus,
    metrics: Shared,
}

impl Job {
    /// Returns when the phase is this one or a later one; a worker nobody holds any more is to give up.
    async fn reached(&self, phase: Phase) {
        let _ = self.phase.clone().wait_for(|now| *now >= phase).await;
    }
}

async fn work(job: Arc<Job>, subscription: Subscription) {
    let permits = Arc::new(Semaphore::new(job.prepared.hook.max_concurrent as usize));
    let mut deliveries = JoinSet::new();
    let mut lost = 0;
    loop {
        let next = async {
            // A closed semaphore does not happen: nobody closes it.
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((permit, subscription.next().await?))
        };
        let next = tokio::select! {
            biased;
            () = job.reached(Phase::Finish) => None,
            next = next => next,
        };
        let Some((permit, event)) = next else { break };
        let delivery = Arc::clone(&job);
        deliveries.spawn(async move {
            deliver(&delivery, &event).await;
            drop(permit);
        });
        while deliveries.try_join_next().is_some() {}
        if subscription.lost() > lost {
            tracing::warn!(
                hook = job.prepared.hook.name,
                lost = subscription.lost() - lost,
                "a hook is too slow; events are lost to it"
            );
            lost = subscription.lost();
        }
    }
    while deliveries.join_next().await.is_some() {}
}

/// Tries until it succeeds, may not be tried again, or the agent wants no more.
async fn deliver(job: &Job, event: &Event) {
    let hook = &job.prepared.hook;
    let name = hook.name.as_str();
    for attempt in 1..=hook.retries.saturating_add(1) {
        if attempt > 1 {
            let pause = tokio::time::sleep(backoff::pause(hook.backoff, attempt, &event.id));
            tokio::select! {
                () = pause => {}
                () = job.reached(Phase::Cancel) => break,
            }
        }
        let began = Instant::now();
        let ran = attempt_once(job, event).await;
        let took = began.elapsed();
        job.metrics.record_run(took.as_secs_f64(), ran.outcome);
        let (kind, seq, outcome) = (event.kind.as_str(), event.seq, ran.outcome.as_label());
        if ran.outcome == Outcome::Success {
            tracing::debug!(hook = name, kind, seq, attempt, ?took, printed = ?ran.printed, "hook ran");
            return;
        }
        tracing::warn!(hook = name, kind, seq, attempt, outcome, ?took, why = ran.said, printed = ?ran.printed, "hook did not succeed");
        if ran.outcome == Outcome::Canceled || !ran.again {
            break;
        }
    }
    job.bus.count_lost(GIVEN_UP, 1);
    tracing::error!(hook = name, kind = event.kind.as_str(), seq = event.seq, "a hook's delivery is given up");
}

async fn attempt_once(job: &Job, event: &Event) -> Ran {
    let hook = &job.prepared.hook;
    let end = async {
        tokio::select! {
            biased;
            () = job.reached(Phase::Cancel) => Outcome::Canceled,
            () = tokio::time::sleep(hook.timeout) => Outcome::Timeout,
        }
    };
    let secret = match hook.secret_file.as_deref().map(Secret::read).transpose() {
        Ok(secret) => secret,
        Err(error) => return Ran::failure(cause::chain(&error)),
    };
    match &job.prepared.action {
        Action::Run(program) => command::run(program, &hook.name, event, secret.as_ref(), end).await,
        Action::Post(target) => tokio::select! {
            ran = request::post(target, &hook.name, event, secret.as_ref()) => ran,
            outcome = end => Ran { outcome, ..Ran::failure(String::new()) },
        },
    }
}
