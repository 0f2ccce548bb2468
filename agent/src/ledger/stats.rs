//! What the writer counts, as one snapshot; `expose` turns it into metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Kind, LedgerError, Look, Op, Space, Written};

/// The writer's counters at one instant. Reading them changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Durable lines by kind since this writer began; every kind is there.
    pub records_total: BTreeMap<Kind, u64>,
    /// Failed attempts by operation; every operation is there.
    pub write_failures: BTreeMap<Op, u64>,
    /// Number of the last durable line; 0 if there is none.
    pub last_seq: u64,
    /// Records that wait in memory.
    pub spooled: usize,
    /// Heartbeats dropped because the spool was full.
    pub dropped_heartbeats: u64,
    /// Records refused because the spool was full of what may not be dropped, or the writer was closed.
    pub refused: u64,
    /// Lines that lost keys to stay within 16 KiB.
    pub trimmed: u64,
    /// How long the append under way has taken so far; a disk that hangs shows here and nowhere else.
    pub busy: Duration,
    /// Whether the last attempt failed.
    pub degraded: bool,
    /// The newest failure with its causes; stays after the recovery.
    pub last_error: Option<String>,
    /// What others did to files that are no more written; lines are written all the same.
    pub hurt: Option<String>,
    /// Space left where the ledger is kept, as of the newest look; `None` where nobody can tell.
    pub space: Option<Space>,
    /// Lines removed that a reader had not acknowledged, because the files had outgrown the hard bound.
    pub unread: u64,
}

impl Stats {
    pub(super) fn new(last_seq: u64) -> Self {
        Self {
            records_total: Kind::ALL.iter().map(|kind| (*kind, 0)).collect(),
            write_failures: Op::ALL.iter().map(|op| (*op, 0)).collect(),
            last_seq,
            spooled: 0,
            dropped_heartbeats: 0,
            refused: 0,
            trimmed: 0,
            busy: Duration::ZERO,
            degraded: false,
            last_error: None,
            hurt: None,
            space: None,
            unread: 0,
        }
    }

    /// The files were looked after; `over` says that nothing waits to be written.
    pub(super) fn looked(&mut self, look: &Look, over: bool) {
        for error in &look.troubles {
            *self.write_failures.entry(error.op()).or_default() += 1;
            self.last_error = Some(error.chain());
        }
        self.hurt = look.hurt.as_ref().map(LedgerError::chain);
        self.unread += look.unread;
        // The live file was found as it should be.
        self.degraded &= !over;
    }

    /// Space left; too little is an alarm, told when it begins and when it is over.
    pub(super) fn take_space(&mut self, now: Option<Space>) {
        let (was, is) = (self.space.is_some_and(Space::is_low), now.is_some_and(Space::is_low));
        if let Some(Space { free_bytes, min_bytes }) = now {
            match (was, is) {
                (false, true) => tracing::error!(
                    free_bytes,
                    min_bytes,
                    "little space is left for the ledger: make room, or lines will have to wait in memory"
                ),
                (true, false) => tracing::warn!(free_bytes, min_bytes, "there is space for the ledger again"),
                _ => {}
            }
        }
        self.space = now;
    }

    pub(super) fn committed(&mut self, written: &[Written]) {
        for line in written {
            *self.records_total.entry(line.kind).or_default() += 1;
            self.trimmed += u64::from(line.trimmed);
            self.last_seq = line.seq;
        }
        self.degraded = false;
    }

    pub(super) fn failed(&mut self, error: &LedgerError) {
        *self.write_failures.entry(error.op()).or_default() += 1;
        self.last_error = Some(error.chain());
        self.degraded = true;
    }
}
