//! Reads a ledger and says whether it is whole: the chain of lines, the lives they tell, and what is physically
//! possible. Only reads; streams; memory grows with what is open and twelve bytes for each VM that ended.

mod chain;
mod dir;
mod life;
mod limit;
mod report;
mod stored;
mod strict;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use super::digest;
use super::scan::{RawLine, Scanner};
use chain::Chain;
pub use dir::{verify_dir, verify_file};
use life::Lives;
pub use report::{Fault, Open, OpenStored, Report, Tail};

/// Where a ledger's files begin: after a line that an outside source vouches for, or at the very beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The line before the first one; 0 at the beginning.
    pub seq: u64,
    /// Its SHA-256, 64 hex; zeros at the beginning.
    pub prev: String,
}

impl Default for Anchor {
    fn default() -> Self {
        Self { seq: 0, prev: digest::NO_PREV.to_owned() }
    }
}

/// Verifies files in order, oldest first; `live` says that an agent may be writing the last one.
#[must_use]
pub fn verify_files(paths: &[PathBuf], live: bool, anchor: Anchor) -> Report {
    let mut verifier = Verifier::new(anchor);
    for (at, path) in paths.iter().enumerate() {
        let last = at + 1 == paths.len();
        let read = File::open(path)
            .and_then(|file| verifier.read(&path.display().to_string(), BufReader::new(file), last && live));
        if let Err(e) = read {
            return Report::unreadable(format!("{}: {e}", path.display()));
        }
    }
    verifier.finish()
}

/// The verification as it goes; feed files in order, then [`Verifier::finish`].
#[derive(Debug)]
pub struct Verifier {
    report: Report,
    chain: Chain,
    lives: Lives,
    /// Lines that somebody has seen: by number, the SHA-256 they had.
    known: BTreeMap<u64, String>,
}

impl Verifier {
    /// Begins after `anchor`.
    #[must_use]
    pub fn new(anchor: Anchor) -> Self {
        let from_beginning = anchor.seq == 0;
        Self {
            report: Report::default(),
            lives: Lives::new(from_beginning),
            chain: Chain::after(anchor),
            known: BTreeMap::new(),
        }
    }

    /// Reads one file to its end; `live` says that a tail without newline may be a write under way.
    ///
    /// # Errors
    /// What the reader says; faults go into the report.
    pub fn read(&mut self, name: &str, from: impl BufRead, live: bool) -> io::Result<()> {
        let mut scanner = Scanner::new(from);
        while let Some(raw) = scanner.next_line()? {
            if raw.complete {
                self.line(name, &raw);
                continue;
            }
            self.report.tail = Some(Tail { bytes: raw.len, being_written: live });
            if !live {
                self.report.fault(name, &raw, None, "the tail is torn: the last line has no newline".to_owned());
            }
        }
        Ok(())
    }

    /// The verdict.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.report.head = self.chain.head();
        let reached = self.report.head.as_ref().map_or(0, |head| head.seq);
        if let Some((seq, _)) = self.known.last_key_value().filter(|(seq, _)| **seq > reached) {
            let what = format!("line {seq} was durable when the manifest was written, the ledger ends with {reached}");
            self.report.lacks(super::manifest::MANIFEST_NAME, what);
        }
        (self.report.open, self.report.open_storage) = self.lives.open();
        self.report
    }

    fn line(&mut self, name: &str, raw: &RawLine) {
        self.report.lines += 1;
        let (line, faults) = self.chain.accept(raw);
        let seq = line.as_ref().map(|l| l.seq);
        for what in faults {
            self.report.fault(name, raw, seq, what);
        }
        let Some(line) = line else { return };
        if self.known.remove(&line.seq).is_some_and(|sha256| sha256 != self.chain.prev()) {
            self.report.fault(name, raw, seq, "the manifest has seen another line of this number".to_owned());
        }
        self.report.note(&line);
        for what in self.lives.accept(&line) {
            self.report.fault(name, raw, seq, what);
        }
    }
}
