//! What a file holds, found in one quick look: runs of lines of one ledger whose numbers follow each other. A ledger's
//! own file is one run; files put together, split or shipped in another order are several.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use memchr::memmem;
use serde::Deserialize;

use super::super::files;
use super::super::scan::{RawLine, Scanner};
use super::super::{Kind, Line};
use super::{Corrections, InputError, Notes};

/// Runs of all files together; each costs some 200 bytes, and its turn at a file handle.
const RUNS: usize = 100_000;
const BUFFER_BYTES: usize = 1 << 17;

/// Lines that follow each other in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) host: String,
    pub(super) ledger: String,
    pub(super) of: Whole,
}

/// The file a run lies in, as it was when it was looked through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Whole {
    identity: (u64, u64),
    /// The number of its first line.
    first: u64,
}

impl Whole {
    /// Opens the file again, under its other name if an agent has rotated it meanwhile.
    pub(super) fn reopen(self, path: &Path) -> io::Result<File> {
        let is_it = |file: &File| files::identity(file).map(|identity| identity == self.identity);
        let found = File::open(path);
        if let Ok(file) = found
            && is_it(&file)?
        {
            return Ok(file);
        }
        let file = File::open(path.with_file_name(files::rotated_name(self.first)))?;
        if is_it(&file)? { Ok(file) } else { Err(io::Error::other("another file has taken its place")) }
    }
}

/// The keys by which a line is put in its place.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Head<'a> {
    ledger: &'a str,
    seq: u64,
    host: &'a str,
}

/// Looks through one file; `before` runs were found in others.
pub(super) fn scan(
    path: &Path,
    file: usize,
    before: usize,
    corrections: &mut Corrections,
    notes: &mut Notes,
) -> Result<Vec<Run>, InputError> {
    let io = |source| InputError::Io { path: path.to_owned(), source };
    let from = File::open(path).map_err(io)?;
    let mut of = Whole { identity: files::identity(&from).map_err(io)?, first: 0 };
    let mut scanner = Scanner::new(BufReader::with_capacity(BUFFER_BYTES, from));
    let mut runs: Vec<Run> = Vec::new();
    let mut whole = true;
    while let Some(raw) = scanner.next_line().map_err(io)? {
        if !raw.complete {
            notes.tail_bytes += raw.len;
            break;
        }
        let Some(head) = (!raw.is_too_long()).then(|| head(&raw.bytes)).flatten() else {
            notes.fault(|| format!("{} line {} is no line of a ledger and is left out", path.display(), raw.number));
            whole = false;
            continue;
        };
        if runs.is_empty() {
            of.first = head.seq;
        }
        let goes_on = |run: &&mut Run| {
            run.ledger == head.ledger && run.host == head.host && run.last.checked_add(1) == Some(head.seq)
        };
        let count = before + runs.len();
        match runs.last_mut().filter(goes_on).filter(|_| whole) {
            Some(run) => run.last = head.seq,
            None if count >= RUNS => {
                return Err(InputError::Shuffled { path: path.to_owned(), limit: RUNS });
            }
            None => runs.push(Run {
                file,
                offset: raw.offset,
                first: head.seq,
                last: head.seq,
                host: head.host.to_owned(),
                ledger: head.ledger.to_owned(),
                of,
            }),
        }
        whole = true;
        collect(&raw, corrections);
    }
    Ok(runs)
}

/// A correction is kept; what is wrong with one is told when it is read in its place.
fn collect(raw: &RawLine, corrections: &mut Corrections) {
    if raw.bytes.starts_with(br#"{"kind":"correction""#)
        && let Ok(line) = Line::parse(&raw.bytes)
        && line.fact.kind == Kind::Correction
    {
        corrections.add(line);
    }
}

/// The keys of a line that is written as the agent writes it, else those of whatever JSON it is. A quote inside a text
/// is always escaped, so the pattern cannot lie inside one.
fn head(bytes: &[u8]) -> Option<Head<'_>> {
    quick(bytes).or_else(|| serde_json::from_slice(bytes).ok())
}

fn quick(bytes: &[u8]) -> Option<Head<'_>> {
    const BEGIN: &[u8] = br#","v":1,"ledger":""#;
    let rest = &bytes[memmem::find(bytes, BEGIN)? + BEGIN.len()..];
    let (ledger, rest) = text(rest)?;
    let rest = rest.strip_prefix(br#","seq":"#)?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let seq = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let rest = rest[digits..].strip_prefix(br#","id":""#)?;
    let (_, rest) = text(rest)?;
    let (host, _) = text(rest.strip_prefix(br#","host":""#)?)?;
    Some(Head { ledger, seq, host })
}

/// A text without escapes, and what follows its closing quote.
fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr::memchr2(b'"', b'\\', bytes)?;
    let rest = bytes[end..].strip_prefix(b"\"")?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, rest))
}

/// Puts the runs of each ledger in order and tells numbers that are in none of them.
pub(super) fn tell_holes(hosts: &mut BTreeMap<String, BTreeMap<String, Vec<Run>>>, notes: &mut Notes) {
    let mut spans: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for (ledger, runs) in hosts.values_mut().flatten() {
        runs.sort_by_key(|run| (run.first, run.last, run.file, run.offset));
        spans.entry(ledger.clone()).or_default().extend(runs.iter().map(|run| (run.first, run.last)));
    }
    for (ledger, mut spans) in spans {
        spans.sort_unstable();
        let mut reached: Option<u64> = None;
        for (first, last) in spans {
            if let Some(due) = reached.and_then(|reached| reached.checked_add(1)).filter(|due| *due < first) {
                notes.fault(|| format!("lines {due} to {} of ledger {ledger} are missing", first - 1));
            }
            reached = reached.max(Some(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_look_says_what_the_slow_one_does() {
        let line = br#"{"kind":"agent.up","name":"x","v":1,"ledger":"a1","seq":7,"id":"i","host":"h","prev":""}"#;
        let slow: Head<'_> = serde_json::from_slice(line).unwrap();
        assert_eq!(quick(line), Some(slow));
        let evil =
            br#"{"kind":"agent.up","vm_id":",\"v\":1,\"ledger\":\"b","v":1,"ledger":"a","seq":7,"id":"","host":"h"}"#;
        assert_eq!(quick(evil).map(|head| head.ledger), Some("a"));
        assert_eq!(quick(br#"{"ledger":"a","seq":7,"host":"h"}"#), None);
        assert_eq!(head(br#"{"ledger":"a","seq":7,"host":"h"}"#).map(|head| head.seq), Some(7));
        assert_eq!(head(b"[]"), None);
    }
}
