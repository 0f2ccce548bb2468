//! Reads a ledger's files once, in order, and says what a returning agent must know: where to go on, and what is open.
//! Only the tail may be torn; damage anywhere else is an error that names the place, and nothing is skipped.

use std::io::BufRead;
use std::path::Path;

use super::error::{LedgerError, LineError, Op};
use super::interval::Intervals;
use super::manifest::{Entry, Head, Segment};
use super::ordinal::Ordinals;
use super::scan::{RawLine, Scanner};
use super::{Kind, Laid, Lately, Line, Mark, OpenInterval, OpenStorage, Past, Stamp, Torn};
use super::{carry, digest, torn};

/// What an existing ledger says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// 16 hex; empty where there is no line yet.
    pub ledger_id: String,
    /// The number of the next line.
    pub next_seq: u64,
    /// SHA-256 of the last line, 64 hex.
    pub prev: String,
    /// The last line kept; goes into `agent.up` as `resumed_after`.
    pub last: Option<Mark>,
    /// Whether the last line is `agent.down`, with nothing torn behind it.
    pub clean: bool,
    /// VM processes without a stop line, oldest first.
    pub open: Vec<OpenInterval>,
    /// Stored things without a stop line, oldest first.
    pub open_storage: Vec<OpenStorage>,
    /// Which VMs have run, how they were left, and whose snapshots are.
    pub past: Past,
    /// Starts and stops that somebody's statement was laid over.
    pub laid: Laid,
    /// The newest starts and stops.
    pub lately: Lately,
    /// The boot that lines were written in last, and the newest instant at which an agent wrote one.
    pub watched: Option<(String, Stamp)>,
    /// Both clocks at the newest instant of that boot that a line is of.
    pub clocks: Option<Stamp>,
    /// For how long the host has been suspended in that boot as far as lines tell, nanoseconds.
    pub asleep_ns: Option<u64>,
    /// What was cut from the tail on this opening.
    pub torn: Option<Torn>,
    /// Bytes of whole lines.
    pub(super) good_bytes: u64,
    /// Bytes of the last whole line with its newline.
    pub(super) last_bytes: u64,
    /// Bytes after the last whole line.
    pub(super) torn_bytes: u64,
    pub(super) ordinals: Ordinals,
}

/// Reads a ledger of one file from its first line; `path` is only for error text. Changes nothing.
///
/// # Errors
/// [`LedgerError::Damaged`] for anything but a torn tail, [`LedgerError::Io`] for what the reader says.
pub fn recover(from: impl BufRead, path: &Path) -> Result<Recovered, LedgerError> {
    let mut recovery = Recovery::new(None);
    recovery.live(from, path)?;
    Ok(recovery.finish(path)?.0)
}

/// The reading of a ledger's files, oldest first.
pub(super) struct Recovery {
    state: Recovered,
    intervals: Intervals,
    segment: Segment,
    /// A line known to have been durable, until it was met.
    due: Option<Head>,
}

impl Recovery {
    /// Nothing read yet; `due` has to be met.
    pub(super) fn new(due: Option<Head>) -> Self {
        let state = Recovered { next_seq: 1, prev: digest::NO_PREV.to_owned(), ..Recovered::default() };
        Self { state, intervals: Intervals::default(), segment: Segment::default(), due }
    }

    /// Takes what is left of files that were removed, and goes on behind the last of their lines.
    pub(super) fn carried(&mut self, dir: &Path) -> Result<(), LedgerError> {
        carry::read(dir, |line, bytes| {
            if line.seq < self.state.next_seq {
                return Err(LineError::Seq { expected: self.state.next_seq, found: line.seq });
            }
            self.state.of_this_ledger(line)?;
            self.state.stand_behind(line, bytes);
            self.note(line);
            Ok(())
        })
    }

    /// Reads a file that is no more written, and says what is in it.
    pub(super) fn sealed(&mut self, from: impl BufRead, path: &Path) -> Result<Option<Entry>, LedgerError> {
        self.segment = Segment::default();
        carry::lines(from, path, |line, bytes| {
            self.state.follows(line)?;
            self.state.stand_behind(line, bytes);
            self.segment.line(line.seq, line.recorded_at, bytes);
            self.note(line);
            Ok(())
        })?;
        self.meet(path)?;
        Ok(self.segment.entry(&self.state.prev))
    }

