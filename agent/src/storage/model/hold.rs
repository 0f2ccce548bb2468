//! What running VMs hold, and what stays theirs when they stop.

use std::collections::BTreeSet;

use super::{
    Disk, Holder, Model, When,
    file::{File, State},
};
use crate::{
    clock::Instant2,
    storage::{FileId, Place, Use},
};

impl Model {
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
}

impl File {
    /// A file that a pool's name gives to nobody, to another or to a snapshot, and that this VM only reads, is not its.
    fn is_kept_from(&self, vm_id: &str, writes: bool) -> bool {
        let Some(name) = &self.name else { return self.interval.is_some() && self.owners.is_empty() };
        let others = self.named_vm().is_none_or(|named| named != vm_id);
        name.is == Use::Snapshot || (others && !writes)
    }
}
