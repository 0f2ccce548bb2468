//! Begins the next file, at a line's boundary: it is written and synced beside the live one, the live one is linked to
//! its own name, the next is renamed into place and the names are synced. Whatever step a crash follows, each durable
//! line lies in one file. A rotation that fails before the renaming changes nothing: the line goes to the old file.

use super::super::error::{LedgerError, Op};
use super::super::manifest::Segment;
use super::super::{Stamp, Store, digest};
use super::{Group, Journal};

/// How long a rotation that failed is left alone, nanoseconds of CLOCK_BOOTTIME.
const PAUSE_NS: u64 = 60_000_000_000;
const PIECE_BYTES: usize = 1 << 16;

/// What became of a rotation.
pub(super) enum Rotated {
    /// The group is durable in a file of its own.
    Yes(Group),
    /// Nothing has changed.
    No(Group),
}

impl<S: Store> Journal<S> {
    /// Whether a group is the first of the next file.
    pub(super) fn rotates_before(&self, group: &Group, now: Stamp) -> bool {
        let (Some(keeper), Some((_, began_at))) = (&self.keeper, self.head.segment.first) else { return false };
        let keeping = &keeper.keeping;
        let is_large = self.head.good_bytes + group.bytes.len() as u64 > keeping.max_file_bytes;
        let is_old = now.unix_ns.saturating_sub(began_at) >= keeping.max_file_age_ns;
        (is_large || is_old) && now.mono_ns >= keeper.rotate_from_ns
    }

    /// Begins the next file with a group.
    pub(super) fn rotate(&mut self, mut group: Group, now: Stamp) -> Result<Rotated, LedgerError> {
        let Some(entry) = self.head.segment.entry(&self.head.prev) else { return Ok(Rotated::No(group)) };
        if let Err(error) = self.replace(&group.bytes, &entry.name) {
            self.store.abandon(&entry.name);
            tracing::warn!(error = error.chain(), "the ledger's file cannot be rotated; it is written on");
            if let Some(keeper) = &mut self.keeper {
                keeper.rotate_from_ns = now.mono_ns.saturating_add(PAUSE_NS);
                keeper.troubles.push(error);
            }
            // Where it cannot be told which file has the name, nothing is written.
            self.check_standing()?;
            return Ok(Rotated::No(group));
        }
        tracing::info!(file = entry.name, last = entry.last, "the ledger's file is full or old; the next one is begun");
        if let Some(keeper) = &mut self.keeper {
            keeper.rotated(entry);
        }
        // From here on the next file is the live one, and empty as long as its name is not durable.
        self.head.segment = Segment::default();
        (self.head.good_bytes, self.head.last_bytes) = (0, 0);
        if let Err(source) = self.store.sync_names() {
            (self.suspect, self.unnamed) = (true, true);
            return Err(self.io("sync the name of", Op::Sync, source));
        }
        group.head.segment = Segment::default();
        for written in &group.written {
            group.head.segment.line(written.seq, now.unix_ns, &written.line);
        }
        group.head.good_bytes = group.bytes.len() as u64;
        Ok(Rotated::Yes(group))
    }

    fn replace(&mut self, bytes: &[u8], name: &str) -> Result<(), LedgerError> {
        self.store.prepare(bytes).map_err(|e| self.io("write the file that follows", Op::Write, e))?;
        self.store.keep_as(name).map_err(|e| self.io("link", Op::Rename, e))?;
        self.store.replace().map_err(|e| self.io("replace", Op::Rename, e))
    }

    /// The live file's bytes were changed since we wrote: all of them are compared with what was written. A new time on
    /// the same bytes is no harm.
    pub(super) fn compare(&mut self, modified_ns: i128) -> Result<(), LedgerError> {
        use sha2::{Digest as _, Sha256};
        let (mut hash, mut at, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
        while at < self.head.good_bytes {
            let left = usize::try_from(self.head.good_bytes - at).unwrap_or(PIECE_BYTES);
            let part = &mut piece[..left.min(PIECE_BYTES)];
            self.store.read_at(at, part).map_err(|e| self.io("read back", Op::Open, e))?;
            hash.update(&*part);
            at += part.len() as u64;
        }
        if digest::hex(&hash.finalize()) != self.head.segment.sha256() {
            return Err(LedgerError::Altered { path: self.path.clone() });
        }
        self.modified_ns = Some(modified_ns);
        Ok(())
    }
}
