//! The writing end of a ledger: places facts on lines and makes them durable, one write and one sync a group.
//! Holds the lock. A group is whole in the file or not there: what a failed write left is taken back, and after a
//! failed sync the file is opened anew and its end compared with what was written, before anything else is appended.
//! `rotate` begins the next file, `keep` looks after those that were begun before.

mod keep;
mod rotate;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::{LedgerError, Op};
use super::lock::WriteLock;
use super::manifest::Segment;
use super::ordinal::Ordinals;
use super::{Draft, FileStore, Kind, Place, Recovered, Stamp, Store, Subject, digest, encode, fit};
pub(super) use keep::Keeper;
pub use keep::{Keeping, Look, Space};
use rotate::Rotated;

/// One line that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub seq: u64,
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: Kind,
    /// Its length with newline.
    pub bytes: usize,
    /// Whether keys were dropped or shortened to keep it within 16 KiB.
    pub trimmed: bool,
    /// The line itself, without its newline.
    pub line: Arc<[u8]>,
}

/// A fact with the line it stands on, which is durable.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The line.
    pub written: Written,
    /// The fact.
    pub fact: Draft,
}

/// The one writer of a ledger.
#[derive(Debug)]
pub struct Journal<S = FileStore> {
    store: S,
    path: PathBuf,
    lock: Option<WriteLock>,
    host_id: String,
    ledger_id: String,
    head: Head,
    ordinals: Ordinals,
    /// The file may hold more, or other bytes, than `head` says; look before the next append.
    suspect: bool,
    /// The name of the file may not be durable yet.
    unnamed: bool,
    /// When the live file's bytes were changed by us last; `None` until that is known.
    modified_ns: Option<i128>,
    /// Who looks after the files before the live one; a stream has none.
    keeper: Option<Keeper>,
}

#[derive(Debug, Clone)]
struct Head {
    next_seq: u64,
    prev: String,
    good_bytes: u64,
    last_bytes: u64,
    last_id: String,
    segment: Segment,
}

impl<S: Store> Journal<S> {
    /// Goes on where `found` ends, on any store.
    pub(super) fn resume(
        store: S,
        path: PathBuf,
        lock: impl Into<Option<WriteLock>>,
        host_id: &str,
        found: &Recovered,
    ) -> Self {
        let head = Head {
            next_seq: found.next_seq,
            prev: found.prev.clone(),
            good_bytes: found.good_bytes,
            last_bytes: found.last_bytes,
            last_id: found.last.as_ref().map(|last| last.id.clone()).unwrap_or_default(),
            segment: Segment::default(),
        };
        Self {
            store,
            path,
            lock: lock.into(),
            host_id: host_id.to_owned(),
            ledger_id: found.ledger_id.clone(),
            head,
            ordinals: found.ordinals.clone(),
            suspect: false,
            unnamed: false,
            modified_ns: None,
            keeper: None,
        }
    }

    /// Goes on with what is known of the live file and of those before it.
    pub(super) fn stand_on(&mut self, segment: Segment, keeper: Keeper) {
        self.head.segment = segment;
        self.keeper = Some(keeper);
        self.modified_ns = self.store.standing().ok().map(|standing| standing.modified_ns);
    }

    /// The number the next line will have and the hash it will carry as `prev`.
    pub(super) fn head(&self) -> (u64, &str) {
        (self.head.next_seq, &self.head.prev)
    }

    /// The ledger's id, 16 hex.
    #[must_use]
    pub fn ledger_id(&self) -> &str {
        &self.ledger_id
    }

