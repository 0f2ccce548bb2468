//! Snapshots, and images of no VM: one interval each, under the file's own id.

use super::{
    Model, When,
    line::{Bills, reason},
};
use crate::{
    clock::Instant2,
    ledger::{Draft, Kind, Reason, StoredFile, TimeQuality},
    storage::FileId,
};

/// What an open interval's lines have told.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) vm_id: String,
    pub(super) snapshot_id: String,
    pub(super) source_snapshot_id: String,
    pub(super) path: String,
    pub(super) bytes: Option<u64>,
    pub(super) last: Instant2,
}

impl Model {
    fn about_thing(&self, kind: Kind, id: &FileId, thing: &Thing, when: (Instant2, TimeQuality)) -> Draft {
        let mut draft = self.draft(kind, &id.to_string(), when);
        draft.vm_id.clone_from(&thing.vm_id);
        draft.snapshot_id.clone_from(&thing.snapshot_id);
        draft.source_snapshot_id.clone_from(&thing.source_snapshot_id);
        draft.shape.storage_bytes = thing.bytes.unwrap_or(0);
        draft.files = vec![StoredFile { file: id.to_string(), path: thing.path.clone(), bytes: thing.bytes }];
        draft
    }

    /// Ends the interval of a file that is told by itself, if it has one.
    pub(super) fn end_thing(&mut self, id: &FileId, when: When, cause: &str) {
        let Some(thing) = self.files.get_mut(id).and_then(|file| file.interval.take()) else { return };
        let when = when.told(Bills::Earlier, Some(thing.last));
        let mut draft = self.about_thing(Kind::SnapStorageStop, id, &thing, when);
        draft.reason = reason(cause, Reason::SnapRm);
        cause.clone_into(&mut draft.cause);
        self.out.push(draft);
    }

    /// Begins, changes and ends intervals as files have come to be.
    pub(super) fn settle_things(&mut self) {
        let ids: Vec<FileId> = self
            .files
            .iter()
            .filter(|(_, file)| file.is_certain() && (file.is_thing() || file.interval.is_some()))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.settle_thing(&id);
        }
    }

    fn settle_thing(&mut self, id: &FileId) {
        let Some(file) = self.files.get(id) else { return };
        let now = When::Between { from: file.seen, to: file.seen };
        let is_thing = file.is_thing();
        let (vm_id, snapshot_id) = match &file.name {
            Some(name) => (name.vm_id.clone(), name.snapshot_id.clone()),
            None => file.interval.as_ref().map(|t| (t.vm_id.clone(), t.snapshot_id.clone())).unwrap_or_default(),
        };
        let (path, bytes) = (file.path.clone(), file.told);
        let Some(told) = file.interval.clone() else {
            let source = self.source_of(file.backing.as_deref());
            return self.begin_thing(
                id,
                Thing { vm_id, snapshot_id, source_snapshot_id: source, path, bytes, last: self.since },
            );
        };
        if !is_thing || (&told.vm_id, &told.snapshot_id) != (&vm_id, &snapshot_id) {
            // The same file is something else from now on.
            self.end_thing(id, now, if is_thing { "moved" } else { "taken-over" });
            if is_thing {
                if let Some(file) = self.files.get_mut(id) {
                    file.begun = now;
                }
                let source = told.source_snapshot_id;
                self.begin_thing(
                    id,
                    Thing { vm_id, snapshot_id, source_snapshot_id: source, path, bytes, last: self.since },
                );
            }
            return;
        }
        if (told.path.as_str(), told.bytes) != (path.as_str(), bytes) {
            let bills = if bytes > told.bytes { Bills::Later } else { Bills::Earlier };
            let when = When::Between { from: file.earlier, to: file.seen }.told(bills, Some(told.last));
            let thing = Thing { path, bytes, last: when.0, ..told };
            let draft = self.about_thing(Kind::SnapStorageResize, id, &thing, when);
            self.out.push(draft);
            if let Some(file) = self.files.get_mut(id) {
                file.interval = Some(thing);
            }
        }
    }

    fn begin_thing(&mut self, id: &FileId, mut thing: Thing) {
        let Some(file) = self.files.get(id) else { return };
        let when = file.begun.told(Bills::Later, None);
        thing.last = when.0;
        let draft = self.about_thing(Kind::SnapStorageStart, id, &thing, when);
        self.out.push(draft);
        if let Some(file) = self.files.get_mut(id) {
            file.interval = Some(thing);
        }
    }
}
