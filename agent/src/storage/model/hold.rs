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
            self.release(vm_id, &id, false, when);
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
        if disk.writable {
            file.writers.insert(vm_id.to_owned());
        }
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
        let (owns, begun) = (file.owners.contains(vm_id), file.begun);
        if disk.writable {
            self.evict(&disk.id, vm_id, when);
        }
        if !owns {
            return self.join(vm_id, disk.id, when);
        }
        if known_here {
            self.join(vm_id, disk.id, begun);
        } else if grew || renamed {
            self.resized(vm_id, disk.id, when);
        }
    }

    /// A VM writes a file: who only had it before has it no more.
    fn evict(&mut self, id: &FileId, vm_id: &str, when: When) {
        let Some(file) = self.files.get(id) else { return };
        let idle = file.owners.difference(&file.holders).filter(|owner| *owner != vm_id);
        for other in idle.cloned().collect::<Vec<_>>() {
            self.leave(&other, id, when, "taken-over");
        }
    }

    /// A VM does not hold a file any more. It stays its own where `keeps`, if it could write it, or by its name, if nobody
    /// else wrote it last; but not if somebody writes it now.
    fn release(&mut self, vm_id: &str, id: &FileId, keeps: bool, when: When) {
        let Some(file) = self.files.get_mut(id) else { return };
        file.holders.remove(vm_id);
        if file.holders.is_empty() {
            file.via = None;
        }
        // What is gone ends as that.
        if file.gone.is_some() || !file.owners.contains(vm_id) {
            return;
        }
        let taken = file.holders.iter().any(|holder| file.writers.contains(holder));
        let alone = file.owners.len() == 1;
        let kept = (keeps && file.writers.contains(vm_id)) || (alone && file.named_vm() == Some(vm_id));
        if taken || !kept {
            self.leave(vm_id, id, when, if taken { "taken-over" } else { "detached" });
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
            self.release(vm_id, &id, true, When::Exact(at));
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
