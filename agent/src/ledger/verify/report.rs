//! The verdict on a ledger, for a person (`Display`) and for a program (`Serialize`).

use std::fmt;

use serde::Serialize;

use super::super::scan::RawLine;
use super::super::{Kind, Line, Mark};

/// Faults kept with their text; all are counted.
const FAULTS_KEPT: usize = 100;
const WHOLE: u8 = 0;
const UNREADABLE: u8 = 1;
const FAULTY: u8 = 3;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// In which file.
    pub file: String,
    /// In which line of it; 1 is the first, 0 where it is about none.
    pub line: u64,
    /// Byte the line begins at.
    pub offset: u64,
    /// The line's number in the ledger, if it could be read.
    pub seq: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// Bytes after the last newline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tail {
    /// How many.
    pub bytes: u64,
    /// Whether an agent is there who may be writing them now; else they are a fault.
    pub being_written: bool,
}

/// A VM process without a stop line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Open {
    /// Which one.
    pub incarnation: String,
    /// Its VM.
    pub vm_id: String,
    /// Its start line.
    pub start_seq: u64,
}

/// A stored thing without a stop line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenStored {
    /// Which one.
    pub storage_id: String,
    /// Its VM; empty if none.
    pub vm_id: String,
    /// Its start line.
    pub start_seq: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whole lines read.
    pub lines: u64,
    /// Number of the first line.
    pub first_seq: Option<u64>,
    /// The last line that could be read.
    pub head: Option<Mark>,
    /// How many faults there are.
    pub faults_total: u64,
    /// The first hundred of them.
    pub faults: Vec<Fault>,
    /// VM processes without a stop line: reported, not failed.
    pub open: Vec<Open>,
    /// Stored things without a stop line: reported, not failed.
    pub open_storage: Vec<OpenStored>,
    /// `agent.gap` lines: times nobody watched, told and not failed.
    pub gaps: u64,
    /// `ledger.recovered` lines: torn tails that were cut.
    pub recoveries: u64,
    /// Bytes after the last newline, if there are any.
    pub tail: Option<Tail>,
    /// Why the ledger could not be read.
    pub unreadable: Option<String>,
}

impl Report {
    /// The process's exit code: 0 whole, 3 a fault, 1 unreadable.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match (&self.unreadable, self.faults_total) {
            (Some(_), _) => UNREADABLE,
            (None, 0) => WHOLE,
            (None, _) => FAULTY,
        }
    }

    pub(super) fn unreadable(why: String) -> Self {
        Self { unreadable: Some(why), ..Self::default() }
    }

    pub(super) fn fault(&mut self, file: &str, raw: &RawLine, seq: Option<u64>, what: String) {
        self.faults_total += 1;
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(Fault { file: file.to_owned(), line: raw.number, offset: raw.offset, seq, what });
        }
    }

    /// Something that is not there; it has no line.
    pub(super) fn lacks(&mut self, file: &str, what: String) {
        self.faults_total += 1;
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(Fault { file: file.to_owned(), line: 0, offset: 0, seq: None, what });
        }
    }

    pub(super) fn note(&mut self, line: &Line) {
        self.first_seq.get_or_insert(line.seq);
        self.gaps += u64::from(line.fact.kind == Kind::AgentGap);
        self.recoveries += u64::from(line.fact.kind == Kind::LedgerRecovered);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.unreadable {
            return write!(f, "unreadable: {why}");
        }
        let verdict = if self.faults_total == 0 { "whole" } else { "FAULTY" };
        write!(f, "{verdict}: {} lines", self.lines)?;
        if let (Some(first), Some(head)) = (self.first_seq, &self.head) {
            write!(f, ", seq {first} to {}, head {}", head.seq, head.id)?;
        }
        let (vms, stored) = (self.open.len(), self.open_storage.len());
        write!(
            f,
            "\n{vms} VMs open, {stored} stored things open, {} gaps told, {} torn tails cut",
            self.gaps, self.recoveries
        )?;
        if let Some(tail) = self.tail.as_ref().filter(|t| t.being_written) {
            write!(f, "\ntail being written: {} bytes", tail.bytes)?;
        }
        for fault in &self.faults {
            if fault.line == 0 {
                write!(f, "\n{}: {}", fault.file, fault.what)?;
                continue;
            }
            write!(f, "\n{} line {} (byte {}): {}", fault.file, fault.line, fault.offset, fault.what)?;
        }
        match self.faults_total.saturating_sub(self.faults.len() as u64) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more faults"),
        }
    }
}
