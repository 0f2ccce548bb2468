//! What files that retention removes tell and the agent still needs: lines about what is open, of stored things in this
//! boot, of VMs whose state was kept, and the very last line, on which the chain goes on. They are kept as they were
//! written in `carried.jsonl`, each with its own `sum`. Nothing here is billed: readers of the ledger skip the file.
//! Once it is in place the files up to its last line count as removed, so it also decides what a crash left behind.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::error::{LedgerError, LineError, Op};
use super::scan::Scanner;
use super::{HIBERNATE, Kind, Line, Subject, digest, files};

/// The file's name inside the metering directory; readers of directories do not take it for a ledger.
pub(super) const CARRIED_NAME: &str = "carried.jsonl";

/// A line's number and its bytes without newline.
type Kept = (u64, Vec<u8>);

/// Lines of one VM process or stored thing.
#[derive(Debug, Default)]
struct About {
    lines: Vec<Kept>,
    heartbeat: Option<Kept>,
    boot: String,
    open: bool,
}

/// The fold over lines that are going to be removed.
#[derive(Debug, Default)]
pub(super) struct Carry {
    compute: HashMap<Subject, About>,
    stored: HashMap<Subject, About>,
    /// By VM: the line that says its state was kept.
    left: HashMap<String, Kept>,
    /// The newest `agent.up`, and how long the host was suspended since.
    up: Vec<Kept>,
    last: Option<Kept>,
    boot: String,
}

/// Where lines that were removed end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) last: u64,
    /// The `prev` of the line behind it.
    pub(super) head: String,
}

impl Carry {
    /// Takes the next line.
    pub(super) fn note(&mut self, line: &Line, bytes: &[u8]) {
        let kept = (line.seq, bytes.to_vec());
        match &line.fact.subject {
            Subject::Ledger => {
                self.boot.clone_from(&line.fact.boot_id);
                if line.fact.kind == Kind::AgentUp {
                    self.up.clear();
                }
                if matches!(line.fact.kind, Kind::AgentUp | Kind::HostSuspend) {
                    self.up.push(kept.clone());
                }
            }
            Subject::Incarnation(_) => self.note_compute(line, &kept),
            Subject::Storage(_) | Subject::Snapshot(_) => {
                let about = self.stored.entry(line.fact.subject.clone()).or_default();
                about.open = !matches!(line.fact.kind, Kind::VmStorageStop | Kind::SnapStorageStop);
                about.boot.clone_from(&line.fact.boot_id);
                about.lines.push(kept.clone());
            }
        }
        self.last = Some(kept);
    }

    fn note_compute(&mut self, line: &Line, kept: &Kept) {
        let (fact, subject) = (&line.fact, &line.fact.subject);
        if fact.kind == Kind::VmComputeStart {
            self.left.remove(&fact.vm_id);
            self.compute.insert(subject.clone(), About::default());
        }
        let is_over = fact.kind == Kind::VmComputeStop;
        let Some(about) = self.compute.get_mut(subject).filter(|_| !is_over) else {
            // A stop, or a correction of one.
            self.compute.remove(subject);
            if fact.cause == HIBERNATE || !fact.snapshot_id.is_empty() {
                self.left.insert(fact.vm_id.clone(), kept.clone());
            }
            return;
        };
        if fact.kind.is_heartbeat() {
            about.heartbeat = Some(kept.clone());
        } else {
            about.lines.push(kept.clone());
        }
    }

    /// The lines to keep, in order. A stored thing that is gone is kept as long as its boot lasts, because a new one of
    /// its name must not get its ids.
    fn lines(self) -> BTreeMap<u64, Vec<u8>> {
        let boot = self.boot;
        let stored = self.stored.into_values().filter(|about| about.open || about.boot == boot);
        let about =
            self.compute.into_values().chain(stored).flat_map(|about| about.lines.into_iter().chain(about.heartbeat));
        about.chain(self.left.into_values()).chain(self.up).chain(self.last).collect()
    }

    /// Puts the file into its place; durable when it returns.
    pub(super) fn store(self, dir: &Path) -> Result<(), LedgerError> {
        let lines = self.lines();
        files::put(dir, CARRIED_NAME, |out| {
            lines.values().try_for_each(|line| {
                out.write_all(line)?;
                out.write_all(b"\n")
            })
        })
    }
}

/// Where the removed lines end; `None` where none were removed.
pub(super) fn removed(dir: &Path) -> Result<Option<Removed>, LedgerError> {
    let mut found = None;
    read(dir, |line, bytes| {
        found = Some(Removed { last: line.seq, head: digest::chain(bytes) });
        Ok(())
    })?;
    Ok(found)
}

/// Calls `each` with every carried line, in order; each is held against its own `sum`.
pub(super) fn read(dir: &Path, each: impl FnMut(&Line, &[u8]) -> Result<(), LineError>) -> Result<(), LedgerError> {
    let path = dir.join(CARRIED_NAME);
    match File::open(&path) {
        Ok(file) => lines(BufReader::new(file), &path, each),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(LedgerError::Io { doing: "open", path, op: Op::Open, source }),
    }
}

/// Calls `each` with every line of a file that has to be whole.
pub(super) fn lines(
    from: impl BufRead,
    path: &Path,
    mut each: impl FnMut(&Line, &[u8]) -> Result<(), LineError>,
) -> Result<(), LedgerError> {
    let path: PathBuf = path.to_owned();
    let io = |source| LedgerError::Io { doing: "read", path: path.clone(), op: Op::Open, source };
    let mut scanner = Scanner::new(from);
    while let Some(raw) = scanner.next_line().map_err(io)? {
        let whole = if raw.is_too_long() {
            Err(LineError::TooLong)
        } else if raw.complete {
            Line::parse(&raw.bytes)
        } else {
            Err(LineError::NoNewline)
        };
        let taken = whole.and_then(|line| each(&line, &raw.bytes));
        taken.map_err(|source| LedgerError::Damaged {
            path: path.clone(),
            line: raw.number,
            offset: raw.offset,
            source,
        })?;
    }
    Ok(())
}
