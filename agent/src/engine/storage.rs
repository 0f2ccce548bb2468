//! What is stored for VMs: carries looks, lists of disks and ends of VMs to the model, and its lines to the ledger. The
//! files are looked at by threads of their own, one a pool and one for all that is in none.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::EventFd;

use super::Engine;
use crate::{
    clock::Instant2,
    host::{
        disk::image::{Disks, Role},
        store::Looker,
    },
    ledger::{Draft, OpenStorage},
    storage::{
        Disk, Holder, Model, Place, Pool, names_whose,
        tally::{PlaceTally, Tally},
    },
    vm::{Owner, Vm},
};

/// Between two looks at files outside of pools.
const LOOSE: Duration = Duration::from_secs(30);
/// A look may be so late before that is told, nanoseconds, beside its interval.
const LATE_NS: u64 = 10_000_000_000;
/// Files out of sight that are named, of each place.
const NAMED: usize = 5;

/// A pool, or what is outside of all.
struct Placed {
    place: Place,
    path: String,
    interval_ns: u64,
    looker: Option<Looker>,
    why_not: Option<String>,
    /// When the newest look came in, CLOCK_BOOTTIME nanoseconds; at first when it was asked for.
    came_ns: u64,
    tally: PlaceTally,
}

/// Everything about storage that the engine owns.
pub(super) struct Storage {
    model: Model,
    places: Vec<Placed>,
    pools: Vec<Pool>,
    /// Something was taken in since lines were made.
    news: bool,
    settled: bool,
    /// Files left out by bounds, as counted so far.
    beyond: u64,
}

impl Storage {
    /// Starts the threads; nothing is known yet.
    pub(super) fn start(boot_id: &str, pools: Vec<Pool>, waker: &Arc<EventFd>, now: Instant2) -> Self {
        let wanted = pools.iter().cloned().map(Some).enumerate().map(|(number, pool)| (Place::Pool(number), pool));
        let places = wanted.chain([(Place::Loose, None)]).map(|(place, pool)| {
            let interval = pool.as_ref().map_or(LOOSE, |pool| pool.interval);
            let path = pool.as_ref().map(|pool| pool.path.display().to_string()).unwrap_or_default();
            let started = Looker::start(place, pool, interval, Arc::clone(waker));
            let why_not = started.as_ref().err().map(|error| format!("no thread to look after it: {error}"));
            Placed {
                place,
                path,
                interval_ns: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
                looker: started.ok(),
                why_not,
                came_ns: now.boot_ns,
                tally: PlaceTally::default(),
            }
        });
        let places = places.collect();
        Self { model: Model::new(boot_id, &pools, now), places, pools, news: true, settled: false, beyond: 0 }
    }

    /// Takes in what was found.
    fn take_reports(&mut self, at: Instant2) {
        for placed in &mut self.places {
            let Some(looker) = &placed.looker else { continue };
            for report in looker.reports() {
                placed.came_ns = at.boot_ns;
                placed.tally.looked_at = Some(report.at.unix_ns);
                placed.tally.state = report.state.clone();
                self.model.report(report);
                self.news = true;
            }
        }
    }

    fn tally(&mut self, at: Instant2) -> Tally {
        for placed in &mut self.places {
            let overdue = at.boot_ns.saturating_sub(placed.came_ns).saturating_sub(placed.interval_ns);
            placed.tally.late_s = if overdue > LATE_NS { overdue / 1_000_000_000 } else { 0 };
            placed.tally.path.clone_from(&placed.path);
            placed.tally.why_not.clone_from(&placed.why_not);
            placed.tally.counts = self.model.counts(Some(placed.place));
            placed.tally.unknown = self.model.unknown(placed.place, NAMED);
        }
        Tally {
            places: self.places.iter().map(|placed| placed.tally.clone()).collect(),
            counts: self.model.counts(None),
            lost: self.model.lost(),
            unsettled: !self.settled,
        }
    }

    /// What bounds cost so far.
    fn left_out(&self) -> u64 {
        let places = self.places.iter().map(|placed| placed.tally.state.skipped.beyond);
        places.sum::<u64>().saturating_add(self.model.beyond())
    }
}

impl Engine {
    /// Goes on with what an earlier agent left open. Up to `since` one watched.
    pub(super) fn resume_storage(&mut self, open: Vec<OpenStorage>, since: Option<Instant2>, now: Instant2) {
        let storage = &mut self.storage;
        storage.model = Model::new(&self.boot_id, &storage.pools, since.unwrap_or(now));
        storage.model.resume(open, &storage.pools, now);
        storage.news = true;
    }

