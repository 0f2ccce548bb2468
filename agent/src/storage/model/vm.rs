//! A VM's storage: the files that are its, one interval for all of them together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Holder, Model, When,
    file::File,
    line::{Bills, about, named, reason},
};
use crate::{
    clock::Instant2,
    ledger::{Kind, Reason, StoredFile},
    storage::FileId,
};

/// How long the end of a VM's storage is remembered: longer than any place goes without a look.
const KEPT_NS: u64 = 3_700_000_000_000;

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
    pub(super) running: bool,
    /// Not all of its disks could be told.
    pub(super) blind: bool,
    /// What its process holds by the newest list.
    pub(super) held: BTreeSet<FileId>,
    /// When that was made.
    pub(super) listed: Option<Instant2>,
    /// Its files as lines tell them.
    pub(super) told: BTreeMap<FileId, StoredFile>,
    changes: Vec<Change>,
    pub(super) interval: Option<Interval>,
    /// Where its last interval ended: the next begins no sooner.
    ended: Option<Instant2>,
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
        let was_thing = file.is_thing();
        file.owners.insert(vm_id.to_owned());
        file.remeasure(was_thing);
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
            let was_thing = file.is_thing();
            file.owners.remove(vm_id);
            file.writers.remove(vm_id);
            file.remeasure(was_thing);
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

    /// Makes the lines of all VMs.
    pub(super) fn settle_vms(&mut self) {
        let ids: Vec<String> =
            self.vms.iter().filter(|(_, vm)| vm.has_news()).map(|(vm_id, _)| vm_id.clone()).collect();
        for vm_id in ids {
            self.settle_vm(&vm_id);
        }
        let newest = self.looked.values().map(|at| at.boot_ns).max().unwrap_or(0);
        let lately = |vm: &VmStore| vm.ended.is_some_and(|at| at.boot_ns.saturating_add(KEPT_NS) > newest);
        self.vms.retain(|_, vm| vm.running || vm.is_open() || lately(vm));
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
        let when = when.told(bills, open.as_ref().map(|open| open.last).or(vm.ended));
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
        vm.ended = Some(when.0).filter(|_| kind == Kind::VmStorageStop);
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
