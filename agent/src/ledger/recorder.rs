//! Recorders of metered facts: whoever knows a fact emits it and goes on, whatever is behind.
//!
//! The ledger's writer is one, for a file or a stream alike; the others keep nothing ([`DiscardRecorder`]) or keep
//! everything in memory, for tests ([`MemoryRecorder`]). Who must know when a fact is durable, as the engine does, asks
//! the writer itself for a ticket.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Draft, Place, WriterHandle, digest, encode};

/// What a recorder takes.
pub type Entry = Draft;

/// Takes facts from any thread, never waits and never fails: what it cannot keep it counts.
pub trait Recorder: Send + Sync {
    /// Takes a fact.
    fn emit(&self, entry: Entry);
}

impl<T: Recorder + ?Sized> Recorder for Arc<T> {
    fn emit(&self, entry: Entry) {
        (**self).emit(entry);
    }
}

impl Recorder for WriterHandle {
    /// A full spool refuses it, which the writer's statistics count.
    fn emit(&self, entry: Entry) {
        let kind = entry.kind;
        if let Err(refused) = self.submit(vec![entry]) {
            tracing::error!(%kind, why = ?refused.why, "the ledger does not take a fact");
        }
    }
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiscardRecorder;

impl Recorder for DiscardRecorder {
    fn emit(&self, _: Entry) {}
}

/// Keeps everything in memory, without a bound: for tests. Clones share what they keep.
#[derive(Clone, Debug, Default)]
pub struct MemoryRecorder(Arc<Mutex<Vec<Entry>>>);

impl MemoryRecorder {
    /// What was emitted so far, in order.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.held().clone()
    }

    /// Forgets it.
    pub fn reset(&self) {
        self.held().clear();
    }

    fn held(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for MemoryRecorder {
    fn emit(&self, entry: Entry) {
        self.held().push(entry);
    }
}

/// The keys that only a ledger can assign.
const ASSIGNED: [&str; 7] = ["ledger", "seq", "id", "host", "recorded_at", "prev", "sum"];

impl Draft {
    /// Writes the fact as one JSON line, with the ledger's keys in the ledger's order, but for those that a ledger
    /// assigns.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_to(&self, to: &mut impl Write) -> io::Result<()> {
        let place = Place { ledger: "", host: "", seq: 0, ordinal: 0, prev: digest::NO_PREV, recorded_at: 0 };
        let line = encode(self, &place).map_err(io::Error::other)?;
        let mut keys: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&line.bytes)?;
        ASSIGNED.iter().for_each(|key| _ = keys.shift_remove(*key));
        let mut text = serde_json::to_vec(&keys)?;
        text.push(b'\n');
        to.write_all(&text)
    }
}