    /// Reads the live file, whose tail may be torn.
    pub(super) fn live(&mut self, from: impl BufRead, path: &Path) -> Result<(), LedgerError> {
        self.segment = Segment::default();
        let mut scanner = Scanner::new(from);
        let io = |source| LedgerError::Io { doing: "read", path: path.to_owned(), op: Op::Open, source };
        while let Some(raw) = scanner.next_line().map_err(io)? {
            if !raw.complete {
                self.state.torn_bytes = raw.len;
                self.state.clean = false;
                break;
            }
            let line = match self.state.accept(&raw) {
                Ok(line) => line,
                Err(source) => {
                    let Some(end) = torn::group_end(&raw, &mut scanner).map_err(io)? else {
                        let (line, offset) = (raw.number, raw.offset);
                        return Err(LedgerError::Damaged { path: path.to_owned(), line, offset, source });
                    };
                    self.state.torn_bytes = end - raw.offset;
                    self.state.clean = false;
                    break;
                }
            };
            self.segment.line(line.seq, line.recorded_at, &raw.bytes);
            self.note(&line);
            self.meet(path)?;
        }
        Ok(())
    }

    /// What a returning agent must know, and what is known of the live file.
    pub(super) fn finish(mut self, live: &Path) -> Result<(Recovered, Segment), LedgerError> {
        if let Some(due) = self.due {
            return Err(LedgerError::Headless { path: live.to_owned(), seq: due.seq });
        }
        self.state.watched = self.intervals.boots.watched();
        self.state.clocks = self.intervals.boots.clocks();
        self.state.asleep_ns = self.intervals.boots.asleep_ns();
        (self.state.open, self.state.open_storage) = self.intervals.finish();
        Ok((self.state, self.segment))
    }

    fn note(&mut self, line: &Line) {
        self.state.ordinals.note(&line.fact.subject, line.fact.kind);
        self.intervals.note(line);
        self.state.past.note(&line.fact);
        self.state.laid.note(line);
        self.state.lately.note(line);
        if self.due.as_ref().is_some_and(|due| due.seq == line.seq && due.sha256 == self.state.prev) {
            self.due = None;
        }
    }

    /// The line that is due cannot come any more once its number is behind.
    fn meet(&self, path: &Path) -> Result<(), LedgerError> {
        match &self.due {
            Some(due) if due.seq < self.state.next_seq => {
                Err(LedgerError::Headless { path: path.to_owned(), seq: due.seq })
            }
            _ => Ok(()),
        }
    }
}

impl Recovered {
    /// Whether a VM process has its stop line.
    #[must_use]
    pub fn has_ended(&self, incarnation: &str) -> bool {
        self.ordinals.has_ended(incarnation)
    }

    fn accept(&mut self, raw: &RawLine) -> Result<Line, LineError> {
        if raw.is_too_long() {
            return Err(LineError::TooLong);
        }
        let line = Line::parse(&raw.bytes)?;
        self.follows(&line)?;
        self.stand_behind(&line, &raw.bytes);
        self.good_bytes = raw.end();
        self.last_bytes = raw.len + 1;
        Ok(line)
    }

    /// Whether the line is the one that is due.
    fn follows(&mut self, line: &Line) -> Result<(), LineError> {
        if line.seq != self.next_seq {
            return Err(LineError::Seq { expected: self.next_seq, found: line.seq });
        }
        if line.prev != self.prev {
            return Err(LineError::Prev { expected: self.prev.clone(), found: line.prev.clone() });
        }
        self.of_this_ledger(line)
    }

    fn of_this_ledger(&mut self, line: &Line) -> Result<(), LineError> {
        if self.ledger_id.is_empty() {
            self.ledger_id.clone_from(&line.ledger);
        } else if line.ledger != self.ledger_id {
            return Err(LineError::Ledger { expected: self.ledger_id.clone(), found: line.ledger.clone() });
        }
        Ok(())
    }

    fn stand_behind(&mut self, line: &Line, bytes: &[u8]) {
        self.next_seq = line.seq.saturating_add(1);
        self.prev = digest::chain(bytes);
        self.last = Some(Mark { seq: line.seq, id: line.id.clone() });
        self.clean = line.fact.kind == Kind::AgentDown;
    }
}
