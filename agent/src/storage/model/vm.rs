//! A VM's storage: the files that are its, one interval for all of them together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Disk, Holder, Model, When,
    file::{File, State},
    line::{Bills, about, named, reason},
};
use crate::{
    clock::Instant2,
    ledger::{Kind, Reason, StoredFile},
    storage::{FileId, Place},
};

/// What has happened to one file of a VM.
#[derive(Clone, Debug)]
struct Change {
    when: When,
    id: FileId,
    is: Is,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Is {
    /// It is the VM's from then on, so large.
    Joined(StoredFile),
    /// It has another size or path.
    Changed(StoredFile),
    /// It is not any more, and why.
    Left(&'static str),
}

/// What lines of an open interval told.
#[derive(Clone, Debug)]
pub(super) struct Interval {
    pub(super) bytes: Option<u64>,
    pub(super) last: Instant2,
    pub(super) source_snapshot_id: String,
}

/// The storage of one VM.
#[derive(Debug, Default)]
pub(super) struct VmStore {
    pub(super) about: Holder,
    running: bool,
    /// Not all of its disks could be told.
    pub(super) blind: bool,
    /// What its process holds by the newest list.
    held: BTreeSet<FileId>,
    /// When that was made.
    listed: Option<Instant2>,
    /// Its files as lines tell them.
    pub(super) told: BTreeMap<FileId, StoredFile>,
    changes: Vec<Change>,
    pub(super) interval: Option<Interval>,
}

impl VmStore {
    pub(super) const fn is_open(&self) -> bool {
        self.interval.is_some()
    }

    /// Open, but nothing to look for is known.
    pub(super) fn is_lost(&self) -> bool {
        self.is_open() && self.told.is_empty() && !self.running
    }

    pub(super) fn told_bytes(&self) -> Option<u64> {
        self.interval.as_ref()?.bytes
    }

    /// The sum over its files; `None` where a part is not known.
    pub(super) fn sum(&self) -> Option<u64> {
        self.told.values().map(|file| file.bytes).sum()
    }
}

impl Change {
    /// The instant that a line about this alone would tell.
    const fn order(&self) -> u64 {
        match (self.when, &self.is) {
            (When::Between { from, .. }, Is::Left(_)) => from.boot_ns,
            (when, _) => when.order(),
        }
    }
}

fn stored(id: &FileId, file: &File) -> StoredFile {
    StoredFile { file: id.to_string(), path: file.path.clone(), bytes: file.told }
}

impl Model {
    /// A file is a VM's from then on.
    pub(super) fn join(&mut self, vm_id: &str, id: FileId, when: When) {
        let Some(file) = self.files.get_mut(&id) else { return };
        file.owners.insert(vm_id.to_owned());
        // Sizes of what is in no pool, and first ones, are told as they are.
        file.told = file.told.or(file.size());
        let told = stored(&id, file);
        let vm = self.vms.entry(vm_id.to_owned()).or_default();
        if vm.told.contains_key(&id) && vm.changes.iter().all(|change| change.id != id) {
            return;
        }
        vm.changes.push(Change { when, id, is: Is::Joined(told) });
    }

    /// A file is a VM's no more.
    pub(super) fn leave(&mut self, vm_id: &str, id: &FileId, when: When, why: &'static str) {
        if let Some(file) = self.files.get_mut(id) {
            file.owners.remove(vm_id);
            file.begun = when;
        }
        if let Some(vm) = self.vms.get_mut(vm_id) {
            vm.changes.push(Change { when, id: *id, is: Is::Left(why) });
        }
    }

    /// A VM's file has another size.
    pub(super) fn resized(&mut self, vm_id: &str, id: FileId, when: When) {
        let (Some(file), Some(vm)) = (self.files.get(&id), self.vms.get_mut(vm_id)) else { return };
        vm.changes.push(Change { when, id, is: Is::Changed(stored(&id, file)) });
    }

    /// Takes a list, made at `at`, of what a running VM's process holds; `since`: the start of that process. A list that
    /// is not whole (`blind`) takes nothing away.
    pub fn hold(&mut self, vm_id: &str, holder: Holder, disks: &[Disk], blind: bool, since: Instant2, at: Instant2) {
        let vm = self.vms.entry(vm_id.to_owned()).or_default();
        let from = vm.listed.unwrap_or(since);
        (vm.about, vm.running, vm.listed) = (holder, true, Some(at));
        vm.blind = blind;
        let mut left: BTreeSet<FileId> = std::mem::take(&mut vm.held);
        let when = When::Between { from, to: at };
        for disk in disks {
            left.remove(&disk.id);
            self.held(vm_id, disk, when, at);
        }
        let held: BTreeSet<FileId> = disks.iter().map(|disk| disk.id).collect();
        if blind {
            if let Some(vm) = self.vms.get_mut(vm_id) {
                vm.held = held.union(&left).copied().collect();
            }
            return;
        }
        // Also what an earlier life, or the ledger, says is its, and it does not hold.
        let owned = self.files.iter().filter(|(_, file)| file.owners.contains(vm_id)).map(|(id, _)| *id);
        left.extend(owned.filter(|id| !held.contains(id)));
        if let Some(vm) = self.vms.get_mut(vm_id) {
            vm.held = held;
        }
        for id in left {
            self.let_loose(vm_id, &id, when);
        }
    }

    fn held(&mut self, vm_id: &str, disk: &Disk, when: When, at: Instant2) {
        if !self.files.contains_key(&disk.id) {
            if !disk.is_disk {
                return;
            }
            if self.files.len() >= super::MAX_FILES {
                self.beyond += 1;
                return;
            }
            self.files.insert(disk.id, File::new(disk.path.clone(), Place::Loose, State::There, at, when));
        }
        let Some(file) = self.files.get_mut(&disk.id) else { return };
        file.holders.insert(vm_id.to_owned());
        file.via = Some(disk.via.clone());
        file.writable |= disk.writable;
        if file.gone.is_some_and(|gone| gone.order() < at.boot_ns) {
            (file.gone, file.state) = (None, State::Nameless);
        }
        let unjudged = matches!(file.state, State::Unjudged | State::Unknown(_));
        let known_here = unjudged && file.owners.contains(vm_id);
        // Held is there, whoever could not look.
        if unjudged {
            file.state = State::Nameless;
        }
        if file.seen.boot_ns < at.boot_ns && (file.place == Place::Loose || file.state != State::There) {
            (file.earlier, file.seen) = (file.seen, at);
        }
        let grew = file.place == Place::Loose && disk.is_disk && disk.bytes.is_some() && file.capacity != disk.bytes;
        if grew {
            (file.capacity, file.told) = (disk.bytes, disk.bytes);
        }
        let renamed = file.place == Place::Loose && file.path != disk.path;
        if renamed {
            disk.path.clone_into(&mut file.path);
        }
        if !disk.is_disk || file.is_kept_from(vm_id, disk.writable) {
            return;
        }
        if !file.owners.contains(vm_id) {
            return self.claim(vm_id, disk, when);
        }
        if known_here {
            let begun = file.begun;
            self.join(vm_id, disk.id, begun);
        } else if grew || renamed {
            self.resized(vm_id, disk.id, when);
        }
    }

    /// A file becomes the storage of the VM that holds it; who only had it before, and may write it no more, has not.
    fn claim(&mut self, vm_id: &str, disk: &Disk, when: When) {
        let Some(file) = self.files.get(&disk.id) else { return };
        let others = file.owners.difference(&file.holders).cloned().collect::<Vec<_>>();
        if disk.writable {
            for other in others {
                self.leave(&other, &disk.id, when, "taken-over");
            }
        }
        self.join(vm_id, disk.id, when);
    }

    /// A VM does not hold a file any more.
    fn let_loose(&mut self, vm_id: &str, id: &FileId, when: When) {
        let Some(file) = self.files.get_mut(id) else { return };
        file.holders.remove(vm_id);
        if file.holders.is_empty() {
            file.via = None;
        }
        // What is gone ends as that.
        if file.gone.is_none() && file.owners.contains(vm_id) && file.named_vm() != Some(vm_id) {
            self.leave(vm_id, id, when, "detached");
            self.give_back(id, when);
        }
    }

    /// What nobody owns any more is again whose its name says.
    fn give_back(&mut self, id: &FileId, when: When) {
        let Some(file) = self.files.get(id).filter(|file| file.owners.is_empty()) else { return };
        if let Some(named) = file.named_vm().map(str::to_owned) {
            self.join(&named, *id, when);
        }
    }

    /// A VM's process has ended: its disks stay its own, as far as it could write them.
    pub fn stopped(&mut self, vm_id: &str, at: Instant2) {
        let Some(vm) = self.vms.get_mut(vm_id) else { return };
        (vm.running, vm.listed) = (false, None);
        for id in std::mem::take(&mut vm.held) {
            let Some(file) = self.files.get_mut(&id) else { continue };
            file.holders.remove(vm_id);
            if file.holders.is_empty() {
                file.via = None;
            }
            if file.gone.is_none() && !file.writable && file.named_vm() != Some(vm_id) && file.owners.contains(vm_id) {
                self.leave(vm_id, &id, When::Exact(at), "detached");
                self.give_back(&id, When::Exact(at));
            }
        }
    }

    /// Makes the lines of all VMs.
    pub(super) fn settle_vms(&mut self) {
        let ids: Vec<String> =
            self.vms.iter().filter(|(_, vm)| vm.has_news()).map(|(vm_id, _)| vm_id.clone()).collect();
        for vm_id in ids {
            self.settle_vm(&vm_id);
        }
        self.vms.retain(|_, vm| vm.running || vm.is_open());
    }

    fn settle_vm(&mut self, vm_id: &str) {
        let Some(mut vm) = self.vms.remove(vm_id) else { return };
        let mut changes = std::mem::take(&mut vm.changes);
        changes.sort_by_key(Change::order);
        let mut changes = changes.into_iter().peekable();
        while let Some(first) = changes.next() {
            let (when, before) = (first.when, vm.told.clone());
            let mut why = "";
            let mut next = Some(first);
            // What happened at one instant is one line.
            while let Some(change) = next {
                why = vm.apply(change).unwrap_or(why);
                next = changes.next_if(|change| change.when == when);
            }
            if vm.told != before {
                self.tell_vm(vm_id, &mut vm, when, why);
            }
        }
        if let (Some(open), Some(to)) = (&vm.interval, vm.listed.filter(|_| !vm.is_right())) {
            // Its sum is known now.
            let when = When::Between { from: open.last, to };
            self.tell_vm(vm_id, &mut vm, when, "");
        }
        self.vms.insert(vm_id.to_owned(), vm);
    }

    fn tell_vm(&mut self, vm_id: &str, vm: &mut VmStore, when: When, why: &str) {
        let open = vm.interval.clone();
        let bytes = if vm.blind { open.as_ref().and_then(|open| open.bytes) } else { vm.sum() };
        let (kind, bills) = match &open {
            None if vm.told.is_empty() => return,
            None => (Kind::VmStorageStart, Bills::Later),
            Some(_) if vm.told.is_empty() => (Kind::VmStorageStop, Bills::Earlier),
            Some(open) if bytes > open.bytes => (Kind::VmStorageResize, Bills::Later),
            Some(_) => (Kind::VmStorageResize, Bills::Earlier),
        };
        let when = when.told(bills, open.as_ref().map(|open| open.last));
        let mut draft = about(self.draft(kind, vm_id, when), vm_id, vm, kind != Kind::VmStorageResize);
        let backing = vm.told.keys().find_map(|id| self.files.get(id)?.backing.as_deref());
        let source = open.as_ref().map(|open| open.source_snapshot_id.clone()).filter(|source| !source.is_empty());
        let source_snapshot_id = source.unwrap_or_else(|| self.source_of(backing));
        draft.source_snapshot_id.clone_from(&source_snapshot_id);
        draft.files = named(vm.told.values());
        // A stop tells what it was.
        draft.shape.storage_bytes =
            if vm.told.is_empty() { open.and_then(|open| open.bytes) } else { bytes }.unwrap_or(0);
        if kind == Kind::VmStorageStop {
            draft.reason = reason(why, Reason::VmRm);
        }
        why.clone_into(&mut draft.cause);
        vm.interval = (kind != Kind::VmStorageStop).then_some(Interval { bytes, last: when.0, source_snapshot_id });
        self.out.push(draft);
    }
}

impl VmStore {
    /// Whether the open interval's newest line tells what is known.
    fn is_right(&self) -> bool {
        self.interval.as_ref().is_none_or(|open| self.blind || open.bytes == self.sum())
    }

    fn has_news(&self) -> bool {
        !self.changes.is_empty() || (self.running && !self.is_right())
    }

    /// Takes one change over; says why, if a file left.
    fn apply(&mut self, change: Change) -> Option<&'static str> {
        match change.is {
            Is::Joined(file) => {
                self.told.insert(change.id, file);
                None
            }
            Is::Changed(file) => {
                if let Some(known) = self.told.get_mut(&change.id) {
                    *known = file;
                }
                None
            }
            Is::Left(why) => self.told.remove(&change.id).map(|_| why),
        }
    }
}

impl File {
    /// A file that a pool's name gives to nobody, to another or to a snapshot, and that this VM only reads, is not its.
    fn is_kept_from(&self, vm_id: &str, writes: bool) -> bool {
        let Some(name) = &self.name else { return self.interval.is_some() && self.owners.is_empty() };
        let others = self.named_vm().is_none_or(|named| named != vm_id);
        name.is == crate::storage::Use::Snapshot || (others && !writes)
    }
}
