//! The thread that owns the journal. Facts are submitted without waiting for the disk and come back as a ticket;
//! [`WriterHandle::durable`] says up to which ticket lines are durable, and nothing may act on a fact before that.
//! A disk that fails makes the writer degraded: facts wait in order in the spool and are tried again with back-off.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::pump::{Pump, Shared};
use super::{Committed, Draft, Journal, Refusal, Refused, Stamp, Stats, Store};

/// Tells the time a line is written at.
pub type Clock = Box<dyn Fn() -> Stamp + Send>;
/// Told of each group of lines once it is durable, in the writing thread: it must not wait for anything.
pub type OnCommit = Box<dyn Fn(Vec<Committed>) + Send>;

/// The writer's bounds.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Records that may wait in memory.
    pub spool_records: usize,
    /// Records written in one group at most.
    pub group_records: usize,
    /// How long heartbeats wait for something urgent to be grouped with.
    pub linger: Duration,
    /// Pause after the first failure; doubled after each further one.
    pub retry_min: Duration,
    /// Longest pause.
    pub retry_max: Duration,
    /// How often the files are looked after where nothing else is done.
    pub look: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            spool_records: 65_536,
            group_records: 1024,
            linger: Duration::from_secs(1),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
            look: Duration::from_secs(10),
        }
    }
}

/// Stands for every fact up to one submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ticket(pub u64);

/// Facts were still in memory when the deadline passed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{left} facts were not durable at the deadline; last failure: {}", last_error.as_deref().unwrap_or("none"))]
pub struct Undrained {
    /// How many.
    pub left: usize,
    /// The newest failure, if there was one.
    pub last_error: Option<String>,
}

/// What the rest of the agent holds: submits facts and asks how far they are durable.
#[derive(Clone)]
pub struct WriterHandle(Arc<Shared>);

impl fmt::Debug for WriterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterHandle").field("durable", &self.durable()).finish_non_exhaustive()
    }
}

impl WriterHandle {
    /// Takes facts in order without waiting for the disk.
    ///
    /// # Errors
    /// [`Refused`] hands all of them back, and counts them, when the spool is full or the writer closed.
    pub fn submit(&self, drafts: Vec<Draft>) -> Result<Ticket, Refused> {
        let mut state = self.0.lock();
        if state.closing || state.finished {
            state.stats.refused += drafts.len() as u64;
            return Err(Refused { drafts, why: Refusal::Closed });
        }
        match state.spool.push(drafts) {
            Ok((ticket, dropped)) => {
                state.stats.dropped_heartbeats += dropped;
                state.waiting_since.get_or_insert_with(Instant::now);
                drop(state);
                self.0.changed.notify_all();
                Ok(Ticket(ticket))
            }
            Err(drafts) => {
                state.stats.refused += drafts.len() as u64;
                Err(Refused { drafts, why: Refusal::Full })
            }
        }
    }

    /// Every fact up to this ticket is durable (or was dropped and counted).
    #[must_use]
    pub fn durable(&self) -> Ticket {
        Ticket(self.0.durable.load(Ordering::Acquire))
    }

    /// Waits until `ticket` is durable; `false` if `timeout` passed or the writer ended before.
    #[must_use]
    pub fn wait_durable(&self, ticket: Ticket, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.0.lock();
        while self.durable() < ticket && !state.finished && Instant::now() < until {
            state = self.0.wait(state, Some(until));
        }
        drop(state);
        self.durable() >= ticket
    }

    /// Whether the last attempt to write failed.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.0.degraded.load(Ordering::Acquire)
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.0.lock();
        let busy = state.busy_since.map_or(Duration::ZERO, |since| since.elapsed());
        Stats { spooled: state.spool.len(), busy, ..state.stats.clone() }
    }
}

/// Owns the writing thread. Dropped without [`Writer::shutdown`], it lets the thread write what waits and end.
#[derive(Debug)]
pub struct Writer {
    handle: WriterHandle,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread; `on_commit` is called there after each durable group.
    ///
    /// # Errors
    /// The thread's creation.
    pub fn spawn<S: Store + 'static>(
        journal: Journal<S>,
        options: Options,
        clock: Clock,
        on_commit: OnCommit,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(options.spool_records, journal.last_seq()));
        let mut pump = Pump::new(journal, options, clock, on_commit, Arc::clone(&shared));
        let run = move || pump.run();
        let thread = thread::Builder::new().name("ledger".to_owned()).spawn(run)?;
        Ok(Self { handle: WriterHandle(shared), thread: Some(thread) })
    }

    /// A handle for those who know facts.
    #[must_use]
    pub fn handle(&self) -> WriterHandle {
        self.handle.clone()
    }

    /// Takes no more facts, writes what waits, ends the thread and gives the lock back.
    ///
    /// # Errors
    /// [`Undrained`] if facts were left in memory when `deadline` had passed.
    pub fn shutdown(mut self, deadline: Duration) -> Result<(), Undrained> {
        let shared = &self.handle.0;
        let until = Instant::now() + deadline;
        let mut state = shared.lock();
        state.closing = true;
        shared.changed.notify_all();
        while !state.finished && Instant::now() < until {
            state = shared.wait(state, Some(until));
        }
        state.abandon = true;
        shared.changed.notify_all();
        // A thread that only waited for its next try ends now; one that hangs in the kernel is left behind.
        let grace = Instant::now() + Duration::from_millis(200);
        while !state.finished && Instant::now() < grace {
            state = shared.wait(state, Some(grace));
        }
        let (left, finished, last_error) = (state.spool.len(), state.finished, state.stats.last_error.clone());
        drop(state);
        let joined = match self.thread.take().filter(|_| finished) {
            Some(thread) => thread.join().is_ok(),
            None => false,
        };
        if left == 0 && joined { Ok(()) } else { Err(Undrained { left, last_error }) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.handle.0.lock().closing = true;
        self.handle.0.changed.notify_all();
    }
}
