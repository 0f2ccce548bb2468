//! Coming back: what an earlier agent's ledger left open is known, and looked for.

use super::{
    Model, When,
    file::{File, State},
    thing::Thing,
    vm::Interval,
};
use crate::{
    clock::Instant2,
    ledger::{Draft, Kind, OpenStorage, StoredFile, Subject, TimeQuality},
    storage::{FileId, Place, Pool},
};

impl Model {
    /// Goes on with the intervals that are open. Those of an earlier boot end with it; what of them is still there when
    /// it is looked for has been there since this boot began.
    pub fn resume(&mut self, open: Vec<OpenStorage>, pools: &[Pool], now: Instant2) {
        for storage in open {
            self.resume_whose(&storage);
            let seen = Instant2 { boot_ns: storage.last_seen_mono_ns, unix_ns: storage.last_seen_at };
            if storage.boot_id == self.boot_id {
                self.known(storage, pools, seen);
            } else {
                self.reboot(storage, pools, seen, now);
            }
        }
    }

    fn reboot(&mut self, storage: OpenStorage, pools: &[Pool], seen: Instant2, now: Instant2) {
        let Subject::Storage(subject) = &storage.subject else { return };
        let booted = Instant2 { boot_ns: 0, unix_ns: now.unix_of(0) };
        for file in &storage.files {
            let Ok(id) = file.file.parse::<FileId>() else { continue };
            let known = self.seed(id, file, pools, booted, When::Exact(booted));
            if storage.kind == Kind::VmStorageStart {
                known.owners.insert(subject.clone());
                known.writers.insert(subject.clone());
            }
        }
        self.out.push(rebooted(storage, seen, now));
    }

    fn known(&mut self, storage: OpenStorage, pools: &[Pool], seen: Instant2) {
        let Subject::Storage(subject) = &storage.subject else { return };
        let started = Instant2 { boot_ns: storage.started_mono_ns, unix_ns: storage.started_at };
        let bytes = Some(storage.shape.storage_bytes).filter(|bytes| *bytes > 0);
        for file in &storage.files {
            let Ok(id) = file.file.parse::<FileId>() else { continue };
            let known = self.seed(id, file, pools, seen, When::Exact(started));
            if storage.kind == Kind::VmStorageStart {
                known.owners.insert(subject.clone());
                known.writers.insert(subject.clone());
                let vm = self.vms.entry(subject.clone()).or_default();
                vm.told.insert(id, file.clone());
            } else {
                known.interval = Some(Thing {
                    vm_id: storage.vm_id.clone(),
                    snapshot_id: storage.snapshot_id.clone(),
                    source_snapshot_id: storage.source_snapshot_id.clone(),
                    path: file.path.clone(),
                    bytes: file.bytes,
                    last: seen,
                });
            }
        }
        if storage.kind == Kind::VmStorageStart {
            let vm = self.vms.entry(subject.clone()).or_default();
            vm.about.hypervisor.clone_from(&storage.hypervisor);
            vm.about.name.clone_from(&storage.name);
            vm.about.uuid.clone_from(&storage.uuid);
            let source_snapshot_id = storage.source_snapshot_id.clone();
            vm.interval = Some(Interval { bytes, last: seen, source_snapshot_id });
            // A line has no room for all files of a VM with very many: then the sum stands until its process is asked.
            vm.blind = vm.sum() != bytes;
        }
    }

    fn seed(&mut self, id: FileId, file: &StoredFile, pools: &[Pool], seen: Instant2, begun: When) -> &mut File {
        let pool = pools.iter().position(|pool| pool.holds(&file.path));
        let place = pool.map_or(Place::Loose, Place::Pool);
        let new = || File::new(file.path.clone(), place, State::Unjudged, seen, begun);
        let known = self.files.entry(id).or_insert_with(new);
        // What its name said then: another one by now is a change, whoever held it.
        known.name = pool.and_then(|number| pools.get(number)?.name_of(&file.path));
        (known.capacity, known.told) = (file.bytes, file.bytes);
        known.allocated = file.bytes.unwrap_or(0);
        known
    }
}

/// The stop of an interval of an earlier boot: at its last sign, as ever what bills less.
fn rebooted(storage: OpenStorage, seen: Instant2, now: Instant2) -> Draft {
    let kind = if storage.kind == Kind::VmStorageStart { Kind::VmStorageStop } else { Kind::SnapStorageStop };
    let mut draft = Draft::new(kind, storage.subject, &storage.boot_id, seen.unix_ns, seen.boot_ns);
    draft.vm_id = storage.vm_id;
    draft.snapshot_id = storage.snapshot_id;
    draft.source_snapshot_id = storage.source_snapshot_id;
    draft.hypervisor = storage.hypervisor;
    draft.name = storage.name;
    draft.uuid = storage.uuid;
    draft.shape = storage.shape;
    draft.files = storage.files;
    draft.time_quality = TimeQuality::Bounded { not_before: seen.unix_ns, not_after: now.unix_ns.max(seen.unix_ns) };
    draft.cause = "host-reboot".to_owned();
    draft
}
