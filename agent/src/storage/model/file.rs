//! One file: where it is, whose it is, and what was last known of it.

use std::collections::BTreeSet;

use super::{MAX_FILES, Model, When, thing::Thing};
use crate::{
    clock::Instant2,
    storage::{FileId, FileState, Found, Name, Place, Use},
};

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The ledger names it; nobody has looked yet.
    Unjudged,
    /// It has its name.
    There,
    /// It has none any more, but the kernel keeps it.
    Nameless,
    /// It cannot be looked at, for that reason.
    Unknown(String),
}

/// A file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) place: Place,
    pub(super) name: Option<Name>,
    pub(super) capacity: Option<u64>,
    pub(super) allocated: u64,
    pub(super) backing: Option<String>,
    /// Its size at the look before: one that is the same again has come to rest.
    rested: Option<u64>,
    /// Its size as lines tell it.
    pub(super) told: Option<u64>,
    pub(super) state: State,
    /// It is gone, unless somebody holds it.
    pub(super) gone: Option<When>,
    /// When it was last known to be there.
    pub(super) seen: Instant2,
    /// And the time before that.
    pub(super) earlier: Instant2,
    /// Since when it is.
    pub(super) begun: When,
    /// The VMs whose storage it is.
    pub(super) owners: BTreeSet<String>,
    /// The running VMs that hold it.
    pub(super) holders: BTreeSet<String>,
    /// Those of them, and of its owners, that may write it, or could when they ran.
    pub(super) writers: BTreeSet<String>,
    pub(super) via: Option<String>,
    pub(super) interval: Option<Thing>,
}

impl File {
    pub(super) fn new(path: String, place: Place, state: State, seen: Instant2, begun: When) -> Self {
        Self {
            path,
            place,
            name: None,
            capacity: None,
            allocated: 0,
            backing: None,
            rested: None,
            told: None,
            state,
            gone: None,
            seen,
            earlier: seen,
            begun,
            owners: BTreeSet::new(),
            holders: BTreeSet::new(),
            writers: BTreeSet::new(),
            via: None,
            interval: None,
        }
    }

    pub(super) fn is_snapshot(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.is == Use::Snapshot)
    }

    /// Told by itself: a snapshot, or an image that is no VM's.
    pub(super) fn is_thing(&self) -> bool {
        match &self.name {
            Some(name) => name.is == Use::Snapshot || (name.vm_id.is_empty() && self.owners.is_empty()),
            None => self.interval.is_some() && self.owners.is_empty(),
        }
    }

    /// The VM that its name says, of an image.
    pub(super) fn named_vm(&self) -> Option<&str> {
        let name = self.name.as_ref()?;
        (name.is == Use::Image && !name.vm_id.is_empty()).then_some(name.vm_id.as_str())
    }

    /// Bytes to bill: what a snapshot takes, what a disk offers.
    pub(super) fn size(&self) -> Option<u64> {
        if self.is_thing() { Some(self.allocated) } else { self.capacity }
    }

    /// Whether it exists, as far as is known.
    pub(super) const fn is_certain(&self) -> bool {
        matches!(self.state, State::There | State::Nameless)
    }

    /// It is told by itself from now on, or no more: another measure.
    pub(super) fn remeasure(&mut self, was_thing: bool) {
        if self.is_thing() != was_thing {
            self.told = self.size();
        }
    }

    /// Takes over its size for the lines where it moved by a step, or has come to rest. True if that is another.
    fn tell_size(&mut self, step: u64) -> bool {
        let size = self.size();
        let rests = self.rested == size;
        self.rested = size;
        let told = match (self.told, size) {
            (Some(told), Some(size)) => told.abs_diff(size) >= step || rests,
            // A size that cannot be read for once is what it was.
            (_, size) => size.is_some(),
        };
        let changes = told && self.told != size;
        if changes {
            self.told = size;
        }
        changes
    }
}

impl Model {
    /// Takes one file of a look that began at `at`, after one at `before`.
    pub(super) fn take(&mut self, place: Place, found: Found, before: Instant2, at: Instant2) {
        match found.state.clone() {
            FileState::There => self.there(place, found, State::There, before, at),
            FileState::Nameless => self.there(place, found, State::Nameless, before, at),
            FileState::Freed(freed) => self.gone(&found.id, When::Exact(freed)),
            FileState::Gone { by_unix_ns } => {
                let Some(file) = self.files.get(&found.id) else { return };
                let by = if (file.seen.unix_ns..at.unix_ns).contains(&by_unix_ns) {
                    Instant2 { boot_ns: at.boot_of(by_unix_ns), unix_ns: by_unix_ns }
                } else {
                    at
                };
                let when = When::Between { from: file.seen, to: by };
                self.gone(&found.id, when);
            }
            FileState::Unknown(why) => {
                if let Some(file) = self.files.get_mut(&found.id) {
                    file.state = State::Unknown(why);
                }
            }
        }
    }

