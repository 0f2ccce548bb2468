//! Sampling of memory: which VMs are read, the slow reading of proportional sizes, and whether guests' faults are told.

use super::{Engine, silent::Entries, silent::has_run_in_sight};
use crate::{
    bpf::Hooks,
    clock::{self, Instant2},
    host::{GroupSearch, MemoryFiles, MemoryGroup, PssReader},
    units::Tgid,
    vm::Vm,
};

/// The program that marks whose memory moved.
const MOVES: &str = "rss_stat";
/// Proportional sizes asked for at a sample of VMs that have none yet, or whose memory stands still: a thousand that are
/// found at once are not read at once, now and each time again.
const PSS_FEW: u32 = 8;

impl Engine {
    /// Opens a VM's files and reads them for the first time: soon after its birth, so that a short life has an integral.
    pub(super) fn first_memory(&mut self, tgid: u32, at: Instant2) {
        self.open_memory(tgid);
        self.sample_memory_of(tgid, at);
    }

    fn open_memory(&mut self, tgid: u32) {
        let tick_ns = self.tick_ns();
        if let Some(vm) = self.registry.of_tgid_mut(tgid).filter(|vm| vm.memory.is_closed()) {
            vm.memory.open(MemoryFiles::open(&self.procfs, Tgid(tgid), vm.start_tick(tick_ns)));
        }
    }

    fn sample_memory_of(&mut self, tgid: u32, at: Instant2) {
        let marked = self.kernel.as_ref().is_some_and(|kernel| kernel.is_at_work(MOVES));
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        let marks = vm.slot().zip(self.kernel.as_mut()).and_then(|(slot, kernel)| kernel.slots().memory_marks(slot));
        let sampled = vm.memory.sample(&self.procfs, at.boot_ns, marks.filter(|_| marked), || now_ns(at));
        vm.changed = true;
        self.count_error("memory", u64::from(!sampled.done));
    }

    /// Once a sample: every VM's memory, where it moved.
    pub(super) fn sample_memory(&mut self, at: Instant2) {
        let marked = self.kernel.as_ref().is_some_and(|kernel| kernel.is_at_work(MOVES));
        let (mut failed, mut faulted) = (0, false);
        let told = self.faults == Entries::Seen;
        for vm in self.registry.live_mut() {
            if vm.exiting {
                // Its end will tell how long what was read last has held.
                vm.changed |= vm.memory.rest();
                continue;
            }
            let marks =
                vm.slot().zip(self.kernel.as_mut()).and_then(|(slot, kernel)| kernel.slots().memory_marks(slot));
            let sampled = vm.memory.sample(&self.procfs, at.boot_ns, marks.filter(|_| marked), || now_ns(at));
            failed += u64::from(!sampled.done);
            vm.changed |= sampled.changed;
            let faults = marks.map(|marks| marks.guest_faults);
            faulted |= faults > Some(0);
            vm.changed |= vm.memory.take_guest_faults(faults.filter(|count| told || *count > 0));
        }
        self.sampled_ns = at.boot_ns;
        self.count_error("memory", failed);
        self.judge_faults(faulted);
        self.sample_pss(at);
    }

    /// Looks for a VM's control group: it may have been moved.
    pub(super) fn follow_memory_group(&mut self, search: &GroupSearch, tgid: u32) {
        if let Some(vm) = self.registry.of_tgid_mut(tgid) {
            vm.memory.follow(MemoryGroup::find(search, Tgid(tgid)));
            vm.changed = true;
        }
    }

    /// Tries again to open the files that could not be: a right may have come.
    pub(super) fn follow_memory(&mut self) {
        let closed = self.registry.live().filter(|vm| vm.memory.is_closed()).map(|vm| vm.fixed.tgid);
        for tgid in closed.collect::<Vec<_>>() {
            self.open_memory(tgid);
        }
    }

