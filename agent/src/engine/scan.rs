//! The full search of `/proc` for processes that hold KVM VMs: at the start, at every reconcile.

use std::collections::HashSet;

use super::{Engine, life::Found};
use crate::{
    clock::Instant2,
    host::scan_kvm,
    sample::ProcCpu,
    units::Tgid,
    vm::{
        Origin, Owners,
        identity::{Argv, identify},
        source::VmSource,
    },
};

/// `USER_HZ` is 100 on every architecture KVM runs on; used where the system does not say.
pub(super) const TICK_NS: u64 = 10_000_000;

/// A process, as far as `/proc` tells.
pub(super) enum Process {
    /// It lives, and started in the clock tick that begins here (CLOCK_BOOTTIME nanoseconds).
    Alive {
        /// The tick's first nanosecond.
        start_ns: u64,
    },
    /// Gone, or a zombie.
    Ended,
    /// It could not be looked at.
    Unknown,
}

impl Engine {
    /// What `/proc` says of a process. Not being allowed, or not able, to look says nothing about its life.
    pub(super) fn process_of(&self, tgid: u32) -> Process {
        let stat = match self.procfs.stat(Tgid(tgid)) {
            Ok(stat) => stat,
            Err(error) if error.is_gone() => return Process::Ended,
            Err(error) => {
                tracing::debug!(%error, tgid, "a process cannot be looked at");
                return Process::Unknown;
            }
        };
        // A leader that ended early is a zombie beside its living threads.
        if matches!(stat.state, 'Z' | 'X' | 'x') && stat.threads <= 1 {
            return Process::Ended;
        }
        Process::Alive { start_ns: stat.start_ticks * self.tick_ns() }
    }

    /// Nanoseconds of a clock tick of `/proc`.
    pub(super) fn tick_ns(&self) -> u64 {
        self.facts.tick_ns().unwrap_or(TICK_NS).max(1)
    }

    /// Processes that hold a KVM VM with vCPUs and are no VM of ours yet, with how many vCPUs. `still` are not looked at.
    pub(super) fn scan(&mut self, still: &HashSet<u32>) -> Vec<(u32, u32)> {
        let result = match scan_kvm(&self.procfs, &|tgid| still.contains(&tgid.get())) {
            Ok(result) => result,
            Err(error) => {
                tracing::warn!(%error, "/proc cannot be searched for KVM VMs");
                self.count_error("scan", 1);
                return Vec::new();
            }
        };
        let seen: u64 = result.found.iter().map(|(_, fds)| u64::from(fds.vms)).sum();
        let known = self.registry.live().filter(|vm| still.contains(&vm.fixed.tgid));
        self.host.kvm.held = Some(seen + known.map(|vm| u64::from(vm.sources.held_vms)).sum::<u64>());
        self.host.kvm.denied = Some(u64::from(result.denied));
        for (tgid, fds) in &result.found {
            self.take_held(tgid.get(), fds.vcpus);
            if let Some(vm) = self.registry.of_tgid_mut(tgid.get()) {
                vm.sources.held_vms = fds.vms;
            }
        }
        let registry = &self.registry;
        let known = |tgid: Tgid| registry.of_tgid(tgid.get()).is_some();
        let found = result
            .found
            .iter()
            .filter(|(tgid, fds)| fds.is_vm() && !known(*tgid))
            .map(|(tgid, fds)| (tgid.get(), fds.vcpus))
            .collect();
        self.count_error("scan", u64::from(result.failed));
        found
    }

    /// Whether any thread of a process has run a guest (`guest_time` of `/proc/…/stat`, a tick at least).
    pub(super) fn has_run(&self, tgid: u32) -> bool {
        let Ok(tids) = self.procfs.thread_ids(Tgid(tgid)) else { return false };
        tids.into_iter().any(|tid| self.procfs.guest_ticks(Tgid(tgid), tid).is_ok_and(|ticks| ticks > 0))
    }

    /// Takes in processes that the kernel programs have not seen enter a guest.
    pub(super) fn adopt(&mut self, tgids: &[u32], at: Instant2) {
        if tgids.is_empty() {
            return;
        }
        if let Some(kernel) = &mut self.kernel {
            if let Err(error) = kernel.adopt(tgids) {
                tracing::warn!(%error, "the kernel's task walk failed; these VMs are read from /proc");
                self.count_error("walk", 1);
            }
            self.read_kernel(at, false);
        }
        for tgid in tgids {
            if self.registry.of_tgid(*tgid).is_none()
                && let Some(found) = self.found_in_proc(*tgid, at)
            {
                self.begin(found, at);
                self.sample_first(*tgid);
            }
        }
    }

    fn sample_first(&mut self, tgid: u32) {
        let (root, procfs) = (self.root.clone(), &self.procfs);
        if let Some(vm) = self.registry.of_tgid_mut(tgid)
            && let Origin::Proc(threads) = &mut vm.origin
            && let Some(cpu) = threads.sample(&root, procfs)
        {
            vm.take_cpu(cpu);
        }
    }

    /// What `/proc` alone tells of a VM.
    pub(super) fn found_in_proc(&self, tgid: u32, at: Instant2) -> Option<Found> {
        let Process::Alive { start_ns } = self.process_of(tgid) else { return None };
        if self.ended.get(&tgid).is_some_and(|(tick, _)| *tick == start_ns / self.tick_ns()) {
            // Its stop is written; it only takes long to go (tearing down a large memory takes seconds).
            return None;
        }
        let line = self.procfs.cmdline(Tgid(tgid)).ok()?;
        let argv = Argv::parse(&line.raw, line.truncated);
        let comm = self.procfs.comm(Tgid(tgid)).unwrap_or_default();
        let exe = self.procfs.exe_name(Tgid(tgid)).ok();
        Some(Found {
            tgid,
            start_ns,
            exact: false,
            vcpus: self.procfs.kvm_fds(Tgid(tgid)).map_or(0, |fds| fds.vcpus),
            identity: identify(&argv, &comm, exe.as_deref()),
            owners: Owners::default(),
            sources: VmSource::default(),
            argv,
            adopted: start_ns < self.attached_ns,
            observed_since_ns: at.boot_ns,
            first_run_ns: None,
            gone: false,
            origin: Origin::Proc(ProcCpu::new(Tgid(tgid))),
        })
    }
}
