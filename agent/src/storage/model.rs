//! What is stored, by what was seen of it: looks at pools and files, lists of VMs' disks, and the ledger of before go in;
//! ledger lines come out.
//!
//! * A file is one stored thing for as long as the kernel keeps it: names do not matter, and what is deleted but open is
//!   still there. What cannot be looked at is unknown, never gone.
//! * A VM's storage is the sum of its disks: what its process holds, what a pool's names say is its, and, when it has
//!   stopped, what it held last and may write. A file that a running VM writes is that VM's, whatever its name.
//! * Snapshots, and images of no VM, are each told by themselves.
//!
//! Inputs only change what is known; [`Model::settle`] makes the lines, in the order of time.

mod file;
mod hold;
mod line;
mod resume;
mod thing;
mod vm;
mod whose;

use std::collections::BTreeMap;

use super::{FileId, Place, Pool, Report};
use crate::{clock::Instant2, ledger::Draft};
use file::File;
pub use file::State;
use line::When;
use vm::VmStore;
use whose::Whose;
pub use whose::names_whose;

/// Files known at once; what is more is counted and not told.
pub const MAX_FILES: usize = 131_072;

/// A VM as lines name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its VMM's family.
    pub hypervisor: String,
}

/// A file that a VM's process holds as a disk, or as what a disk is a change to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Which.
    pub id: FileId,
    /// Where.
    pub path: String,
    /// The descriptor it is held by.
    pub via: String,
    /// Bytes the guest sees; unset if they cannot be told.
    pub bytes: Option<u64>,
    /// What the guest sees, rather than what lies behind it.
    pub is_disk: bool,
    /// Some descriptor may write.
    pub writable: bool,
}

/// A file that a place should look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub id: FileId,
    /// Where it was last.
    pub path: String,
    /// A descriptor of a process that holds it.
    pub via: Option<String>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open intervals of VMs.
    pub vms: u64,
    /// Open intervals of snapshots and images of no VM.
    pub things: u64,
    /// Files that are there.
    pub there: u64,
    /// Files without a name that the kernel has not let go.
    pub nameless: u64,
    /// Files of which nothing is known now.
    pub unknown: u64,
}

/// Everything that is stored.
#[derive(Debug)]
pub struct Model {
    boot_id: String,
    /// By pool, the least change that is told at once, bytes.
    steps: Vec<u64>,
    files: BTreeMap<FileId, File>,
    vms: BTreeMap<String, VmStore>,
    /// By vm_id, as far as that is known.
    whose: BTreeMap<String, Whose>,
    /// When each place was last looked at.
    looked: BTreeMap<Place, Instant2>,
    /// What was there before is known up to here.
    since: Instant2,
    /// What runs has been asked what it holds, so what nobody holds and is not there is gone.
    settled: bool,
    /// Files that found no room.
    beyond: u64,
    out: Vec<Draft>,
}

impl Model {
    /// An empty one. `since`: up to when an agent watched before.
    #[must_use]
    pub fn new(boot_id: &str, pools: &[Pool], since: Instant2) -> Self {
        Self {
            boot_id: boot_id.to_owned(),
            steps: pools.iter().map(|pool| pool.resize_step.get().max(1)).collect(),
            files: BTreeMap::new(),
            vms: BTreeMap::new(),
            whose: BTreeMap::new(),
            looked: BTreeMap::new(),
            since,
            settled: false,
            beyond: 0,
            out: Vec::new(),
        }
    }

    /// From now on a file that is not there and that no running VM holds is gone.
    pub const fn judge(&mut self) {
        self.settled = true;
    }

    /// Takes what a look found.
    pub fn report(&mut self, report: Report) {
        let Report { place, at, files, state } = report;
        let before = self.looked.get(&place).copied().unwrap_or(self.since);
        for found in files {
            self.take(place, found, before, at);
        }
        // What could not be looked at was not looked at.
        if state.why.is_none() {
            self.looked.insert(place, at);
        }
    }

    /// Makes the lines of what has changed, oldest first.
    pub fn settle(&mut self) -> Vec<Draft> {
        self.let_go();
        self.settle_things();
        self.settle_vms();
        let mut lines = std::mem::take(&mut self.out);
        self.say_whose(&mut lines);
        // Stable: what happened to one thing at one instant keeps its order.
        lines.sort_by_key(|draft| if draft.boot_id == self.boot_id { draft.mono_ns } else { 0 });
        lines
    }

    /// The sum of a VM's disks as its newest line told it.
    #[must_use]
    pub fn bytes_of(&self, vm_id: &str) -> Option<u64> {
        self.vms.get(vm_id)?.told_bytes()
    }

    /// The files of a place that a look alone would not find, or not find again.
    #[must_use]
    pub fn wanted(&self, place: Place) -> Vec<Wanted> {
        let here = |(id, file): (&FileId, &File)| {
            let wanted = file.place == place
                && (place == Place::Loose || file.state != State::There)
                && (file.gone.is_none() || !file.holders.is_empty());
            wanted.then(|| Wanted { id: *id, path: file.path.clone(), via: file.via.clone() })
        };
        self.files.iter().filter_map(here).collect()
    }

    /// Whether a file is known, so that what a VM holds of it matters though it is no disk.
    #[must_use]
    pub fn knows(&self, id: &FileId) -> bool {
        self.files.contains_key(id)
    }

    /// How much there is at a place, or everywhere.
    #[must_use]
    pub fn counts(&self, place: Option<Place>) -> Counts {
        let mut counts = Counts::default();
        for file in self.files.values().filter(|file| place.is_none_or(|place| file.place == place)) {
            counts.things += u64::from(file.interval.is_some());
            match file.state {
                State::There => counts.there += 1,
                State::Nameless => counts.nameless += 1,
                State::Unjudged | State::Unknown(_) => counts.unknown += 1,
            }
        }
        if place.is_none() {
            counts.vms = self.vms.values().filter(|vm| vm.is_open()).count() as u64;
        }
        counts
    }

    /// Why nothing is known of a place's files, of the first few.
    #[must_use]
    pub fn unknown(&self, place: Place, most: usize) -> Vec<(String, String)> {
        let here = self.files.values().filter(|file| file.place == place);
        let why = here.filter_map(|file| match &file.state {
            State::Unknown(why) => Some((file.path.clone(), why.clone())),
            _ => None,
        });
        why.take(most).collect()
    }

    /// Open intervals of VMs none of whose files the ledger names: nothing can be looked for.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.vms.values().filter(|vm| vm.is_lost()).count() as u64
    }

    /// Files that found no room.
    #[must_use]
    pub const fn beyond(&self) -> u64 {
        self.beyond
    }
}

#[cfg(test)]
mod tests;