    /// The number of the last durable line; 0 if there is none.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.head.next_seq.saturating_sub(1)
    }

    /// The lock this journal holds, where there is something to lock.
    #[must_use]
    pub const fn lock(&self) -> Option<&WriteLock> {
        self.lock.as_ref()
    }

    /// Writes the drafts in order, in one write and one sync; when it returns they are durable, `recorded_at` is
    /// `now`. After an error none of them is, and the same call may be made again.
    ///
    /// # Errors
    /// [`LedgerError::Resized`] and [`LedgerError::Replaced`] when others touched the file, [`LedgerError::TailLost`]
    /// when the kernel lost durable lines, [`LedgerError::Io`] for a failed write or sync.
    pub fn append(&mut self, drafts: &[Draft], now: Stamp) -> Result<Vec<Written>, LedgerError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        if self.suspect {
            self.heal()?;
        }
        self.check_standing()?;
        let group = self.encode_group(drafts, now)?;
        if self.rotates_before(&group, now) {
            match self.rotate(group, now)? {
                Rotated::Yes(group) => return Ok(self.commit(group, drafts)),
                Rotated::No(group) => return self.extend(group, drafts),
            }
        }
        self.extend(group, drafts)
    }

    /// Appends a group to the live file.
    fn extend(&mut self, group: Group, drafts: &[Draft]) -> Result<Vec<Written>, LedgerError> {
        if let Err(source) = self.store.append(&group.bytes) {
            self.suspect = self.store.truncate(self.head.good_bytes).is_err();
            self.modified_ns = None;
            return Err(self.io("write", Op::Write, source));
        }
        if let Err(source) = self.store.sync() {
            self.suspect = true;
            return Err(self.io("sync", Op::Sync, source));
        }
        Ok(self.commit(group, drafts))
    }

    /// The group is durable.
    fn commit(&mut self, group: Group, drafts: &[Draft]) -> Vec<Written> {
        self.head = group.head;
        self.modified_ns = self.store.standing().ok().map(|standing| standing.modified_ns);
        for draft in drafts {
            self.ordinals.note(&fit::settle_subject(&draft.subject), draft.kind);
        }
        group.written
    }

    fn encode_group(&self, drafts: &[Draft], now: Stamp) -> Result<Group, LedgerError> {
        let mut group = Group { bytes: Vec::new(), written: Vec::with_capacity(drafts.len()), head: self.head.clone() };
        let mut earlier: HashMap<(Subject, Kind), u64> = HashMap::new();
        for draft in drafts {
            let seq = group.head.next_seq;
            let subject = fit::settle_subject(&draft.subject);
            let in_group = earlier.entry((subject.clone(), draft.kind)).or_default();
            let ordinal = match (&subject, draft.kind) {
                (Subject::Ledger, _) => seq,
                (_, kind) if kind.is_heartbeat() => draft.slot_second(),
                (subject, kind) => self.ordinals.count(subject, kind) + *in_group,
            };
            *in_group += 1;
            let place = Place {
                ledger: &self.ledger_id,
                host: &self.host_id,
                seq,
                ordinal,
                prev: &group.head.prev,
                recorded_at: now.unix_ns,
            };
            let line = encode(draft, &place).map_err(|source| LedgerError::Encode { kind: draft.kind, seq, source })?;
            if !line.trimmed.is_empty() {
                tracing::warn!(seq, keys = ?line.trimmed, "a ledger line was over 16 KiB and lost keys");
            }
            let (bytes, trimmed) = (line.bytes.len(), !line.trimmed.is_empty());
            group.bytes.extend_from_slice(&line.bytes);
            let alone: Arc<[u8]> = Arc::from(line.bytes.strip_suffix(b"\n").unwrap_or(&line.bytes));
            group.head.segment.line(seq, now.unix_ns, &alone);
            group.head.last_id.clone_from(&line.id);
            group.written.push(Written { seq, id: line.id, kind: draft.kind, bytes, trimmed, line: alone });
            group.head.next_seq = seq.saturating_add(1);
            group.head.prev = line.chain;
            group.head.last_bytes = bytes as u64;
            group.head.good_bytes += bytes as u64;
        }
        Ok(group)
    }

    fn check_standing(&mut self) -> Result<(), LedgerError> {
        let standing = self.store.standing().map_err(|e| self.io("look at", Op::Open, e))?;
        if !standing.in_place {
            return Err(LedgerError::Replaced { path: self.path.clone() });
        }
        if standing.bytes != self.head.good_bytes {
            let (expected, found) = (self.head.good_bytes, standing.bytes);
            return Err(LedgerError::Resized { path: self.path.clone(), expected, found });
        }
        match self.modified_ns {
            Some(ours) if ours != standing.modified_ns => self.compare(standing.modified_ns),
            _ => Ok(()),
        }
    }

    /// Opens the file anew, takes back what is not known to be durable and compares the last line with its hash.
    fn heal(&mut self) -> Result<(), LedgerError> {
        self.store.reopen().map_err(|e| self.io("reopen", Op::Open, e))?;
        if self.unnamed {
            self.store.sync_names().map_err(|e| self.io("sync the name of", Op::Sync, e))?;
            self.unnamed = false;
        }
        let standing = self.store.standing().map_err(|e| self.io("look at", Op::Open, e))?;
        let (expected, found) = (self.head.good_bytes, standing.bytes);
        if !standing.in_place {
            return Err(LedgerError::Replaced { path: self.path.clone() });
        }
        if found < expected {
            return Err(LedgerError::Resized { path: self.path.clone(), expected, found });
        }
        self.store.truncate(expected).map_err(|e| self.io("truncate", Op::Write, e))?;
        let mut last = vec![0; usize::try_from(self.head.last_bytes).unwrap_or(0)];
        let offset = expected.saturating_sub(self.head.last_bytes);
        self.store.read_at(offset, &mut last).map_err(|e| self.io("read back", Op::Open, e))?;
        let line = last.strip_suffix(b"\n");
        if self.head.last_bytes > 0 && line.map(digest::chain).as_ref() != Some(&self.head.prev) {
            return Err(LedgerError::TailLost { path: self.path.clone(), offset: expected });
        }
        self.suspect = false;
        self.modified_ns = None;
        Ok(())
    }

    fn io(&self, doing: &'static str, op: Op, source: io::Error) -> LedgerError {
        LedgerError::Io { doing, path: self.path.clone(), op, source }
    }
}

struct Group {
    bytes: Vec<u8>,
    written: Vec<Written>,
    head: Head,
}
