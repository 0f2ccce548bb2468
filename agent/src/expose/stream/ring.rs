//! The newest durable lines, once for all readers: each holds a place and takes from here. What lies further back is in
//! the ledger's files.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    ledger::Kind,
    lifecycle::{Event, Interest, Subscription},
};

/// Lines that are kept, half a megabyte of them.
const KEPT: usize = 512;

/// A line that is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its number.
    pub seq: u64,
    /// Its kind.
    pub kind: Kind,
    /// The line, without its newline.
    pub line: Arc<[u8]>,
}

/// The newest lines.
#[derive(Debug)]
pub struct Ring {
    lines: Mutex<VecDeque<Told>>,
    newest: watch::Sender<u64>,
}

impl Ring {
    /// An empty one; `before` is the number of the newest line of before.
    #[must_use]
    pub fn new(before: u64) -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), newest: watch::Sender::new(before) })
    }

    /// Takes what a subscription brings, as long as it does.
    pub async fn fill(self: Arc<Self>, subscription: Subscription) {
        while let Some(event) = subscription.next().await {
            self.push(&event);
        }
    }

    fn push(&self, event: &Event) {
        let mut lines = self.lines();
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        lines.push_back(Told { seq: event.seq, kind: event.kind, line: Arc::clone(&event.line) });
        drop(lines);
        self.newest.send_replace(event.seq);
    }

    /// The number of the newest line, now and as it grows.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The lines behind a number up to another, those of interest; `None` where one of them is not here any more.
    #[must_use]
    pub fn between(&self, after: u64, upto: u64, interest: &Interest) -> Option<Vec<Told>> {
        let lines = self.lines();
        let (from, to) = (lines.partition_point(|l| l.seq <= after), lines.partition_point(|l| l.seq <= upto));
        if (to.checked_sub(from)? as u64) < upto.saturating_sub(after) {
            return None;
        }
        Some(lines.range(from..to).filter(|line| interest.takes(line.kind)).cloned().collect())
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<Told>> {
        // A push is done or not begun.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
