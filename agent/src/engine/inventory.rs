//! The operator's inventory: read by a thread of its own, again whenever the file changes. A file with a mistake changes
//! nothing: the last good one stays, and status says what is wrong.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use super::Engine;
use crate::{
    account::host::InventoryState,
    clock::{self, Instant2},
    host::beneath::{Beneath, Stamp},
    vm::{Owner, Owners, Teller, identity::Inventory},
};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);
/// How long the first turn waits for it.
const FIRST: Duration = Duration::from_secs(1);

/// What the thread tells.
type Read = (PathBuf, Result<Inventory, String>);

/// The thread, and what it read last.
#[derive(Default)]
pub(super) struct Inventories {
    /// The file to begin with.
    first: Option<PathBuf>,
    /// Ends the thread when dropped.
    thread: Option<Sender<()>>,
    news: Option<Receiver<Read>>,
    known: Arc<Inventory>,
}

impl Inventories {
    /// With the file to begin with; nothing is read yet.
    pub(super) fn first(first: Option<PathBuf>) -> Self {
        Self { first, ..Self::default() }
    }

    /// What the newest good inventory says of a VM that may not run; a vm_id may be its UUID.
    pub(super) fn of(&self, uuid: &str, name: &str, vm_id: &str) -> Option<&Owner> {
        self.known.of(if uuid.is_empty() { vm_id } else { uuid }, name, vm_id)
    }

    /// Follows a file from now on, or none. What was known stays until it was read.
    pub(super) fn follow(&mut self, path: Option<PathBuf>) {
        (self.thread, self.news) = (None, None);
        let Some(path) = path else {
            self.known = Arc::default();
            return;
        };
        let ((alive, end), (tell, news)) = (channel::<()>(), channel());
        let work = move || {
            let mut last: Option<Result<Stamp, String>> = None;
            loop {
                let state = look(&path);
                if last.as_ref() != Some(&state) {
                    let inventory = state.clone().and_then(|_| read(&path));
                    if tell.send((path.clone(), inventory)).is_err() {
                        return;
                    }
                    last = Some(state);
                }
                if end.recv_timeout(LOOK) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        };
        match std::thread::Builder::new().name("inventory".to_owned()).spawn(work) {
            Ok(_) => (self.thread, self.news) = (Some(alive), Some(news)),
            Err(error) => tracing::warn!(%error, "no thread to read the inventory"),
        }
    }
}

fn look(path: &Path) -> Result<Stamp, String> {
    let root = Beneath::open(Path::new("/")).map_err(|error| error.to_string())?;
    root.stamp(path).ok_or_else(|| "it is not there, or cannot be looked at".to_owned())
}

/// Reads an inventory whole.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn read(path: &Path) -> Result<Inventory, String> {
    let raw = Beneath::open(Path::new("/")).and_then(|root| root.read(path)).map_err(|error| error.to_string())?.0;
    Inventory::parse(&raw).map_err(|error| crate::cause::chain(&error))
}

impl Engine {
    /// Reads the inventory for the first time.
    pub(super) fn first_inventory(&mut self, at: Instant2) {
        let first = self.inventories.first.take();
        self.set_inventory(first, at);
    }

    /// Follows another file, and waits for it a little where that is the first.
    pub(super) fn set_inventory(&mut self, path: Option<PathBuf>, at: Instant2) {
        self.host.inventory = path.as_ref().map(|path| InventoryState::new(path));
        let wait = path.is_some();
        self.inventories.follow(path);
        let first = self.inventories.news.as_ref().filter(|_| wait).and_then(|news| news.recv_timeout(FIRST).ok());
        match first {
            Some(read) => self.take_inventory(read, at),
            None => self.apply_inventory(at),
        }
    }

    /// Once a sample: takes in what was read.
    pub(super) fn follow_inventory(&mut self, at: Instant2) {
        let newest = self.inventories.news.as_ref().and_then(|news| news.try_iter().last());
        if let Some(read) = newest {
            self.take_inventory(read, at);
        }
    }

    fn take_inventory(&mut self, (path, read): Read, at: Instant2) {
        let state = self.host.inventory.get_or_insert_with(|| InventoryState::new(&path));
        match read {
            Ok(inventory) => {
                tracing::info!(path = %path.display(), vms = inventory.len(), "the inventory was read");
                state.read(inventory.len(), clock::rfc3339(at.unix_ns));
                self.inventories.known = Arc::new(inventory);
                self.apply_inventory(at);
            }
            Err(error) => {
                tracing::error!(path = %path.display(), error, "the inventory is not taken; the last good one stays");
                state.failed(error);
            }
        }
    }

    /// Tells what has changed of each living VM.
    pub(super) fn apply_inventory(&mut self, at: Instant2) {
        let known = Arc::clone(&self.inventories.known);
        let told = |vm: &crate::vm::Vm| {
            let whole = vm.owners.whole();
            let (uuid, name) = (whole.uuid.as_ref(), whole.name.as_ref());
            let of = known.of(uuid.unwrap_or(&vm.fixed.uuid), name.unwrap_or(&vm.fixed.name), &vm.fixed.vm_id);
            (vm.fixed.tgid, of.cloned().unwrap_or_default())
        };
        let all: Vec<(u32, Owner)> = self.registry.live().filter(|vm| !vm.exiting).map(told).collect();
        for (tgid, owner) in all {
            self.set_owner(tgid, Teller::Inventory, owner, None, at);
        }
    }

    /// What the inventory says of a newcomer.
    pub(super) fn ask_inventory(&self, owners: &mut Owners, uuid: &str, name: &str, vm_id: &str) {
        if let Some(owner) = self.inventories.known.of(uuid, name, vm_id) {
            owners.tell(Teller::Inventory, owner.clone());
        }
    }
}
