//! What can go wrong with a line and with the file, each with all its own fields and none of its source's words.

use crate::cause;
use std::io;
use std::path::PathBuf;

/// The operation a write failure is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Opening, locking, looking at or verifying the file.
    Open,
    /// Writing lines or taking half-written ones back.
    Write,
    /// Making them durable.
    Sync,
    /// Renaming a file into place.
    Rename,
}

impl Op {
    /// Every operation.
    pub const ALL: [Self; 4] = [Self::Open, Self::Write, Self::Sync, Self::Rename];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename",
        }
    }
}

/// What is wrong with one line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Over 16 KiB.
    #[error("the line is longer than 16 KiB")]
    TooLong,
    /// Cut short or not ours.
    #[error("the line does not end in a `sum`")]
    NoSum,
    /// Cut short in a file that is no more written.
    #[error("the last line has no newline, and lines follow in another file")]
    NoNewline,
    /// Changed after it was written.
    #[error("`sum` says {stated}, the bytes give {computed}")]
    Sum {
        /// What the line says.
        stated: String,
        /// What its bytes give.
        computed: String,
    },
    /// No JSON, or keys of another type than the contract's.
    #[error("the line is not the JSON a ledger line is")]
    Json(#[source] serde_json::Error),
    /// Written by a newer agent.
    #[error("`v` is {0}, this agent reads 1")]
    Version(u32),
    /// `time_quality` and its bounds do not fit together.
    #[error("`not_before` and `not_after` belong to `bounded` and to nothing else")]
    Bounds,
    /// A line is missing, or twice there.
    #[error("`seq` is {found}, {expected} is due")]
    Seq {
        /// The next number in order.
        expected: u64,
        /// The line's.
        found: u64,
    },
    /// The line before is not the one that was there.
    #[error("`prev` is {found}, the line before gives {expected}")]
    Prev {
        /// Hash of the line before.
        expected: String,
        /// The line's.
        found: String,
    },
    /// A line of another ledger.
    #[error("`ledger` is {found}, this ledger is {expected}")]
    Ledger {
        /// This ledger's id.
        expected: String,
        /// The line's.
        found: String,
    },
}

/// What can go wrong with the ledger's file.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Someone else writes here.
    #[error("another agent (pid {pid}) writes this ledger: {path} is locked")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as the file says.
        pid: String,
    },
    /// A file operation failed.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What it is counted under.
        op: Op,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is damaged elsewhere than at its tail.
    #[error(
        "{path} is damaged in line {line} at byte {offset}; nothing was changed: keep a copy of the file, look at it \
         with `kvmeter ledger verify`, and restore the line or move the directory away before the agent starts again"
    )]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// 1 is the first.
        line: u64,
        /// Where the line begins.
        offset: u64,
        /// What is wrong there.
        #[source]
        source: LineError,
    },
    /// The file's end is not what this agent wrote.
    #[error("{path} does not end as it was written: the line before byte {offset} is another one")]
    TailLost {
        /// The ledger.
        path: PathBuf,
        /// Where the lines that are known to be durable end.
        offset: u64,
    },
    /// Somebody cut or extended the file.
    #[error("{path} was changed by someone else: it has {found} bytes, {expected} were written")]
    Resized {
        /// The ledger.
        path: PathBuf,
        /// What this agent wrote.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// Somebody put another file in its place, or none.
    #[error("{path} was moved, removed or replaced by someone else")]
    Replaced {
        /// The ledger.
        path: PathBuf,
    },
    /// Somebody changed bytes that were written.
    #[error("{path} was changed by someone else: its bytes are not those that were written")]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// A file that belongs to the ledger is not there.
    #[error(
        "{path} was removed or moved by someone else; nothing was changed: put it back, or move the whole directory \
         away to begin a new ledger"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The ledger ends before a line that is known to have been durable, or has another one in its place.
    #[error(
        "{path} does not hold line {seq} as it was durable when the manifest was written; nothing was changed: put the \
         lines back, or move the whole directory away to begin a new ledger"
    )]
    Headless {
        /// The live file.
        path: PathBuf,
        /// The line.
        seq: u64,
    },
    /// A fact could not be put on a line.
    #[error("a {kind} fact does not become line {seq}")]
    Encode {
        /// The fact's kind.
        kind: super::Kind,
        /// The number it would have had.
        seq: u64,
        /// Why.
        #[source]
        source: LineError,
    },
}

impl LedgerError {
    /// What the failure is counted under.
    #[must_use]
    pub const fn op(&self) -> Op {
        match self {
            Self::Io { op, .. } => *op,
            Self::Encode { .. } => Op::Write,
            _ => Op::Open,
        }
    }

    /// The error and its causes in one text, for `stats` and status pages.
    #[must_use]
    pub fn chain(&self) -> String {
        cause::chain(self)
    }
}
