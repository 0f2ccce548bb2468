//! The bounded queue between those who know facts and the thread that writes them.
//! Full, it gives up heartbeats first (the next one carries the same counters) and counts them; then it refuses and
//! hands the facts back. Order is never changed.

use std::collections::VecDeque;

use super::Draft;

/// Why facts were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many facts that may not be dropped wait already as the spool holds.
    Full,
    /// The writer was shut down.
    Closed,
}

/// Facts that were not taken; all of them or none.
#[derive(Debug, thiserror::Error)]
#[error("{} facts were not taken by the ledger: {why:?}", drafts.len())]
pub struct Refused {
    /// The facts, in order.
    pub drafts: Vec<Draft>,
    /// Why.
    pub why: Refusal,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) ticket: u64,
    pub(super) draft: Draft,
}

#[derive(Debug)]
pub(super) struct Spool {
    queue: VecDeque<Entry>,
    in_flight: usize,
    capacity: usize,
    heartbeats: usize,
    last_ticket: u64,
}

impl Spool {
    pub(super) fn new(capacity: usize) -> Self {
        Self { queue: VecDeque::new(), in_flight: 0, capacity, heartbeats: 0, last_ticket: 0 }
    }

    /// Records in memory, those being written included.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.in_flight
    }

    /// Whether something waits that should not wait for a heartbeat's linger.
    pub(super) fn is_urgent(&self) -> bool {
        self.queue.len() > self.heartbeats
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes all drafts that may not be dropped, or none: the ticket of the last taken and how many heartbeats were
    /// dropped for it.
    pub(super) fn push(&mut self, drafts: Vec<Draft>) -> Result<(u64, u64), Vec<Draft>> {
        let needed = drafts.iter().filter(|d| !d.kind.is_heartbeat()).count();
        let mut room = self.capacity.saturating_sub(self.len());
        if needed > room + self.heartbeats {
            return Err(drafts);
        }
        let mut dropped = self.drop_heartbeats(needed.saturating_sub(room));
        room += dropped;
        let mut room_for_heartbeats = room.saturating_sub(needed);
        for draft in drafts {
            if draft.kind.is_heartbeat() {
                if room_for_heartbeats == 0 {
                    dropped += 1;
                    continue;
                }
                room_for_heartbeats -= 1;
                self.heartbeats += 1;
            }
            self.last_ticket += 1;
            self.queue.push_back(Entry { ticket: self.last_ticket, draft });
        }
        Ok((self.last_ticket, dropped as u64))
    }

    /// Takes up to `limit` records from the front; they stay counted until [`Self::done`] or [`Self::put_back`].
    pub(super) fn take(&mut self, limit: usize) -> Vec<Entry> {
        let group: Vec<_> = self.queue.drain(..limit.min(self.queue.len())).collect();
        self.heartbeats -= heartbeats_in(&group);
        self.in_flight = group.len();
        group
    }

    pub(super) fn done(&mut self) {
        self.in_flight = 0;
    }

    pub(super) fn put_back(&mut self, group: Vec<Entry>) {
        self.in_flight = 0;
        self.heartbeats += heartbeats_in(&group);
        for entry in group.into_iter().rev() {
            self.queue.push_front(entry);
        }
    }

    /// Drops the oldest heartbeats, up to `wanted`.
    fn drop_heartbeats(&mut self, wanted: usize) -> usize {
        let mut left = wanted;
        if left > 0 {
            self.queue.retain(|entry| {
                let drop = left > 0 && entry.draft.kind.is_heartbeat();
                left -= usize::from(drop);
                !drop
            });
        }
        self.heartbeats -= wanted - left;
        wanted - left
    }
}

fn heartbeats_in(group: &[Entry]) -> usize {
    group.iter().filter(|entry| entry.draft.kind.is_heartbeat()).count()
}
