//! The stored things a ledger tells: each start once until its stop, every line of an interval about the same thing in
//! the same boot, and one interval of a VM's disks under the VM's own id.

use std::collections::HashMap;

use super::super::{Kind, Line, Subject};
use super::report::OpenStored;

/// An interval without a stop so far.
#[derive(Debug)]
struct Interval {
    of_vm: bool,
    vm_id: String,
    snapshot_id: String,
    boot_id: String,
    start_seq: u64,
    start_mono_ns: u64,
}

/// What is stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    open: HashMap<Subject, Interval>,
}

const fn is_of_vm(kind: Kind) -> bool {
    matches!(kind, Kind::VmStorageStart | Kind::VmStorageStop | Kind::VmStorageResize)
}

impl Stored {
    /// Things without a stop, oldest first.
    pub(super) fn open(self) -> Vec<OpenStored> {
        let told = |(subject, interval): (Subject, Interval)| OpenStored {
            storage_id: subject.text("").to_owned(),
            vm_id: interval.vm_id,
            start_seq: interval.start_seq,
        };
        let mut open: Vec<_> = self.open.into_iter().map(told).collect();
        open.sort_by_key(|one| one.start_seq);
        open
    }

    /// Takes the next line about storage; `whole` as every line of the ledger is seen.
    pub(super) fn accept(&mut self, line: &Line, whole: bool, faults: &mut Vec<String>) {
        let (kind, subject) = (line.fact.kind, &line.fact.subject);
        let what = match subject {
            Subject::Storage(text) | Subject::Snapshot(text) => text,
            Subject::Incarnation(_) | Subject::Ledger => {
                return faults.push(format!("{kind} without `storage_id` and `snapshot_id`"));
            }
        };
        let vm_id = &line.fact.vm_id;
        if is_of_vm(kind) && !vm_id.is_empty() && vm_id != what {
            faults.push(format!("{kind} of {what}, which is not its `vm_id` {vm_id:?}"));
        }
        if matches!(kind, Kind::VmStorageStart | Kind::SnapStorageStart) {
            self.start(line, faults);
            return;
        }
        match self.open.get(subject) {
            Some(interval) => interval.compare(line, faults),
            None if whole => faults.push(format!("{kind} of {what}, which is not open")),
            None => {}
        }
        if matches!(kind, Kind::VmStorageStop | Kind::SnapStorageStop) {
            self.open.remove(subject);
        }
    }

    fn start(&mut self, line: &Line, faults: &mut Vec<String>) {
        let fact = &line.fact;
        if let Some(open) = self.open.get(&fact.subject) {
            let what = fact.subject.text("");
            return faults.push(format!("{} of {what}, which is open since line {}", fact.kind, open.start_seq));
        }
        let interval = Interval {
            of_vm: is_of_vm(fact.kind),
            vm_id: fact.vm_id.clone(),
            snapshot_id: fact.snapshot_id.clone(),
            boot_id: fact.boot_id.clone(),
            start_seq: line.seq,
            start_mono_ns: fact.mono_ns,
        };
        self.open.insert(fact.subject.clone(), interval);
    }
}

impl Interval {
    fn compare(&self, line: &Line, faults: &mut Vec<String>) {
        let (fact, what) = (&line.fact, line.fact.subject.text(""));
        let kind = fact.kind;
        if self.of_vm != is_of_vm(kind) {
            faults.push(format!("{kind} of {what}, which line {} began as another kind", self.start_seq));
        }
        for (key, then, now) in
            [("vm_id", &self.vm_id, &fact.vm_id), ("snapshot_id", &self.snapshot_id, &fact.snapshot_id)]
        {
            if then != now {
                faults.push(format!("`{key}` of {what} is {then:?} since its start and {now:?} here"));
            }
        }
        if self.boot_id != fact.boot_id {
            faults.push(format!("{what} began in boot {}, this line counts in {}", self.boot_id, fact.boot_id));
        } else if fact.mono_ns < self.start_mono_ns {
            faults.push(format!("{kind} of {what} lies before its start: {} < {}", fact.mono_ns, self.start_mono_ns));
        }
    }
}
