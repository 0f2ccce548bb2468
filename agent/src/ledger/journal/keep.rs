//! Looks after the files before the live one: whether others touched them, when they may go, and the manifest that
//! names them. One file is removed at a time, the oldest, in steps after each of which a crash may come: what is still
//! needed of it is carried over, the manifest forgets it, the file goes.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::super::carry::{self, Carry};
use super::super::error::{LedgerError, Op};
use super::super::manifest::{Entry, Manifest};
use super::super::retention::{self, Due};
use super::super::{Mark, Stamp, Store, reader, torn};
use super::Journal;
use crate::host::free_bytes;

/// How a ledger's files are cut and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    /// A file that would grow beyond this many bytes is followed by the next.
    pub max_file_bytes: u64,
    /// One whose first line is this old as well, nanoseconds.
    pub max_file_age_ns: u64,
    /// A file goes once its last line is this old, nanoseconds; `None` keeps it.
    pub retain_ns: Option<u64>,
    /// The oldest goes while all files together have more bytes than this.
    pub max_total_bytes: Option<u64>,
    /// Beyond this many bytes it goes even if a reader has not acknowledged it, which is told and counted.
    pub max_unread_bytes: Option<u64>,
    /// Less space left than this, bytes, is told before it is a failure.
    pub min_free_bytes: u64,
    /// Readers that have to acknowledge a file before it goes, whether or not they ever said anything.
    pub readers: Vec<String>,
}

impl Default for Keeping {
    /// 64 MiB or a week a file, and all of them for ever.
    fn default() -> Self {
        Self {
            max_file_bytes: 64 << 20,
            max_file_age_ns: 7 * 86_400 * 1_000_000_000,
            retain_ns: None,
            max_total_bytes: None,
            max_unread_bytes: None,
            min_free_bytes: 0,
            readers: Vec::new(),
        }
    }
}

/// What looking after the files found and did.
#[derive(Debug, Default)]
pub struct Look {
    /// What could not be done; nothing is lost by it, and it is tried again.
    pub troubles: Vec<LedgerError>,
    /// What others did to files that are no more written.
    pub hurt: Option<LedgerError>,
    /// Lines removed that a reader had not acknowledged.
    pub unread: u64,
    /// Whether there is more to remove.
    pub more: bool,
}

/// Space left for the agent in the ledger's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes (`f_bavail`: without what the file system keeps for root alone).
    pub free_bytes: u64,
    /// What it should not fall below, bytes.
    pub min_bytes: u64,
}

impl Space {
    /// Whether there is less than there should be.
    #[must_use]
    pub const fn is_low(self) -> bool {
        self.free_bytes < self.min_bytes
    }
}

/// The files before the live one.
#[derive(Debug)]
pub(in crate::ledger) struct Keeper {
    dir: PathBuf,
    pub(super) keeping: Keeping,
    /// Oldest first.
    entries: Vec<Entry>,
    /// Files whose removal is decided.
    leaving: Vec<PathBuf>,
    /// Whether the manifest says something else.
    stale: bool,
    /// Not before this instant of CLOCK_BOOTTIME is the next rotation tried.
    pub(super) rotate_from_ns: u64,
    pub(super) troubles: Vec<LedgerError>,
}

impl Keeper {
    pub(in crate::ledger) fn new(dir: &Path, entries: Vec<Entry>) -> Self {
        let keeping = Keeping::default();
        let (leaving, troubles) = (Vec::new(), Vec::new());
        Self { dir: dir.to_owned(), keeping, entries, leaving, stale: true, rotate_from_ns: 0, troubles }
    }

    /// One file more is no more written.
    pub(super) fn rotated(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.stale = true;
    }

    /// Whether files that are no more written are there as they were, as far as their sizes tell.
    fn look(&self) -> Option<LedgerError> {
        self.entries.iter().find_map(|entry| {
            let path = self.dir.join(&entry.name);
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_file() && meta.len() == entry.bytes => None,
                Ok(_) => Some(LedgerError::Altered { path }),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(LedgerError::Missing { path }),
                Err(source) => Some(LedgerError::Io { doing: "look at", path, op: Op::Open, source }),
            }
        })
    }

    fn due(&self, live_bytes: u64, now: Stamp) -> Option<Due> {
        let keeping = &self.keeping;
        if keeping.retain_ns.is_none() && keeping.max_total_bytes.is_none() && keeping.max_unread_bytes.is_none() {
            return None;
        }
        let acknowledged = reader::acknowledged(&self.dir, &keeping.readers);
        retention::next(&self.entries, live_bytes, now.unix_ns, &acknowledged, keeping)
    }

    /// Carries over what the oldest file tells that is still needed.
    fn carry_over(&self) -> Result<(), LedgerError> {
        let Some(oldest) = self.entries.first() else { return Ok(()) };
        let mut carry = Carry::default();
        carry::read(&self.dir, |line, bytes| {
            carry.note(line, bytes);
            Ok(())
        })?;
        let path = self.dir.join(&oldest.name);
        let io = |source| LedgerError::Io { doing: "open", path: path.clone(), op: Op::Open, source };
        carry::lines(BufReader::new(File::open(&path).map_err(io)?), &path, |line, bytes| {
            carry.note(line, bytes);
            Ok(())
        })?;
        carry.store(&self.dir)
    }
}

