//! What was found wrong, left out or remarkable while lines were read: counted in full, told in part.

use std::fmt;

use serde::Serialize;

use super::super::{Kind, Line, TimeQuality};

/// Faults kept with their text; all are counted.
const FAULTS_KEPT: usize = 100;

/// What reading found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Notes {
    /// Files read.
    pub files: u64,
    /// Hosts they are of.
    pub hosts: u64,
    /// Lines, each once.
    pub lines: u64,
    /// Lines that were there a second time, and counted once.
    pub repeated: u64,
    /// Bytes behind a last newline, left out: being written, or torn.
    pub tail_bytes: u64,
    /// Lines that a correction took the place of.
    pub corrected: u64,
    /// Stops whose instant was not seen; counted up to the bound that bills less.
    pub bounded_stops: u64,
    /// `agent.gap` lines.
    pub gaps: u64,
    /// VMs without a stop line; counted up to their last line.
    pub open_vms: u64,
    /// Stored things without a stop line; counted up to the last line of their boot.
    pub open_storage: u64,
    /// VMs and stored things whose start line is not in these files; counted from their first line on.
    pub begun_before: u64,
    /// How many faults there are.
    pub faults_total: u64,
    /// The first hundred of them.
    pub faults: Vec<String>,
}

impl Notes {
    /// Tells a fault.
    pub(in crate::ledger) fn fault(&mut self, what: impl FnOnce() -> String) {
        self.faults_total += 1;
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(what());
        }
    }

    pub(super) fn note(&mut self, line: &Line) {
        self.lines += 1;
        self.gaps += u64::from(line.fact.kind == Kind::AgentGap);
        let bounded = line.fact.time_quality != TimeQuality::Exact;
        self.bounded_stops += u64::from(bounded && line.fact.kind == Kind::VmComputeStop);
    }
}

impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lines, {} files, {} hosts", self.lines, self.files, self.hosts)?;
        for (count, what) in [
            (self.repeated, "lines there twice and counted once"),
            (self.corrected, "lines corrected"),
            (self.open_vms, "VMs still open, counted up to their last line"),
            (self.open_storage, "stored things still open, counted up to the last line of their boot"),
            (self.begun_before, "began before these files, counted from their first line on"),
            (self.bounded_stops, "ends not seen, counted up to the last proof of life"),
            (self.gaps, "gaps told"),
            (self.tail_bytes, "bytes of an unfinished line left out"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        for fault in &self.faults {
            write!(f, "\nfault: {fault}")?;
        }
        match self.faults_total.saturating_sub(self.faults.len() as u64) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more faults"),
        }
    }
}
