//! The loop of the writing thread: takes a group from the spool, appends it, tells what is durable, tries again with
//! back-off; once a minute it looks after the files. Shares its state with the handles under one lock that is never held while the disk is waited for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::spool::{Entry, Spool};
use super::{Clock, Committed, Draft, Journal, LedgerError, OnCommit, Options, Stats, Store, Written};

/// When the files are looked after next where more of them are to go.
const MORE: Duration = Duration::from_secs(1);

/// Between two looks at the space left, where lines are written as often.
const SPACE: Duration = Duration::from_secs(5);

/// What the thread and the handles share under the lock.
pub(super) struct State {
    pub(super) spool: Spool,
    pub(super) stats: Stats,
    pub(super) waiting_since: Option<Instant>,
    /// When the append under way began.
    pub(super) busy_since: Option<Instant>,
    pub(super) closing: bool,
    pub(super) abandon: bool,
    pub(super) finished: bool,
}

/// The meeting place of the thread and the handles.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    pub(super) durable: AtomicU64,
    pub(super) degraded: AtomicBool,
}

impl Shared {
    pub(super) fn new(spool_records: usize, last_seq: u64) -> Self {
        let state = State {
            spool: Spool::new(spool_records),
            stats: Stats::new(last_seq),
            waiting_since: None,
            busy_since: None,
            closing: false,
            abandon: false,
            finished: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            durable: AtomicU64::new(0),
            degraded: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Option<Instant>) -> MutexGuard<'a, State> {
        match until.map(|at| at.saturating_duration_since(Instant::now())) {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
        }
    }
}

/// Says that the thread is over, however it ended.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().finished = true;
        self.0.changed.notify_all();
    }
}

pub(super) struct Pump<S> {
    journal: Journal<S>,
    options: Options,
    clock: Clock,
    on_commit: OnCommit,
    shared: Arc<Shared>,
    /// When the files are looked after next.
    look_at: Instant,
    /// When the space left is.
    space_at: Instant,
    /// Dropped last, so that the journal's lock is free when the end is told.
    _ending: Ending,
}

impl<S: Store> Pump<S> {
    pub(super) fn new(
        journal: Journal<S>,
        options: Options,
        clock: Clock,
        on_commit: OnCommit,
        shared: Arc<Shared>,
    ) -> Self {
        let look_at = Instant::now() + options.look;
        let (space_at, _ending) = (Instant::now(), Ending(Arc::clone(&shared)));
        Self { journal, options, clock, on_commit, look_at, space_at, _ending, shared }
    }

    /// Writes until it is told to end and nothing waits.
    pub(super) fn run(&mut self) {
        let mut pause = self.options.retry_min;
        while let Some(group) = self.next_group() {
            if self.look_at <= Instant::now() {
                self.look();
            }
            self.look_at_space();
            if group.is_empty() {
                continue;
            }
            let (tickets, drafts): (Vec<u64>, Vec<Draft>) = group.into_iter().map(|e| (e.ticket, e.draft)).unzip();
            self.shared.lock().busy_since = Some(Instant::now());
            let told = !self.journal.is_stale();
            let appended = self.journal.append(&drafts, (self.clock)());
            self.shared.lock().busy_since = None;
            match appended {
                Ok(written) => {
                    pause = self.options.retry_min;
                    self.committed(&tickets, &written);
                    let lines = written.into_iter().zip(drafts).map(|(written, fact)| Committed { written, fact });
                    (self.on_commit)(lines.collect());
                    // A rotation is told at once, and once; what fails then waits for the next look.
                    if told && self.journal.is_stale() {
                        self.look();
                    }
                }
                Err(error) => {
                    let group = tickets.into_iter().zip(drafts).map(|(ticket, draft)| Entry { ticket, draft });
                    self.failed(group.collect(), &error);
                    self.rest(pause);
                    pause = (pause * 2).min(self.options.retry_max);
                }
            }
        }
        self.journal.close();
    }

    /// Looks after the files; a live one that others touched is a failure to write before it is one.
    fn look(&mut self) {
        let looked = self.journal.tend((self.clock)());
        let more = looked.as_ref().is_ok_and(|look| look.more);
        self.look_at = Instant::now() + if more { MORE } else { self.options.look };
        match looked {
            Ok(look) => {
                let mut state = self.shared.lock();
                let (known, over) = (state.stats.hurt.take(), state.spool.len() == 0);
                state.stats.looked(&look, over);
                if state.stats.hurt.is_some() && known != state.stats.hurt {
                    let error = state.stats.hurt.as_deref().unwrap_or_default();
                    tracing::error!(error, "the ledger's older files are not as they were written");
                }
                let degraded = state.stats.degraded;
                self.shared.degraded.store(degraded, Ordering::Release);
            }
            Err(error) => self.failed(Vec::new(), &error),
        }
    }

    /// Now and then: how much space is left.
    fn look_at_space(&mut self) {
        let now = Instant::now();
        if self.space_at <= now {
            self.space_at = now + SPACE;
            let space = self.journal.space();
            self.shared.lock().stats.take_space(space);
        }
    }

    /// Waits for facts, or until the files are to be looked after; `None` when the writer is to end.
    fn next_group(&self) -> Option<Vec<Entry>> {
        let mut state = self.shared.lock();
        loop {
            if state.abandon || (state.closing && !state.spool.has_waiting()) {
                return None;
            }
            let due = state.waiting_since.map(|since| since + self.options.linger);
            let lingered = due.is_some_and(|at| at <= Instant::now());
            if state.spool.has_waiting() && (state.spool.is_urgent() || state.closing || lingered) {
                let group = state.spool.take(self.options.group_records.max(1));
                state.waiting_since = state.spool.has_waiting().then_some(state.waiting_since).flatten();
                return Some(group);
            }
            if self.look_at <= Instant::now() {
                return Some(Vec::new());
            }
            let until = due.filter(|_| !lingered).map_or(self.look_at, |due| due.min(self.look_at));
            state = self.shared.wait(state, Some(until));
        }
    }

    fn committed(&self, tickets: &[u64], written: &[Written]) {
        let mut state = self.shared.lock();
        state.spool.done();
        if state.stats.degraded {
            tracing::info!(spooled = state.spool.len(), "the ledger can be written again");
        }
        state.stats.committed(written);
        self.shared.degraded.store(false, Ordering::Release);
        if let Some(last) = tickets.last() {
            self.shared.durable.store(*last, Ordering::Release);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    fn failed(&self, group: Vec<Entry>, error: &LedgerError) {
        let mut state = self.shared.lock();
        let known = state.stats.last_error.take();
        let first = !state.stats.degraded;
        state.stats.failed(error);
        if !group.is_empty() {
            state.spool.put_back(group);
            state.waiting_since.get_or_insert_with(Instant::now);
        }
        self.shared.degraded.store(true, Ordering::Release);
        if first || known != state.stats.last_error {
            let error = state.stats.last_error.as_deref().unwrap_or_default();
            tracing::error!(spooled = state.spool.len(), error, "the ledger cannot be written; facts wait in memory");
        }
    }

    /// Waits before the next try; a shutdown that begins meanwhile is worth one at once.
    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.shared.lock();
        let closing = state.closing;
        while !state.abandon && state.closing == closing && Instant::now() < until {
            state = self.shared.wait(state, Some(until));
        }
    }
}
