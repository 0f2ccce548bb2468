//! A real file whose writes and syncs fail on demand.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Faults {
    /// Writes fail with ENOSPC, this many bytes of them reaching the file.
    pub(super) full_after: Option<usize>,
    /// Taking bytes back fails as well.
    pub(super) truncate_fails: bool,
    /// Syncs fail.
    pub(super) sync_fails: bool,
    /// A failed sync drops what was written since the last good one.
    pub(super) pages_lost: bool,
    pub(super) reopened: u32,
    /// Steps of a rotation fail.
    pub(super) prepare_fails: bool,
    pub(super) link_fails: bool,
    pub(super) rename_fails: bool,
    pub(super) names_fail: bool,
}

fn unless(fails: bool) -> io::Result<()> {
    if fails { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
}

#[derive(Debug)]
pub(super) struct FaultyStore {
    file: FileStore,
    synced: u64,
    pub(super) faults: Arc<Mutex<Faults>>,
}

impl FaultyStore {
    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }
}

impl Store for FaultyStore {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.faults().full_after {
            None => self.file.append(bytes),
            Some(room) => {
                self.file.append(&bytes[..room.min(bytes.len())])?;
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let faults = self.faults();
        if faults.sync_fails {
            if faults.pages_lost {
                self.file.truncate(self.synced)?;
            }
            return Err(io::Error::other("the disk is gone"));
        }
        self.file.sync()?;
        self.synced = self.file.standing()?.bytes;
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        if self.faults().truncate_fails {
            return Err(io::Error::other("cannot truncate"));
        }
        self.file.truncate(bytes)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.faults.lock().unwrap().reopened += 1;
        self.file.reopen()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, into)
    }

    fn standing(&self) -> io::Result<Standing> {
        self.file.standing()
    }

    fn prepare(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.faults().prepare_fails {
            // Half of it is there.
            self.file.prepare(&bytes[..bytes.len() / 2])?;
        }
        unless(self.faults().prepare_fails)?;
        self.file.prepare(bytes)
    }

    fn keep_as(&mut self, name: &str) -> io::Result<()> {
        unless(self.faults().link_fails)?;
        self.file.keep_as(name)
    }

    fn replace(&mut self) -> io::Result<()> {
        unless(self.faults().rename_fails)?;
        self.file.replace()?;
        self.synced = self.file.standing()?.bytes;
        Ok(())
    }

    fn abandon(&mut self, name: &str) {
        self.file.abandon(name);
    }

    fn sync_names(&mut self) -> io::Result<()> {
        unless(self.faults().names_fail)?;
        self.file.sync_names()
    }
}

/// A journal on a fresh ledger whose disk can be made to fail.
pub(super) fn faulty(dir: &Path) -> (Journal<FaultyStore>, Arc<Mutex<Faults>>) {
    let (journal, found) = open(dir);
    drop(journal);
    let faults = Arc::new(Mutex::new(Faults::default()));
    let store = FaultyStore { file: FileStore::open(&file(dir)).unwrap(), synced: 0, faults: Arc::clone(&faults) };
    let mut journal = Journal::resume(store, file(dir), WriteLock::take(dir).unwrap(), HOST, &found);
    journal.stand_on(Segment::default(), Keeper::new(dir, Vec::new()));
    (journal, faults)
}
