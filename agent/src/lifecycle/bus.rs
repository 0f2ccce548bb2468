//! Tells whoever has subscribed what became durable. It stands behind the ledger: the writer's thread publishes each
//! group after its commit, so the engine needs no lock and no subscriber ever sees a line that may still be lost.
//!
//! Each subscriber has a queue of its own. One that is full loses the newcomer, which is counted; publishing waits for
//! nobody, because under a queue's lock an entry is moved and nothing else is done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::event::Event;
use crate::ledger::{Committed, Kind};

/// Which events a subscriber wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest(Vec<Kind>);

impl Interest {
    /// Those of these kinds.
    #[must_use]
    pub fn of(kinds: &[Kind]) -> Self {
        Self(kinds.to_vec())
    }

    /// Whether a kind is among them.
    #[must_use]
    pub fn takes(&self, kind: Kind) -> bool {
        self.0.contains(&kind)
    }
}

struct Queue {
    events: Mutex<VecDeque<Arc<Event>>>,
    capacity: AtomicUsize,
    ready: Notify,
    closed: AtomicBool,
    lost: AtomicU64,
    stage_lost: Arc<AtomicU64>,
}

impl Queue {
    fn offer(&self, event: &Arc<Event>) {
        let mut events = held(&self.events);
        if events.len() < self.capacity.load(Ordering::Relaxed) {
            events.push_back(Arc::clone(event));
            drop(events);
            // One permit is kept where nobody waits yet, so no wake-up is missed.
            self.ready.notify_one();
        } else {
            drop(events);
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.stage_lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One subscriber's end. Clones share the queue; when the last is gone the bus forgets the subscriber.
#[derive(Clone)]
pub struct Subscription(Arc<Queue>);

impl Subscription {
    /// The next event; `None` once the subscriber was detached and what had waited is taken.
    pub async fn next(&self) -> Option<Arc<Event>> {
        loop {
            let ready = self.0.ready.notified();
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.0.closed.load(Ordering::Acquire) {
                // Others on this queue wait for the same news.
                self.0.ready.notify_one();
                return None;
            }
            ready.await;
        }
    }

    /// The next event, if one waits.
    #[must_use]
    pub fn try_next(&self) -> Option<Arc<Event>> {
        held(&self.0.events).pop_front()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        held(&self.0.events).len()
    }

    /// How many found the queue full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

struct Subscriber {
    name: String,
    interest: Interest,
    queue: Weak<Queue>,
}

#[derive(Default)]
struct State {
    subscribers: Vec<Subscriber>,
    lost: BTreeMap<&'static str, Arc<AtomicU64>>,
}

/// The bus; clones are the same one.
#[derive(Clone, Default)]
pub struct Bus(Arc<Mutex<State>>);

impl Bus {
    /// Subscribes `name`, with room for `capacity` events. Doing so again gives the same queue, with interest and
    /// capacity of the latest call. What it loses is counted under `stage`.
    #[must_use]
    pub fn attach(&self, name: &str, stage: &'static str, interest: Interest, capacity: usize) -> Subscription {
        let mut state = held(&self.0);
        let stage_lost = Arc::clone(state.lost.entry(stage).or_default());
        state.subscribers.retain(|subscriber| subscriber.queue.strong_count() > 0);
        if let Some(known) = state.subscribers.iter_mut().find(|subscriber| subscriber.name == name)
            && let Some(queue) = known.queue.upgrade()
        {
            known.interest = interest;
            queue.capacity.store(capacity, Ordering::Relaxed);
            return Subscription(queue);
        }
        let queue = Arc::new(Queue {
            events: Mutex::new(VecDeque::new()),
            capacity: AtomicUsize::new(capacity),
            ready: Notify::new(),
            closed: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            stage_lost,
        });
        state.subscribers.push(Subscriber { name: name.to_owned(), interest, queue: Arc::downgrade(&queue) });
        Subscription(queue)
    }

    /// Ends a subscription: it gets nothing new, and what waits in its queue can still be taken. Nothing happens where
    /// there is none.
    pub fn detach(&self, name: &str) {
        let mut state = held(&self.0);
        let Some(at) = state.subscribers.iter().position(|subscriber| subscriber.name == name) else { return };
        if let Some(queue) = state.subscribers.swap_remove(at).queue.upgrade() {
            queue.closed.store(true, Ordering::Release);
            queue.ready.notify_one();
        }
    }

    /// Hands durable lines to those that want them.
    pub fn publish(&self, lines: Vec<Committed>) {
        let mut state = held(&self.0);
        state.subscribers.retain(|subscriber| subscriber.queue.strong_count() > 0);
        if state.subscribers.is_empty() {
            return;
        }
        for event in lines.into_iter().map(Event::from).map(Arc::new) {
            let wanting = state.subscribers.iter().filter(|subscriber| subscriber.interest.takes(event.kind));
            wanting.filter_map(|subscriber| subscriber.queue.upgrade()).for_each(|queue| queue.offer(&event));
        }
    }

    /// Counts what a subscriber lost behind its queue.
    pub fn count_lost(&self, stage: &'static str, by: u64) {
        held(&self.0).lost.entry(stage).or_default().fetch_add(by, Ordering::Relaxed);
    }

    /// Events that found a queue full or were lost behind one, by the stage they were lost at.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        held(&self.0).lost.iter().map(|(stage, count)| (*stage, count.load(Ordering::Relaxed))).collect()
    }
}

/// A lock whose holder panicked guards nothing that could be half done.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
