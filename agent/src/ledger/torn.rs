//! Cuts a torn tail back to the last line that is whole and keeps the cut bytes beside the ledger as `torn-<seq>.bin`,
//! where `seq` is the number of the `ledger.recovered` line that tells of it. A crash in between loses nothing:
//! the side file is renamed into place and synced before the ledger is cut.
//!
//! A power cut may tear a group anywhere: the file has its new length, and of its blocks some were written. Those that
//! were not read as zeros, which no line has in it, and whole lines may stand behind them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Line;
use super::error::{LedgerError, Op};
use super::scan::{RawLine, Scanner};

/// The least that a disk writes at once.
const SECTOR_BYTES: u64 = 512;

/// Bytes that were cut from a ledger's tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// How many.
    pub bytes: u64,
    /// Where they are kept.
    pub path: PathBuf,
}

/// Saves what follows `good_bytes` in `ledger` into the side file of `seq`; the caller cuts afterwards. A side file
/// that stands there already belongs to a recovery that did not get to its line, so its bytes are kept in front.
pub(super) fn save(dir: &Path, ledger: &File, good_bytes: u64, seq: u64) -> Result<(), LedgerError> {
    let path = side_path(dir, seq);
    let draft = path.with_extension("tmp");
    let io = |doing, op, source| LedgerError::Io { doing, path: path.clone(), op, source };
    write_side(&path, &draft, ledger, good_bytes).map_err(|e| io("save the torn tail in", Op::Write, e))?;
    fs::rename(&draft, &path).map_err(|e| io("rename the torn tail to", Op::Rename, e))?;
    sync_dir(dir)
}

/// The torn tail that line `seq` must tell of, if there is one.
pub(super) fn untold(dir: &Path, seq: u64) -> Result<Option<Torn>, LedgerError> {
    let path = side_path(dir, seq);
    match fs::metadata(&path) {
        Ok(meta) => Ok(Some(Torn { bytes: meta.len(), path })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LedgerError::Io { doing: "look at", path, op: Op::Open, source }),
    }
}

/// Where the file ends, if all from `first` on is what a power cut left of one group, which nobody was told of: whole
/// sectors of zeros in the first line that is none, and behind it lines with such or of one instant of writing. Lines of
/// two instants are of two groups, the earlier of which was durable, so that is damage, as is any other wrong byte.
pub(super) fn group_end(first: &RawLine, scanner: &mut Scanner<impl BufRead>) -> io::Result<Option<u64>> {
    let (begin, mut end, mut instant) = (first.offset, first.end(), None);
    if !lacks_sectors(first, begin) {
        return Ok(None);
    }
    while let Some(raw) = scanner.next_line()? {
        end = raw.end();
        if !raw.complete || lacks_sectors(&raw, begin) {
            continue;
        }
        let Ok(line) = Line::parse(&raw.bytes) else { return Ok(None) };
        if *instant.get_or_insert(line.recorded_at) != line.recorded_at {
            return Ok(None);
        }
    }
    Ok(Some(end))
}

/// Whether a line has zeros, and all of them where they stand because sectors were not written: from where one begins, or
/// the first line of the group, to where one ends, or the file.
fn lacks_sectors(raw: &RawLine, begin: u64) -> bool {
    let place = |at: usize| raw.offset + at as u64;
    let is_edge = |at: u64| at.is_multiple_of(SECTOR_BYTES);
    let zero = |at: usize| raw.bytes.get(at) == Some(&0);
    let mut zeros = (0..raw.bytes.len()).filter(|at| zero(*at)).peekable();
    let begins = |at: usize| place(at) == begin || is_edge(place(at));
    let ends =
        |at: usize| is_edge(place(at + 1)) || (at + 1 == raw.bytes.len() && (!raw.complete || raw.is_too_long()));
    zeros.peek().is_some() && zeros.all(|at| (zero_before(raw, at) || begins(at)) && (zero(at + 1) || ends(at)))
}

fn zero_before(raw: &RawLine, at: usize) -> bool {
    at.checked_sub(1).and_then(|before| raw.bytes.get(before)) == Some(&0)
}

/// Makes names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), LedgerError> {
    let io = |source| LedgerError::Io { doing: "sync the directory", path: dir.to_owned(), op: Op::Sync, source };
    File::open(dir).and_then(|d| d.sync_all()).map_err(io)
}

fn side_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("torn-{seq}.bin"))
}

fn write_side(path: &Path, draft: &Path, ledger: &File, good_bytes: u64) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft)?;
    let mut tail = ledger;
    let known = match File::open(path) {
        Ok(known) => Some(known).filter(|k| !same_bytes(k, ledger, good_bytes).unwrap_or(false)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    if let Some(mut known) = known {
        known.rewind()?;
        io::copy(&mut known, &mut out)?;
    }
    tail.seek(SeekFrom::Start(good_bytes))?;
    io::copy(&mut tail, &mut out)?;
    out.flush()?;
    out.sync_all()
}

/// Whether a side file already holds exactly this tail: the crash came after the saving and before the cut.
fn same_bytes(known: &File, ledger: &File, good_bytes: u64) -> io::Result<bool> {
    if known.metadata()?.len() != ledger.metadata()?.len().saturating_sub(good_bytes) {
        return Ok(false);
    }
    let mut tail = ledger;
    tail.seek(SeekFrom::Start(good_bytes))?;
    let mut pairs = io::BufReader::new(known).bytes().zip(io::BufReader::new(tail).bytes());
    pairs.try_fold(true, |same, (a, b)| Ok(same && a? == b?))
}
