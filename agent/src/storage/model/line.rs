//! Instants as lines tell them, and what all lines of storage have in common.

use super::{Model, vm::VmStore};
use crate::{
    clock::Instant2,
    ledger::{Draft, Kind, Reason, StoredFile, Subject, TimeQuality},
};

/// Files that a line names, and how many bytes their names may take together: a line has 16 KiB.
const MAX_FILES: usize = 64;
const MAX_BYTES: usize = 8 * 1024;

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Then.
    Exact(Instant2),
    /// Between the two.
    Between {
        /// Not before.
        from: Instant2,
        /// Not after.
        to: Instant2,
    },
}

/// Which bound bills less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bills {
    /// What begins or grows: the later.
    Later,
    /// What ends or shrinks: the earlier.
    Earlier,
}

impl When {
    /// The instant that a line tells, and how sure it is; none before the line told `last`.
    pub(super) fn told(self, bills: Bills, last: Option<Instant2>) -> (Instant2, TimeQuality) {
        let (from, to) = match self {
            Self::Exact(at) => (at, at),
            Self::Between { from, to } => (from, to),
        };
        let later = |at: Instant2| last.filter(|last| last.boot_ns > at.boot_ns).unwrap_or(at);
        let (low, high) = (later(from), later(to));
        let high = if high.boot_ns < low.boot_ns { low } else { high };
        let at = if bills == Bills::Later { high } else { low };
        if let Self::Exact(exact) = self
            && exact == at
        {
            return (at, TimeQuality::Exact);
        }
        // The wall clock may have been set between the two.
        let (not_before, not_after) = (low.unix_ns.min(high.unix_ns), low.unix_ns.max(high.unix_ns));
        (at, TimeQuality::Bounded { not_before, not_after })
    }

    /// For putting changes in order.
    pub(super) const fn order(self) -> u64 {
        match self {
            Self::Exact(at) | Self::Between { to: at, .. } => at.boot_ns,
        }
    }
}

impl Model {
    /// A line of an interval.
    pub(super) fn draft(&self, kind: Kind, subject: &str, (at, quality): (Instant2, TimeQuality)) -> Draft {
        let subject = Subject::Storage(subject.to_owned());
        let mut draft = Draft::new(kind, subject, &self.boot_id, at.unix_ns, at.boot_ns);
        draft.time_quality = quality;
        draft
    }

    /// The snapshot that a file was made from: the first in the chain of what it is a change to.
    pub(super) fn source_of(&self, backing: Option<&str>) -> String {
        let mut next = backing;
        for _ in 0..MAX_FILES {
            let Some(path) = next else { break };
            let Some(file) = self.files.values().find(|file| file.path == path) else { break };
            if let Some(name) = file.name.as_ref().filter(|name| !name.snapshot_id.is_empty()) {
                return name.snapshot_id.clone();
            }
            next = file.backing.as_deref();
        }
        String::new()
    }
}

/// What a VM's lines have in common.
pub(super) fn about(mut draft: Draft, vm_id: &str, vm: &VmStore, whole: bool) -> Draft {
    vm_id.clone_into(&mut draft.vm_id);
    draft.hypervisor.clone_from(&vm.about.hypervisor);
    if whole {
        draft.name.clone_from(&vm.about.name);
        draft.uuid.clone_from(&vm.about.uuid);
    }
    draft
}

/// As many files as a line has room for.
pub(super) fn named<'a>(files: impl Iterator<Item = &'a StoredFile>) -> Vec<StoredFile> {
    let mut room = MAX_BYTES;
    let fits = |file: &&StoredFile| {
        // A control character takes six bytes in JSON.
        let bytes = file.path.bytes().map(|b| if b < b' ' { 6 } else { 2 }).sum::<usize>();
        room = room.saturating_sub(bytes);
        room > 0
    };
    files.take(MAX_FILES).take_while(fits).cloned().collect()
}

/// The reason that goes with a deletion.
pub(super) fn reason(cause: &str, reason: Reason) -> Option<Reason> {
    (cause == "deleted").then_some(reason)
}
