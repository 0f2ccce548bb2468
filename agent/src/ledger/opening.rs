//! Opens a ledger for writing: directory, lock, files, what they hold, and the torn tail cut back and told.

use std::fs::{self, DirBuilder, File};
use std::io::{BufReader, Read, Seek};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::error::{LedgerError, Op};
use super::journal::Keeper;
use super::lock::WriteLock;
use super::manifest::Manifest;
use super::standing::Before;
use super::{Draft, FILE_NAME, FileStore, Journal, Kind, Mark, Recovered, Stamp, Store, Subject};
use super::{digest, torn};

const LEDGER_ID_BYTES: usize = 8;

impl Journal<FileStore> {
    /// Opens the ledger in a metering directory, creating what is missing, and says what it holds. A torn tail is
    /// saved beside it, cut back, and told by a `ledger.recovered` line stamped `now`.
    ///
    /// # Errors
    /// [`LedgerError::Locked`]; [`LedgerError::Damaged`], [`LedgerError::Missing`], [`LedgerError::Altered`] and
    /// [`LedgerError::Headless`] for what others did to the files, which are left as they are; or what the file system
    /// says.
    pub fn open(dir: &Path, host_id: &str, boot_id: &str, now: Stamp) -> Result<(Self, Recovered), LedgerError> {
        make_dir(dir)?;
        let lock = WriteLock::take(dir)?;
        let path = dir.join(FILE_NAME);
        let io = |doing, op, source| LedgerError::Io { doing, path: path.clone(), op, source };
        let before = Before::look(dir)?;
        let mut store = FileStore::open(&path).map_err(|e| io("open", Op::Open, e))?;
        torn::sync_dir(dir)?;
        let mut recovery = before.begin(dir)?;
        let entries = before.read(dir, &mut recovery)?;
        let mut file = store.file();
        file.rewind().map_err(|e| io("read", Op::Open, e))?;
        recovery.live(BufReader::with_capacity(1 << 17, file), &path)?;
        let (mut found, segment) = recovery.finish(&path)?;
        before.belongs(dir, &found)?;
        if found.torn_bytes > 0 {
            torn::save(dir, store.file(), found.good_bytes, found.next_seq)?;
            store.truncate(found.good_bytes).map_err(|e| io("cut the torn tail of", Op::Write, e))?;
        }
        // Lines of an agent that died between write and sync are kept, so they must be durable before they are shown.
        store.sync().map_err(|e| io("sync", Op::Sync, e))?;
        found.torn = torn::untold(dir, found.next_seq)?;
        if found.ledger_id.is_empty() {
            found.ledger_id = before.drawn().map_or_else(draw_ledger_id, Ok)?;
            note_id(dir, &found.ledger_id);
        }
        let mut journal = Self::resume(store, path, lock, host_id, &found);
        journal.stand_on(segment, Keeper::new(dir, entries));
        journal.tell_torn(&mut found, boot_id, now)?;
        journal.settle();
        Ok((journal, found))
    }

    fn tell_torn(&mut self, found: &mut Recovered, boot_id: &str, now: Stamp) -> Result<(), LedgerError> {
        let Some(torn) = &found.torn else { return Ok(()) };
        let mut draft = Draft::new(Kind::LedgerRecovered, Subject::Ledger, boot_id, now.unix_ns, now.mono_ns);
        draft.cause = "torn-tail".to_owned();
        draft.cut_bytes = Some(torn.bytes);
        draft.resumed_after.clone_from(&found.last);
        let kept_in = torn.path.display();
        tracing::warn!(bytes = torn.bytes, %kept_in, "the ledger's tail was torn; it is cut back to the last line");
        let written = self.append(&[draft], now)?;
        found.last = written.last().map(|w| Mark { seq: w.seq, id: w.id.clone() });
        found.clean = false;
        let (next_seq, prev) = self.head();
        (found.next_seq, found.prev) = (next_seq, prev.to_owned());
        Ok(())
    }
}

fn make_dir(dir: &Path) -> Result<(), LedgerError> {
    let io = |source| LedgerError::Io { doing: "create", path: dir.to_owned(), op: Op::Open, source };
    let fresh = fs::symlink_metadata(dir).is_err();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    match dir.parent() {
        Some(parent) if fresh && !parent.as_os_str().is_empty() => torn::sync_dir(parent),
        _ => Ok(()),
    }
}

/// Keeps the id of a ledger that has no line yet: kernel programs count for it before its first line is durable, and
/// whoever goes on after a kill in between must know them for its own.
fn note_id(dir: &Path, id: &str) {
    if let Err(error) = Manifest::new(id, Vec::new(), None, digest::NO_PREV).store(dir) {
        tracing::warn!(%error, "the new ledger's id cannot be kept until its first line is");
    }
}

pub(super) fn draw_ledger_id() -> Result<String, LedgerError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; LEDGER_ID_BYTES];
    File::open(path).and_then(|mut random| random.read_exact(&mut bytes)).map_err(|source| LedgerError::Io {
        doing: "draw from",
        path: path.to_owned(),
        op: Op::Open,
        source,
    })?;
    Ok(digest::hex(&bytes))
}