    fn gone(&mut self, id: &FileId, when: When) {
        if let Some(file) = self.files.get_mut(id) {
            // What is certain stands against what a look supposes.
            if !matches!(file.gone, Some(When::Exact(_))) {
                file.gone = Some(when);
            }
        }
    }

    fn there(&mut self, place: Place, found: Found, state: State, before: Instant2, at: Instant2) {
        let id = found.id;
        if !self.files.contains_key(&id) {
            // A file nobody asked about without a name is nobody's.
            if state == State::Nameless || place == Place::Loose {
                return;
            }
            if self.files.len() >= MAX_FILES {
                self.beyond += 1;
                return;
            }
            let begun = begun(&id, before, at);
            self.files.insert(id, File::new(found.path.clone(), place, State::Unjudged, at, begun));
        }
        let step = match place {
            Place::Pool(number) => self.steps.get(number).copied().unwrap_or(1),
            Place::Loose => 1,
        };
        let Some(file) = self.files.get_mut(&id) else { return };
        let news = file.state == State::Unjudged;
        (file.state, file.earlier, file.seen, file.gone) = (state, file.seen, at, None);
        // What a pool finds is the pool's.
        if matches!(place, Place::Pool(_)) {
            file.place = place;
        }
        if file.state == State::There {
            file.path = found.path;
        }
        file.backing = found.backing.or(file.backing.take());
        file.allocated = found.allocated_bytes;
        if place == Place::Loose {
            // How a disk's bytes are to be read, only its VM knows.
            return self.join_owners(&id, news);
        }
        file.capacity = found.capacity_bytes;
        if file.state == State::There && file.name != found.name {
            self.rename(&id, found.name, When::Between { from: before, to: at });
        }
        self.join_owners(&id, news);
        let Some(file) = self.files.get_mut(&id) else { return };
        if file.tell_size(step) && !news {
            let owners: Vec<String> = file.owners.iter().cloned().collect();
            for owner in owners {
                self.resized(&owner, id, When::Between { from: before, to: at });
            }
        }
    }

    /// A file of a pool has another name, or its first.
    fn rename(&mut self, id: &FileId, name: Option<Name>, when: When) {
        let Some(file) = self.files.get_mut(id) else { return };
        let (before, was_thing) = (file.named_vm().map(str::to_owned), file.is_thing());
        file.name = name;
        file.remeasure(was_thing);
        let now = file.named_vm().map(str::to_owned);
        let first = file.state == State::Unjudged || before.is_none();
        if file.is_snapshot() {
            // It is nobody's disk, whoever has it open.
            let owners: Vec<String> = file.owners.iter().cloned().collect();
            return owners.iter().for_each(|owner| self.leave(owner, id, when, "moved"));
        }
        if let Some(before) = before.filter(|before| Some(before) != now.as_ref() && !file.holders.contains(before)) {
            self.leave(&before, id, when, "moved");
        }
        let Some(file) = self.files.get_mut(id) else { return };
        if let Some(now) = now.filter(|_| file.owners.is_empty()) {
            let when = if first { file.begun } else { when };
            self.join(&now, *id, when);
        }
    }

    /// What a ledger of before says is somebody's, and that is there, is in the storage of that VM.
    fn join_owners(&mut self, id: &FileId, news: bool) {
        let Some(file) = self.files.get(id).filter(|_| news) else { return };
        let (owners, begun): (Vec<String>, _) = (file.owners.iter().cloned().collect(), file.begun);
        for owner in owners {
            self.join(&owner, *id, begun);
        }
    }

    /// Ends what is gone and in nobody's hands, and forgets what is nobody's.
    pub(super) fn let_go(&mut self) {
        let over: Vec<FileId> = self
            .files
            .iter()
            .filter(|(_, file)| file.gone.is_some() && file.holders.is_empty() && (self.settled || file.is_certain()))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            let Some(file) = self.files.get(&id) else { continue };
            let (Some(when), owners) = (file.gone, file.owners.iter().cloned().collect::<Vec<_>>()) else { continue };
            self.end_thing(&id, when, "deleted");
            for owner in owners {
                self.leave(&owner, &id, when, "deleted");
            }
            self.files.remove(&id);
        }
        self.files.retain(|_, file| {
            file.place != Place::Loose
                || !file.owners.is_empty()
                || file.interval.is_some()
                || file.state == State::Unjudged
        });
    }
}

/// Since when a file is that was not known before: its birth, if it was born after the look before; else some time
/// between the two, as it was nobody's business before or was moved here.
fn begun(id: &FileId, before: Instant2, at: Instant2) -> When {
    let born = Instant2 { boot_ns: at.boot_of(id.birth_ns), unix_ns: id.birth_ns };
    if id.birth_ns > 0 && born.unix_ns >= before.unix_ns && born.unix_ns <= at.unix_ns && born.boot_ns > 0 {
        return When::Exact(born);
    }
    When::Between { from: before, to: at }
}
