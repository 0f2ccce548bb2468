//! What of the lines outlives the agent: what a saver takes of them, and what was read is put back.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{Kept, Line, Store, lock};
use crate::{
    account::past::Saving,
    clock::Instant2,
    history::{
        open::Open,
        series::{Row, Sealed, Series},
    },
};

/// A line that an earlier agent kept.
#[derive(Debug)]
pub struct Restored {
    /// Its VM.
    pub vm_id: String,
    /// Its number.
    pub id: u64,
    /// Its sealed blocks, in the order of their numbers.
    pub sealed: Vec<Sealed>,
    /// The number of its open block.
    pub next: u64,
    /// What is in that.
    pub open: Vec<Row>,
    /// When it is let go, if its VM had stopped: Unix nanoseconds.
    pub until_unix_ns: Option<u64>,
}

impl Restored {
    /// When its newest sample was taken, Unix milliseconds.
    #[must_use]
    pub fn newest_ms(&self) -> u64 {
        let sealed = self.sealed.last().map(|(_, block)| block.last_ms());
        self.open.last().map(|row| row.at_ms).or(sealed).unwrap_or(0)
    }
}

/// A line as it is now.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its VM.
    pub vm_id: String,
    /// The line.
    pub line: Arc<Line>,
    /// When it is let go, if its VM has stopped: CLOCK_BOOTTIME nanoseconds.
    pub until_ns: Option<u64>,
    /// The same as an earlier agent told it, until it is settled: Unix nanoseconds.
    pub told_until_unix_ns: Option<u64>,
}

/// What is new in a line.
#[derive(Debug)]
pub struct News {
    /// Sealed blocks.
    pub sealed: Vec<Sealed>,
    /// The number of the oldest block that is left.
    pub first: u64,
    /// The number of the open block.
    pub next: u64,
    /// That.
    pub open: Open,
}

impl Line {
    /// Its number, drawn by chance.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Its sealed blocks from number `since` on, and the open one.
    #[must_use]
    pub fn since(&self, since: u64) -> News {
        let series = lock(&self.series);
        let sealed = series.sealed(since, u64::MAX).cloned().collect();
        News { sealed, first: series.first(), next: series.next(), open: series.open().clone() }
    }

    /// The number of the oldest block that is left.
    #[must_use]
    pub fn first(&self) -> u64 {
        lock(&self.series).first()
    }

    /// Those of its sealed blocks with numbers from `first` to `last` that are left.
    #[must_use]
    pub fn sealed(&self, first: u64, last: u64) -> Vec<Sealed> {
        lock(&self.series).sealed(first, last).cloned().collect()
    }
}

impl Store {
    /// All lines.
    #[must_use]
    pub fn live(&self) -> Vec<Live> {
        let lines = lock(&self.lines);
        let live = |(vm_id, kept): (&String, &Kept)| Live {
            vm_id: vm_id.clone(),
            line: Arc::clone(&kept.line),
            until_ns: kept.until_ns,
            told_until_unix_ns: kept.restored.flatten(),
        };
        lines.iter().map(live).collect()
    }

    /// Puts back what was read, before anything is tracked. Bounds hold for it as for what is new.
    pub fn restore(&self, found: Vec<Restored>) {
        let mut order = Vec::new();
        for restored in found.into_iter().filter(|restored| self.keeps() && restored.newest_ms() > 0) {
            let Restored { vm_id, id, sealed, next, open, until_unix_ns } = restored;
            let mut series = Series::restored(sealed, next, open, self.spread_of(&vm_id));
            series.trim(self.limits.samples);
            self.bytes.fetch_add(series.bytes(), Relaxed);
            let ends: Vec<_> = series.sealed(0, u64::MAX).map(|(number, block)| (block.last_ms(), *number)).collect();
            let line = Arc::new(Line { id, series: series.into() });
            order.extend(ends.into_iter().map(|(at_ms, number)| (at_ms, number, Arc::downgrade(&line))));
            lock(&self.lines).insert(vm_id, Kept { line, until_ns: None, restored: Some(until_unix_ns) });
        }
        order.sort_by_key(|(at_ms, number, _)| (*at_ms, *number));
        let mut sealed = lock(&self.order);
        sealed.extend(order.into_iter().map(|(_, number, line)| (line, number)));
        self.bound(&mut sealed, self.bytes.load(Relaxed));
    }

    /// Says which VMs run, of those that an earlier agent may have known: vm_ids, and when they began (CLOCK_BOOTTIME
    /// nanoseconds). They go on with their lines, unless those would have been let go before they began. The others'
    /// lines stay for `keep_ns` after their stop; one that nobody saw counts from the last sample.
    pub fn settle<'a>(&self, running: impl Iterator<Item = (&'a str, u64)>, now: Instant2, keep_ns: u64) {
        let mut lines = lock(&self.lines);
        for kept in lines.values_mut() {
            let Some(until_unix_ns) = kept.restored.take() else { continue };
            let newest_ns = lock(&kept.line.series).newest_ms().unwrap_or(0).saturating_mul(1_000_000);
            let until_ns = now.boot_of(until_unix_ns.unwrap_or_else(|| newest_ns.saturating_add(keep_ns)));
            // A wall clock that was set back would keep it for as long as it was set back.
            kept.until_ns = Some(until_ns.min(now.boot_ns.saturating_add(keep_ns)));
        }
        for (vm_id, start_ns) in running {
            if let Some(kept) = lines.get_mut(vm_id).filter(|kept| kept.until_ns.is_some_and(|until| start_ns < until))
            {
                kept.until_ns = None;
            }
        }
    }

    /// Says how it stands with the files.
    pub fn tell_saving(&self, saving: Saving) {
        *lock(&self.saving) = Some(saving);
    }
}
