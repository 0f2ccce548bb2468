//! Reads a ledger once, in order, and says what a returning agent must know: where to go on, and what is open.
//! Only the tail may be torn; damage anywhere else is an error that names the place, and nothing is skipped.

use std::io::BufRead;
use std::path::Path;

use super::digest;
use super::error::{LedgerError, LineError, Op};
use super::interval::Intervals;
use super::ordinal::Ordinals;
use super::scan::{RawLine, Scanner};
use super::{Kind, Laid, Lately, Line, Mark, OpenInterval, OpenStorage, Past, Stamp, Torn};

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
    /// What was cut from the tail on this opening.
    pub torn: Option<Torn>,
    /// Bytes of whole lines.
    pub(super) good_bytes: u64,
    /// Bytes of the last whole line with its newline.
    pub(super) last_bytes: u64,
    /// Bytes after the last newline.
    pub(super) torn_bytes: u64,
    pub(super) ordinals: Ordinals,
}

/// Reads a ledger from its first line; `path` is only for error text. Changes nothing.
///
/// # Errors
/// [`LedgerError::Damaged`] for anything but a torn tail, [`LedgerError::Io`] for what the reader says.
pub fn recover(from: impl BufRead, path: &Path) -> Result<Recovered, LedgerError> {
    let mut state = Recovered { next_seq: 1, prev: digest::NO_PREV.to_owned(), ..Recovered::default() };
    let mut intervals = Intervals::default();
    let mut scanner = Scanner::new(from);
    let io = |source| LedgerError::Io { doing: "read", path: path.to_owned(), op: Op::Open, source };
    while let Some(raw) = scanner.next_line().map_err(io)? {
        if !raw.complete {
            state.torn_bytes = raw.len;
            state.clean = false;
            break;
        }
        let damaged =
            |source| LedgerError::Damaged { path: path.to_owned(), line: raw.number, offset: raw.offset, source };
        let line = state.accept(&raw).map_err(damaged)?;
        intervals.note(&line);
        state.past.note(&line.fact);
        state.laid.note(&line);
        state.lately.note(&line);
    }
    state.watched = intervals.watched();
    (state.open, state.open_storage) = intervals.finish();
    Ok(state)
}

impl Recovered {
    fn accept(&mut self, raw: &RawLine) -> Result<Line, LineError> {
        if raw.is_too_long() {
            return Err(LineError::TooLong);
        }
        let line = Line::parse(&raw.bytes)?;
        if line.seq != self.next_seq {
            return Err(LineError::Seq { expected: self.next_seq, found: line.seq });
        }
        if line.prev != self.prev {
            return Err(LineError::Prev { expected: self.prev.clone(), found: line.prev });
        }
        if self.ledger_id.is_empty() {
            self.ledger_id.clone_from(&line.ledger);
        } else if line.ledger != self.ledger_id {
            return Err(LineError::Ledger { expected: self.ledger_id.clone(), found: line.ledger });
        }
        self.next_seq = line.seq.saturating_add(1);
        self.prev = digest::chain(&raw.bytes);
        self.last = Some(Mark { seq: line.seq, id: line.id.clone() });
        self.clean = line.fact.kind == Kind::AgentDown;
        self.good_bytes = raw.end();
        self.last_bytes = raw.len + 1;
        self.ordinals.note(&line.fact.subject, line.fact.kind);
        Ok(line)
    }
}
