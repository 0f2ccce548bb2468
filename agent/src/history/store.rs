//! All lines, by vm_id, under one bound of memory: when it is reached, the block that was sealed first is let go first,
//! whichever VM's it is, and its samples are counted. A VM that begins again goes on with its line.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

mod saved;

#[cfg(test)]
pub use saved::News;
pub use saved::{Live, Restored};

use super::{
    Sample,
    block::Block,
    column::{codes, value},
    open::Open,
    query::points,
    series::{Pushed, Row, Series},
};
use crate::account::{
    self,
    past::{COLUMNS, Past, Point, Range, Saving, Taken},
};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Samples of a line; up to a block more are kept.
    pub samples: usize,
    /// Bytes of all lines.
    pub max_bytes: u64,
}

/// One VM's line.
#[derive(Debug)]
pub struct Line {
    /// Drawn by chance: tells it, in files, from another line that the same vm_id had.
    id: u64,
    series: Mutex<Series>,
}

/// All of them.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
    lines: Mutex<HashMap<String, Kept>>,
    /// Sealed blocks of all lines, the oldest first.
    order: Mutex<VecDeque<(Weak<Line>, u64)>>,
    bytes: AtomicI64,
    evicted: AtomicU64,
    spread: RandomState,
    /// How it stands with the files, where there are any.
    saving: Mutex<Option<Saving>>,
}

#[derive(Debug)]
struct Kept {
    line: Arc<Line>,
    /// When it is let go, once its VM has stopped: CLOCK_BOOTTIME nanoseconds.
    until_ns: Option<u64>,
    /// It is from an earlier agent and nobody has said yet whether its VM runs; with when it was to be let go, Unix
    /// nanoseconds.
    restored: Option<Option<u64>>,
}

impl Store {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lines: Mutex::default(),
            order: Mutex::default(),
            bytes: AtomicI64::new(0),
            evicted: AtomicU64::new(0),
            spread: RandomState::new(),
            saving: Mutex::default(),
        }
    }

    /// Whether any are kept.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.limits.samples > 0
    }

    /// The line of a VM that runs, made if there is none. Any number of times.
    pub fn track(&self, vm_id: &str) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        if let Some(kept) = lines.get_mut(vm_id) {
            (kept.until_ns, kept.restored) = (None, None);
            return Arc::clone(&kept.line);
        }
        // Keys are drawn anew for each hasher, so no two lines have a number in common.
        let id = RandomState::new().hash_one(vm_id);
        let line = Arc::new(Line { id, series: Series::new(self.spread_of(vm_id)).into() });
        lines.insert(vm_id.to_owned(), Kept { line: Arc::clone(&line), until_ns: None, restored: None });
        line
    }

    fn spread_of(&self, vm_id: &str) -> u64 {
        self.spread.hash_one(vm_id)
    }

    /// A VM has stopped: its line stays until `until_ns` (CLOCK_BOOTTIME), unless one with its id runs before that.
    /// Any number of times; the first counts.
    pub fn stopped(&self, vm_id: &str, until_ns: u64) {
        if let Some(kept) = lock(&self.lines).get_mut(vm_id) {
            kept.until_ns.get_or_insert(until_ns);
        }
    }

    /// Lets the lines go whose time is over.
    pub fn expire(&self, now_ns: u64) {
        lock(&self.lines).retain(|_, kept| {
            let stays = kept.until_ns.is_none_or(|until_ns| until_ns > now_ns);
            if !stays {
                self.bytes.fetch_sub(lock(&kept.line.series).bytes(), Relaxed);
            }
            stays
        });
    }

    /// Adds a sample that was taken at `unix_ns`.
    pub fn push(&self, line: &Arc<Line>, unix_ns: u64, sample: &Sample) {
        let row = Row { at_ms: unix_ns / 1_000_000, codes: codes(sample) };
        let pushed = lock(&line.series).push(row, self.limits.samples);
        if pushed == Pushed::default() {
            return;
        }
        let bytes = self.bytes.fetch_add(pushed.grown, Relaxed) + pushed.grown;
        let Some(number) = pushed.sealed else { return };
        let mut order = lock(&self.order);
        order.push_back((Arc::downgrade(line), number));
        self.bound(&mut order, bytes);
    }

    /// What may have samples of `[since_ms, until_ms)` of a VM.
    fn parts(&self, vm_id: &str, since_ms: u64, until_ms: u64) -> Option<Parts> {
        let line = Arc::clone(&lock(&self.lines).get(vm_id)?.line);
        let parts = lock(&line.series).parts(since_ms, until_ms);
        Some(parts)
    }

    fn bound(&self, order: &mut VecDeque<(Weak<Line>, u64)>, mut bytes: i64) {
        let most = i64::try_from(self.limits.max_bytes).unwrap_or(i64::MAX);
        while bytes > most
            && let Some((line, number)) = order.pop_front()
        {
            // Gone with its line, or as the line's own oldest: nothing to let go.
            let Some((freed, samples)) = line.upgrade().and_then(|line| lock(&line.series).evict(number)) else {
                continue;
            };
            bytes = self.bytes.fetch_sub(freed, Relaxed) - freed;
            self.evicted.fetch_add(samples as u64, Relaxed);
        }
        // Blocks that went with their line, or as its own oldest, are not kept in mind for ever.
        while let Some((line, number)) = order.front()
            && line.upgrade().is_none_or(|line| lock(&line.series).first() > *number)
        {
            order.pop_front();
        }
    }
}