    /// Takes proportional sizes that were read, and asks for those that are due.
    fn sample_pss(&mut self, at: Instant2) {
        let every_ns = self.settings.pss_ns;
        let mut failed = 0;
        while let Some(answer) = self.pss.as_ref().and_then(PssReader::answer) {
            failed += u64::from(answer.bytes.is_err());
            self.pss_open.answer(at.boot_ns);
            let (tgid, start_ns) = answer.vm;
            if let Some(vm) = self.registry.of_tgid_mut(tgid).filter(|vm| vm.fixed.start_ns == start_ns) {
                vm.changed |= vm.memory.take_pss(answer.bytes.ok().flatten().filter(|_| every_ns > 0));
            }
        }
        failed += self.watch_pss(at);
        self.count_error("memory", failed);
        if every_ns == 0 {
            self.registry.live_mut().for_each(|vm| vm.changed |= vm.memory.take_pss(None));
            return;
        }
        let mut few = PSS_FEW;
        for vm in self.registry.live_mut().filter(|vm| !vm.exiting) {
            let moved = vm.memory.pss_moved();
            if few == 0 && !moved {
                continue;
            }
            let Some(file) = vm.memory.pss_due(at.boot_ns, every_ns) else { continue };
            few -= u32::from(!moved);
            if self.pss.is_none() {
                self.pss = PssReader::start().ok();
            }
            let asked = self.pss.as_ref().is_some_and(|pss| pss.ask((vm.fixed.tgid, vm.fixed.start_ns), file));
            if asked {
                self.pss_open.ask(at.boot_ns);
            } else {
                // Too many wait: the rest comes with the next sample.
                vm.memory.pss_refused();
                return;
            }
        }
    }

    /// What was read before a reading hung is not current any more. How many errors that is.
    fn watch_pss(&mut self, at: Instant2) -> u64 {
        let hung = self.pss_open.hung_since(at.boot_ns);
        self.tell_hung("pss", hung);
        if hung.is_some() {
            self.registry.live_mut().for_each(|vm| vm.changed |= vm.memory.take_pss(None));
        }
        let new = self.pss_open.tell_hung(at.boot_ns);
        if new {
            tracing::warn!("reading a smaps_rollup hangs: no VM's proportional size is told until it comes back");
        }
        u64::from(new)
    }

    /// Believes what it sees: a guest that ran in our sight without a fault cannot be.
    fn judge_faults(&mut self, faulted: bool) {
        if self.faults == Entries::Seen {
            return;
        }
        let ran = |vm: &Vm| !vm.fixed.adopted && vm.work.as_deref().is_some_and(|work| has_run_in_sight(vm, work));
        let seen = match (faulted, self.registry.live().any(ran)) {
            (true, _) => Entries::Seen,
            (false, true) => Entries::Silent,
            (false, false) => return,
        };
        if seen == self.faults {
            return;
        }
        self.faults = seen;
        let names = self.facts.kvm_backends.join(", ");
        let Some(kernel) = &mut self.kernel else { return };
        kernel.mark_silent(Hooks::Fault, None);
        if seen == Entries::Silent {
            let why = format!("attached, but guests ran and KVM's back end here ({names}) never fired it");
            kernel.mark_silent(Hooks::Fault, Some(&why));
        }
        self.host.programs = kernel.statuses().to_vec();
    }

    /// A VM's process ended at `stop_ns`: its last marks are taken before its slot goes.
    pub(super) fn end_memory(&mut self, tgid: u32, stop_ns: u64) {
        let marked = self.kernel.as_ref().is_some_and(|kernel| kernel.is_at_work(MOVES));
        let told = self.faults == Entries::Seen;
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        let marks = vm.slot().zip(self.kernel.as_mut()).and_then(|(slot, kernel)| kernel.slots().memory_marks(slot));
        let until = vm.slot().zip(self.kernel.as_mut()).and_then(|(slot, kernel)| kernel.slots().memory_until_ns(slot));
        vm.memory.end(until.map_or(stop_ns, |until_ns| until_ns.min(stop_ns)), marks.filter(|_| marked));
        if let Some(marks) = marks {
            vm.changed |= vm.memory.take_guest_faults(Some(marks.guest_faults).filter(|count| told || *count > 0));
        }
    }
}

/// The instant of a reading; the turn's where the clock cannot be read.
fn now_ns(at: Instant2) -> u64 {
    clock::boot_ns().unwrap_or(at.boot_ns)
}
