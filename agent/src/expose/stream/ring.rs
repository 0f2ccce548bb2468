//! The newest durable lines, once for all readers: each holds a place and takes from here. What lies further back is in
//! the ledger's files.
//!
//! Heartbeats are kept apart: those of a thousand VMs come at once, and a thousand readers that want none of them would
//! find the rest gone, and read the files.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    ledger::Kind,
    lifecycle::{Event, Interest, Subscription},
};

/// Lines that are kept of either sort, half a megabyte of them.
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
    lines: Mutex<Lines>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Lines {
    heartbeats: Kept,
    others: Kept,
    /// The number of the newest.
    newest: u64,
}

/// Lines of one sort.
#[derive(Debug)]
struct Kept {
    lines: VecDeque<Told>,
    /// Up to this number some are not here any more.
    gone: u64,
}

impl Kept {
    const fn new(before: u64) -> Self {
        Self { lines: VecDeque::new(), gone: before }
    }

    fn push(&mut self, told: Told) {
        if self.lines.len() >= KEPT
            && let Some(oldest) = self.lines.pop_front()
        {
            self.gone = oldest.seq;
        }
        self.lines.push_back(told);
    }
}

impl Lines {
    fn push(&mut self, told: Told) {
        // What was not brought is in the files.
        if told.seq != self.newest + 1 {
            let before = told.seq.saturating_sub(1);
            (self.heartbeats, self.others) = (Kept::new(before), Kept::new(before));
        }
        self.newest = told.seq;
        if told.kind.is_heartbeat() { self.heartbeats.push(told) } else { self.others.push(told) }
    }

    fn between(&self, after: u64, upto: u64, interest: &Interest) -> Option<Vec<Told>> {
        let wants =
            |heartbeats: bool| Kind::ALL.iter().any(|kind| kind.is_heartbeat() == heartbeats && interest.takes(*kind));
        let sorts = [(&self.heartbeats, wants(true)), (&self.others, wants(false))].into_iter();
        let wanted: Vec<&Kept> = sorts.filter_map(|(kept, wanted)| wanted.then_some(kept)).collect();
        if upto > self.newest || wanted.iter().any(|kept| after < kept.gone) {
            return None;
        }
        let mut all = Vec::new();
        for kept in wanted {
            let from = kept.lines.partition_point(|line| line.seq <= after);
            let to = kept.lines.partition_point(|line| line.seq <= upto);
            all.extend(kept.lines.range(from..to.max(from)).filter(|line| interest.takes(line.kind)).cloned());
        }
        all.sort_unstable_by_key(|line| line.seq);
        Some(all)
    }
}

impl Ring {
    /// An empty one; `before` is the number of the newest line of before.
    #[must_use]
    pub fn new(before: u64) -> Arc<Self> {
        let lines = Lines { heartbeats: Kept::new(before), others: Kept::new(before), newest: before };
        Arc::new(Self { lines: Mutex::new(lines), newest: watch::Sender::new(before) })
    }

    /// Takes what a subscription brings, as long as it does.
    pub async fn fill(self: Arc<Self>, subscription: Subscription) {
        while let Some(event) = subscription.next().await {
            self.push(&event);
        }
    }

    fn push(&self, event: &Event) {
        self.lines().push(Told { seq: event.seq, kind: event.kind, line: Arc::clone(&event.line) });
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
        self.lines().between(after, upto, interest)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A push is done or not begun.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTS: &[Kind] = &[Kind::VmComputeStart];
    const BEATS: &[Kind] = &[Kind::VmComputeUsage];

    fn lines(before: u64, kinds: impl IntoIterator<Item = (u64, Kind)>) -> Lines {
        let mut lines = Lines { heartbeats: Kept::new(before), others: Kept::new(before), newest: before };
        kinds.into_iter().for_each(|(seq, kind)| lines.push(Told { seq, kind, line: b"{}"[..].into() }));
        lines
    }

    fn numbers(lines: &Lines, after: u64, kinds: &[Kind]) -> Option<Vec<u64>> {
        let found = lines.between(after, lines.newest, &Interest::of(kinds))?;
        Some(found.iter().map(|line| line.seq).collect())
    }

    #[test]
    fn heartbeats_of_many_vms_at_once_push_nothing_else_out() {
        let beats = (3..2_003).map(|seq| (seq, Kind::VmComputeUsage));
        let all = [(1, Kind::VmComputeStart), (2, Kind::VmComputeStop)].into_iter().chain(beats);
        let lines = lines(0, all.chain([(2_003, Kind::VmComputeStart)]));
        assert_eq!(numbers(&lines, 0, STARTS), Some(vec![1, 2_003]));
        assert_eq!(numbers(&lines, 0, BEATS), None, "the oldest are in the files");
        let last: Vec<u64> = (1_500..2_003).collect();
        assert_eq!(numbers(&lines, 1_499, BEATS), Some(last.clone()));
        let both: Vec<u64> = last.into_iter().chain([2_003]).collect();
        assert_eq!(numbers(&lines, 1_499, &[BEATS, STARTS].concat()), Some(both), "in their order");
    }

    #[test]
    fn where_a_line_is_not_here_all_are_read_from_the_files() {
        let lines = lines(10, [(11, Kind::VmComputeStart), (13, Kind::VmComputeStart)]);
        assert_eq!((numbers(&lines, 10, STARTS), numbers(&lines, 11, STARTS)), (None, None));
        assert_eq!(numbers(&lines, 12, STARTS), Some(vec![13]));
        assert!(lines.between(12, 14, &Interest::of(STARTS)).is_none(), "not there yet");
    }
}