impl Past for Store {
    fn range(&self, vm_id: &str, range: &Range) -> Option<Vec<Point>> {
        Some(points(range, rows(self.parts(vm_id, range.since_ms, range.until_ms)?)))
    }

    fn after(&self, vm_id: &str, after_ms: u64, most: usize) -> Vec<Taken> {
        let Some(parts) = self.parts(vm_id, after_ms.saturating_add(1), u64::MAX) else { return Vec::new() };
        rows(parts).filter(|row| row.at_ms > after_ms).take(most).map(taken).collect()
    }

    fn between(&self, vm_id: &str, after_ms: u64, before_ms: u64, most: usize) -> (usize, Vec<Taken>) {
        let Some(parts) = self.parts(vm_id, after_ms.saturating_add(1), before_ms) else { return (0, Vec::new()) };
        let mut last = VecDeque::with_capacity(most);
        let mut more = 0;
        for row in rows(parts).filter(|row| row.at_ms > after_ms && row.at_ms < before_ms) {
            if last.len() >= most {
                last.pop_front();
                more += 1;
            }
            last.push_back(taken(row));
        }
        (more, last.into())
    }

    fn oldest_ms(&self, vm_id: &str) -> Option<u64> {
        let line = Arc::clone(&lock(&self.lines).get(vm_id)?.line);
        let series = lock(&line.series);
        series.oldest_ms()
    }

    fn len(&self, vm_id: &str) -> usize {
        lock(&self.lines).get(vm_id).map_or(0, |kept| lock(&kept.line.series).len())
    }

    fn kept(&self) -> account::past::Kept {
        account::past::Kept {
            bytes: u64::try_from(self.bytes.load(Relaxed)).unwrap_or(0),
            evicted: self.evicted.load(Relaxed),
            lines: lock(&self.lines).len(),
        }
    }

    fn saving(&self) -> Option<Saving> {
        lock(&self.saving).clone()
    }
}

/// Sealed blocks, and the open one behind them.
type Parts = (Vec<Block>, Open);

/// The rows, each block opened when it is come to.
fn rows((blocks, open): Parts) -> impl Iterator<Item = Row> {
    let open: Vec<Row> = open.rows().collect();
    blocks.into_iter().filter_map(|block| block.rows()).flatten().chain(open)
}

fn taken(row: Row) -> Taken {
    let each = row.codes.iter().enumerate();
    let mut values = [None; COLUMNS];
    each.zip(&mut values).for_each(|((column, code), place)| *place = value(column, *code));
    Taken { at_ms: row.at_ms, values }
}

/// Nothing that holds one of these locks can panic half way; if it did, the numbers are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
