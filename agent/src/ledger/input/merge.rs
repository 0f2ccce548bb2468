//! Runs of lines as one stream for each host: the lines of a ledger in order of their numbers, the ledgers of a host
//! beside each other in order of when they were written. A line that lies in several files comes once.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::Line;
use super::super::scan::Scanner;
use super::run::Run;
use super::{InputError, Notes};

const BUFFER_BYTES: usize = 1 << 16;

type Lines = (Line, Vec<u8>);

/// The lines of one host.
pub(super) struct HostStream<'a> {
    ledgers: Vec<Ledger<'a>>,
    heads: Vec<Option<Lines>>,
    begun: bool,
}

impl<'a> HostStream<'a> {
    pub(super) fn new(files: &'a [PathBuf], ledgers: BTreeMap<String, Vec<Run>>) -> Self {
        let ledgers: Vec<_> =
            ledgers.into_values().map(|runs| Ledger { files, waiting: runs.into(), open: Vec::new() }).collect();
        Self { heads: ledgers.iter().map(|_| None).collect(), ledgers, begun: false }
    }

    pub(super) fn next(&mut self, notes: &mut Notes) -> Result<Option<Lines>, InputError> {
        if !std::mem::replace(&mut self.begun, true) {
            for (head, ledger) in self.heads.iter_mut().zip(&mut self.ledgers) {
                *head = ledger.next(notes)?;
            }
        }
        let key = |(line, _): &Lines| (line.recorded_at, line.seq);
        let heads = self.heads.iter().enumerate().filter_map(|(at, head)| Some((head.as_ref().map(key)?, at)));
        let Some((_, at)) = heads.min() else { return Ok(None) };
        let after = self.ledgers[at].next(notes)?;
        Ok(std::mem::replace(&mut self.heads[at], after))
    }
}

/// The lines of one ledger.
struct Ledger<'a> {
    files: &'a [PathBuf],
    waiting: VecDeque<Run>,
    open: Vec<Open>,
}

/// A run under way: its lines up to `last`, the next of which is `seq`.
struct Open {
    path: PathBuf,
    lines: Scanner<BufReader<File>>,
    seq: u64,
    last: u64,
    begin: u64,
}

impl Ledger<'_> {
    fn next(&mut self, notes: &mut Notes) -> Result<Option<Lines>, InputError> {
        loop {
            let due = self.open.iter().map(|open| open.seq).chain(self.waiting.front().map(|run| run.first)).min();
            let Some(due) = due else { return Ok(None) };
            while let Some(run) = self.waiting.pop_front_if(|run| run.first == due) {
                self.open.push(Open::new(&self.files[run.file], &run)?);
            }
            if let Some(line) = self.take(due, notes)? {
                return Ok(Some(line));
            }
        }
    }

    /// The line of this number from every run that has it; those that agree are one.
    fn take(&mut self, seq: u64, notes: &mut Notes) -> Result<Option<Lines>, InputError> {
        let mut found: Vec<Lines> = Vec::new();
        for open in self.open.iter_mut().filter(|open| open.seq == seq) {
            let (number, bytes) = open.next()?;
            if found.iter().any(|(_, known)| *known == bytes) {
                notes.repeated += 1;
                continue;
            }
            match Line::parse(&bytes) {
                Ok(line) => found.push((line, bytes)),
                Err(e) => notes.fault(|| {
                    let why = crate::cause::chain(&e);
                    format!("{} line {number} (seq {seq}) is left out: {why}", open.path.display())
                }),
            }
        }
        self.open.retain(|open| open.seq <= open.last);
        if found.len() > 1 {
            // Which one counts must not depend on the order files are named in.
            found.sort_by(|(_, one), (_, other)| one.cmp(other));
            let (line, _) = &found[0];
            notes.fault(|| {
                format!("line {seq} of ledger {} says {} different things; one is counted", line.ledger, found.len())
            });
        }
        Ok(found.into_iter().next())
    }
}

impl Open {
    fn new(path: &Path, run: &Run) -> Result<Self, InputError> {
        let open = || {
            let mut file = run.of.reopen(path)?;
            file.seek(SeekFrom::Start(run.offset))?;
            Ok(file)
        };
        let file = open().map_err(|source| InputError::Io { path: path.to_owned(), source })?;
        let lines = Scanner::new(BufReader::with_capacity(BUFFER_BYTES, file));
        Ok(Self { path: path.to_owned(), lines, seq: run.first, last: run.last, begin: run.offset })
    }

    /// The next line's byte offset and bytes.
    fn next(&mut self) -> Result<(String, Vec<u8>), InputError> {
        let io = |source| InputError::Io { path: self.path.clone(), source };
        let gone = || io(std::io::Error::other("it became shorter while it was read"));
        let raw = self.lines.next_line().map_err(io)?.ok_or_else(gone)?;
        self.seq = self.seq.saturating_add(1);
        Ok((format!("at byte {}", self.begin + raw.offset), raw.bytes))
    }
}