impl Keeper {
    /// Decides that the oldest file goes: from here on it does not count, whatever becomes of its name.
    fn let_go(&mut self, due: Due) -> Result<(), LedgerError> {
        self.carry_over()?;
        let oldest = self.entries.remove(0);
        self.leaving.push(self.dir.join(&oldest.name));
        self.stale = true;
        let (file, last, lines) = (oldest.name, oldest.last, due.unread);
        if lines > 0 {
            tracing::error!(file, lines, "a ledger file goes that a reader has not acknowledged: ledger.max_unread");
        } else {
            tracing::info!(file, last, "a ledger file goes as its time is over");
        }
        Ok(())
    }

    /// Removes the files that are to go.
    fn remove(&mut self) -> Result<(), LedgerError> {
        if self.leaving.is_empty() {
            return Ok(());
        }
        for path in &self.leaving {
            match fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    let path = path.clone();
                    return Err(LedgerError::Io { doing: "remove", path, op: Op::Write, source: e });
                }
                _ => {}
            }
        }
        torn::sync_dir(&self.dir)?;
        self.leaving.clear();
        Ok(())
    }

    fn trouble(&mut self, error: LedgerError) {
        tracing::warn!(error = error.chain(), "the ledger's older files cannot be looked after; it is tried again");
        self.troubles.push(error);
    }
}

impl<S: Store> Journal<S> {
    /// Sets how files are cut and kept.
    ///
    /// # Errors
    /// The directory of the readers cannot be made.
    pub fn keep(&mut self, keeping: Keeping) -> Result<(), LedgerError> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        if !keeping.readers.is_empty() {
            reader::make_dir(&keeper.dir)?;
        }
        keeper.keeping = keeping;
        Ok(())
    }

    /// Looks whether others touched the files, removes the oldest if it may go, and writes the manifest where it is out
    /// of date. No line is ever lost by what goes wrong here.
    ///
    /// # Errors
    /// What others did to the live file, as [`Self::append`] would say it.
    pub fn tend(&mut self, now: Stamp) -> Result<Look, LedgerError> {
        if self.keeper.is_some() && !self.suspect {
            self.check_standing()?;
        }
        let live_bytes = self.head.good_bytes;
        let Some(keeper) = &mut self.keeper else { return Ok(Look::default()) };
        let mut look = Look { hurt: keeper.look(), ..Look::default() };
        let due = keeper.due(live_bytes, now).filter(|_| look.hurt.is_none());
        if let Some(due) = due {
            match keeper.let_go(due) {
                Ok(()) => (look.unread, look.more) = (due.unread, true),
                Err(error) => keeper.trouble(error),
            }
        }
        self.settle();
        look.troubles = self.keeper.as_mut().map(|keeper| std::mem::take(&mut keeper.troubles)).unwrap_or_default();
        Ok(look)
    }

    /// What space is left; `None` where it cannot be told, or for a ledger that is no file.
    pub fn space(&self) -> Option<Space> {
        let keeper = self.keeper.as_ref()?;
        let free_bytes = free_bytes(&keeper.dir).ok()?;
        Some(Space { free_bytes, min_bytes: keeper.keeping.min_free_bytes })
    }

    /// Writes down the newest line for those who look at the ledger later; called once nothing more is written.
    pub(in crate::ledger) fn close(&mut self) {
        if let Err(error) = self.write_manifest() {
            tracing::warn!(error = error.chain(), "the manifest cannot be written; the ledger itself is whole");
        }
    }

    /// Whether a rotation is not in the manifest yet.
    pub(in crate::ledger) fn is_stale(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.stale)
    }

    /// Brings the manifest up to date, and removes what it names no more; what goes wrong is tried again.
    pub(in crate::ledger) fn settle(&mut self) {
        let written = if self.is_stale() { self.write_manifest() } else { Ok(()) };
        let Some(keeper) = &mut self.keeper else { return };
        if let Err(error) = written.and_then(|()| keeper.remove()) {
            keeper.trouble(error);
        }
    }

    /// Puts the manifest into its place.
    fn write_manifest(&mut self) -> Result<(), LedgerError> {
        let last = (self.head.next_seq > 1).then(|| Mark { seq: self.last_seq(), id: self.head.last_id.clone() });
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        Manifest::new(&self.ledger_id, keeper.entries.clone(), last.as_ref(), &self.head.prev).store(&keeper.dir)?;
        keeper.stale = false;
        Ok(())
    }
}
