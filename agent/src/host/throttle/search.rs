//! One search for VMs' own control groups, made for all that is counted in them at once: which groups a process's
//! threads are in is read once for all controllers, and each group is walked once.
//!
//! It remembers what it saw and is to be dropped when the search is over: a moment later all may be different.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::place::Place;
use crate::host::cgroup::{Controller, Membership};
use crate::host::{ProcError, ProcFs};
use crate::units::{Tgid, Tid};

/// What one search has seen so far.
pub struct GroupSearch {
    pub(super) root: PathBuf,
    pub(super) procfs: ProcFs,
    /// Mount points by version and controller.
    mounts: RefCell<HashMap<(u32, Controller), Option<PathBuf>>>,
    /// The process that was asked about last: who looks for all of a VM's groups does so one after the other.
    newest: RefCell<Option<Rc<Asked>>>,
    /// Tasks of groups that hold a stranger for somebody: a thousand VMs in one group would read it a thousand times.
    strangers: RefCell<HashMap<PathBuf, Rc<[u32]>>>,
}

/// A process whose groups are looked for.
pub(super) struct Asked {
    tgid: Tgid,
    /// Its threads.
    pub(super) tids: BTreeSet<Tid>,
    /// Where they are, each membership once.
    pub(super) memberships: Vec<Membership>,
    /// Its own groups, as far as they were found.
    pub(super) own: RefCell<Vec<Rc<Place>>>,
}

impl GroupSearch {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            procfs: ProcFs::new(root),
            mounts: RefCell::default(),
            newest: RefCell::default(),
            strangers: RefCell::default(),
        }
    }

    /// A mount point, looked for once.
    pub(super) fn mount(
        &self,
        version: u32,
        which: Controller,
        find: fn(&Path, Controller) -> Option<PathBuf>,
    ) -> Option<PathBuf> {
        let mut mounts = self.mounts.borrow_mut();
        mounts.entry((version, which)).or_insert_with(|| find(&self.root, which)).clone()
    }

    /// The threads of a process and their groups.
    pub(super) fn process(&self, tgid: Tgid) -> Result<Rc<Asked>, ProcError> {
        if let Some(known) = self.newest.borrow().as_ref().filter(|known| known.tgid == tgid) {
            return Ok(Rc::clone(known));
        }
        let tids: BTreeSet<Tid> = self.procfs.thread_ids(tgid)?.into_iter().collect();
        let mut memberships = Vec::new();
        for tid in &tids {
            match self.procfs.membership(tgid, *tid) {
                Ok(found) if memberships.iter().any(|known: &Membership| known.is_same_as(&found)) => {}
                Ok(found) => memberships.push(found),
                // A thread that ended since they were listed.
                Err(ProcError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if memberships.is_empty() {
            return Err(ProcError::Gone { path: self.procfs.of(tgid) });
        }
        let asked = Rc::new(Asked { tgid, tids, memberships, own: RefCell::default() });
        self.newest.replace(Some(Rc::clone(&asked)));
        Ok(asked)
    }

    /// The tasks of a group that was found to hold a stranger before.
    pub(super) fn known_strangers(&self, dir: &Path) -> Option<Rc<[u32]>> {
        self.strangers.borrow().get(dir).cloned()
    }

    /// A group holds a stranger for somebody.
    pub(super) fn has_stranger(&self, dir: &Path, tasks: Rc<[u32]>) {
        self.strangers.borrow_mut().insert(dir.to_owned(), tasks);
    }
}