    /// A VM's disks were listed, at `at`.
    pub(super) fn hold_storage(&mut self, tgid: u32, disks: &Disks, at: Instant2) {
        let Some(vm) = self.registry.of_tgid(tgid) else { return };
        let fixed = &vm.fixed;
        let since = Instant2 { boot_ns: fixed.start_ns, unix_ns: fixed.started_at };
        let holder =
            Holder { name: fixed.name.clone(), uuid: fixed.uuid.clone(), hypervisor: fixed.hypervisor.clone() };
        let held = disks.images.iter().filter_map(|image| {
            Some(Disk {
                id: image.id?,
                path: image.path.to_string_lossy().into_owned(),
                via: image.via.to_string_lossy().into_owned(),
                bytes: image.capacity_bytes.filter(|_| image.role == Role::Disk),
                is_disk: image.role == Role::Disk,
                writable: !image.read_only,
            })
        });
        let held: Vec<Disk> = held.collect();
        let whole = Arc::clone(vm.owners.whole());
        self.storage.model.belongs(&fixed.vm_id, whole.tenant.as_deref().unwrap_or_default(), &whole.labels);
        let blind = disks.untold > 0 || disks.images.iter().any(|image| image.id.is_none());
        self.storage.model.hold(&fixed.vm_id, holder, &held, blind, since, at);
        self.storage.news = true;
    }

    /// A newcomer's disks may be known by their names.
    pub(super) fn known_storage(&self, vm: &mut Vm) {
        if let Some(bytes) = self.storage.model.bytes_of(&vm.fixed.vm_id) {
            Arc::make_mut(&mut vm.disk.usage).storage_bytes = Some(bytes);
            Arc::make_mut(&mut vm.fixed).storage_bytes = bytes;
        }
    }

    /// A VM has ended; its disks have not.
    pub(super) fn storage_stopped(&mut self, vm_id: &str, at: Instant2) {
        self.storage.model.stopped(vm_id, at);
        self.storage.news = true;
    }

    /// Once a turn: takes in what was found, makes lines of what has changed.
    pub(super) fn take_storage(&mut self, at: Instant2) {
        self.storage.take_reports(at);
        if !self.storage.settled && self.all_are_listed() {
            self.storage.model.judge();
            (self.storage.settled, self.storage.news) = (true, true);
        }
        if std::mem::take(&mut self.storage.news) {
            let mut lines = self.storage.model.settle();
            self.ask_whose(&mut lines);
            self.out.extend(lines);
            for placed in &mut self.storage.places {
                if let Some(looker) = &mut placed.looker {
                    looker.want(self.storage.model.wanted(placed.place));
                }
            }
            self.show_storage();
        }
        let left_out = self.storage.left_out();
        let more = left_out.saturating_sub(self.storage.beyond);
        self.storage.beyond = left_out.max(self.storage.beyond);
        self.count_loss("storage_files", more);
    }

    /// What is known of whose a VM is holds for what is stored for it.
    pub(super) fn storage_belongs(&mut self, vm_id: &str, owner: &Owner) {
        self.storage.model.belongs(vm_id, owner.tenant.as_deref().unwrap_or_default(), &owner.labels);
    }

    /// Of VMs that have not run here, the inventory may say whose they are.
    fn ask_whose(&mut self, lines: &mut [Draft]) {
        let unknown =
            |draft: &&mut Draft| draft.tenant.is_empty() && draft.labels.is_empty() && !draft.vm_id.is_empty();
        for draft in lines.iter_mut().filter(|draft| names_whose(draft.kind)).filter(unknown) {
            if let Some(owner) = self.inventories.of(&draft.uuid, &draft.name, &draft.vm_id) {
                draft.tenant = owner.tenant.clone().unwrap_or_default();
                draft.labels.clone_from(&owner.labels);
                self.storage.model.belongs(&draft.vm_id, &draft.tenant, &draft.labels);
            }
        }
    }

    /// Once a sample: what the views are told.
    pub(super) fn tally_storage(&mut self, at: Instant2) {
        let tally = self.storage.tally(at);
        if self.host.storage != tally {
            self.host.storage = tally;
        }
    }

    /// Whether every VM that lives has been asked what it holds.
    fn all_are_listed(&self) -> bool {
        let mut live = self.registry.live();
        live.all(|vm| vm.exiting || vm.disk.usage.disks.is_some() || vm.disk.usage.disks_why_not.is_some())
    }

    fn show_storage(&mut self) {
        for vm in self.registry.live_mut() {
            let bytes = self.storage.model.bytes_of(&vm.fixed.vm_id);
            if vm.disk.usage.storage_bytes != bytes {
                Arc::make_mut(&mut vm.disk.usage).storage_bytes = bytes;
                vm.changed = true;
            }
        }
    }
}
