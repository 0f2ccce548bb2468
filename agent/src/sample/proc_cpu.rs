//! CPU time of one VM from `/proc`, for hosts where the kernel programs cannot run.
//!
//! One `schedstat` file a thread, kept open: cheap to read again, and a reused thread id cannot be read through it. A
//! thread born and dead between two samples is missed, and the last slice of one that ends; both are told by
//! `source="proc"`. What lingered in the process before is not known either.

use std::{collections::BTreeMap, path::Path};

use kvmeter_common::vm::RoleTime;

use crate::{
    account::{CpuUsage, Role},
    host::{ProcFs, SchedstatFile},
    units::{Tgid, Tid},
};

struct Thread {
    file: SchedstatFile,
    last: RoleTime,
    base: RoleTime,
    vcpu: bool,
}

impl Thread {
    fn role(&self) -> Role {
        if self.vcpu { Role::Vcpu } else { Role::Vmm }
    }
}

/// The threads of one process.
pub struct ProcCpu {
    tgid: Tgid,
    threads: BTreeMap<Tid, Thread>,
    ended: CpuUsage,
    errors: u64,
}

fn add(sum: &mut RoleTime, now: RoleTime, base: RoleTime) {
    sum.runtime_ns += now.runtime_ns.saturating_sub(base.runtime_ns);
    sum.run_delay_ns += now.run_delay_ns.saturating_sub(base.run_delay_ns);
}

impl ProcCpu {
    /// For a process; nothing is opened yet.
    #[must_use]
    pub fn new(tgid: Tgid) -> Self {
        Self { tgid, threads: BTreeMap::new(), ended: CpuUsage::default(), errors: 0 }
    }

    /// Files that could not be opened or read so far.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Reads every thread. `None` when the process cannot be listed any more.
    pub fn sample(&mut self, root: &Path, procfs: &ProcFs) -> Option<CpuUsage> {
        let tids = procfs.thread_ids(self.tgid).ok()?;
        for tid in tids {
            if self.threads.contains_key(&tid) {
                continue;
            }
            match SchedstatFile::open(root, self.tgid, tid) {
                Ok(file) => {
                    let none = RoleTime::default();
                    self.threads.insert(tid, Thread { file, last: none, base: none, vcpu: false });
                }
                Err(error) if error.is_gone() => {}
                Err(_) => self.errors += 1,
            }
        }
        self.read(procfs);
        let mut usage = self.ended;
        for thread in self.threads.values() {
            add(usage.of_mut(thread.role()), thread.last, thread.base);
        }
        Some(usage)
    }

    fn read(&mut self, procfs: &ProcFs) {
        let (tgid, ended, errors) = (self.tgid, &mut self.ended, &mut self.errors);
        self.threads.retain(|tid, thread| {
            let told = thread.last;
            match thread.file.read() {
                Ok(Some((runtime_ns, run_delay_ns))) => thread.last = RoleTime { runtime_ns, run_delay_ns },
                Ok(None) => {
                    add(ended.of_mut(thread.role()), thread.last, thread.base);
                    return false;
                }
                Err(_) => *errors += 1,
            }
            // Guest time makes a thread a vCPU; what it ran before was told as the VMM's and stays there.
            if !thread.vcpu && procfs.guest_ticks(tgid, *tid).is_ok_and(|ticks| ticks > 0) {
                thread.vcpu = true;
                thread.base = told;
                add(ended.of_mut(Role::Vmm), told, RoleTime::default());
            }
            true
        });
    }
}
