//! KVM's uevents, and the search for VMs that no hook has told of: a vCPU that never leaves the guest on a back end
//! without `kvm_entry`, an event that was lost.

use std::collections::HashSet;

use super::{Engine, Pending};
use crate::{
    clock::Instant2,
    host::{
        ProgramStats, UeventOutcome,
        uevent::{KvmChange, KvmUevent},
    },
    units::Tid,
};

/// VM objects waited for at once; beyond that the next full scan finds them.
const MAX_PENDING: usize = 4_096;
/// How long a lost uevent may stay without a full scan.
const SOON_NS: u64 = 1_000_000_000;

impl Engine {
    /// All uevents that wait, off the socket.
    pub(super) fn drain_uevents(&mut self, at: Instant2) -> Vec<KvmUevent> {
        let mut events = Vec::new();
        let mut overflow = 0;
        if let Some(socket) = &self.uevents {
            loop {
                match socket.recv() {
                    Ok(UeventOutcome::Event(event)) => events.push(event),
                    Ok(UeventOutcome::Overflow) => overflow += 1,
                    Ok(UeventOutcome::Busy) => {}
                    Ok(UeventOutcome::Empty) | Err(_) => break,
                }
            }
        }
        if overflow > 0 {
            self.scan_soon(at);
        }
        events
    }

    /// Judges events by what is known now.
    pub(super) fn take_uevents(&mut self, events: &[KvmUevent], at: Instant2) {
        for event in events {
            self.take_uevent(event, at);
        }
    }

    fn scan_soon(&mut self, at: Instant2) {
        self.next_scan_ns = self.next_scan_ns.min(at.boot_ns + SOON_NS);
    }

    fn take_uevent(&mut self, event: &KvmUevent, at: Instant2) {
        self.tally.take(event.created_total, event.count);
        self.host.kvm.created = self.tally.created();
        self.host.kvm.count = self.tally.count();
        match event.change {
            KvmChange::Create => {
                self.attach_missing(at);
                self.await_run(event.pid, at);
            }
            KvmChange::Destroy => self.destroyed(event.pid),
        }
    }

    /// KVM's hooks exist only once its module is loaded, which may be after us.
    fn attach_missing(&mut self, at: Instant2) {
        let Some(kernel) = &mut self.kernel else { return };
        if kernel.attach_missing() {
            self.host.programs = kernel.statuses().to_vec();
            tracing::info!("kernel programs that could not be attached before are attached now");
            self.scan_soon(at);
        }
    }

    /// The event names the creating thread; its process is known while it lives.
    fn await_run(&mut self, pid: u32, at: Instant2) {
        if self.pending.len() < MAX_PENDING {
            let tgid = self.procfs.tgid_of(Tid(pid)).map_or(pid, |tgid| tgid.get());
            self.pending.insert(pid, Pending { tgid, since_ns: at.boot_ns });
        }
    }

    /// A VM object is gone. If its process never ran a guest, it was no VM.
    fn destroyed(&mut self, pid: u32) {
        let tgid = self.pending.remove(&pid).map_or(pid, |pending| pending.tgid);
        // Without hooks a short life that did run looks the same; nothing is claimed then.
        if self.kernel.is_some() && self.registry.of_tgid(tgid).is_none() && !self.ran.contains_key(&tgid) {
            self.host.unrun_vms += 1;
        }
    }

    /// Once a sample: looks whether a pending VM runs by now; at every reconcile: scans everything.
    pub(super) fn search(&mut self, at: Instant2) {
        let waiting: Vec<u32> = self.pending.values().map(|pending| pending.tgid).collect();
        let mut running: Vec<u32> =
            waiting.into_iter().filter(|tgid| self.registry.of_tgid(*tgid).is_none() && self.has_run(*tgid)).collect();
        if self.kernel.is_none() {
            // Without hooks a VM with vCPUs counts as one as soon as it is found.
            running.extend(self.holders());
        }
        running.sort_unstable();
        running.dedup();
        self.adopt(&running, at);
        self.pending.retain(|_, p| at.boot_ns.saturating_sub(p.since_ns) < 10 * self.settings.scan_ns);
        if at.boot_ns >= self.next_scan_ns {
            self.ask_about_programs();
            self.reconcile(at);
            self.next_scan_ns = at.boot_ns.saturating_add(self.settings.scan_ns);
        }
    }

    /// What the kernel counts about our programs, as of now.
    pub(super) fn ask_about_programs(&mut self) {
        let Some(kernel) = &self.kernel else { return };
        let asked = kernel.programs().filter_map(|(name, fd)| Some((name, ProgramStats::read(&self.root, fd).ok()?)));
        self.host.program_stats = asked.collect();
    }

    /// KVM's count of VM objects against the descriptors just found, if no event came while we looked. One difference
    /// may still be a VM half made (the event precedes the descriptor); the same twice in a row is something unseen.
    fn check_count(&mut self, before: u64) {
        let missing = self.tally.missing();
        if missing > self.uevents_missing {
            self.count_loss("uevent", missing - self.uevents_missing);
            self.uevents_missing = missing;
        }
        let (count, held) = (self.host.kvm.count, self.host.kvm.held);
        let still = before == self.tally.newest();
        let off = matches!((count, held), (Some(count), Some(held)) if still && count != held);
        if off && self.count_was_off == (count, held) {
            tracing::debug!(?count, ?held, "KVM counts other VM objects than /proc shows descriptors of");
            self.count_error("kvm_count", 1);
        }
        self.count_was_off = if off { (count, held) } else { (None, None) };
    }

    /// Ends VMs in kernel slots whose process is gone although no exit was seen (it was adopted while it exited).
    fn drop_vanished(&mut self, still: &HashSet<u32>, at: Instant2) {
        let slotted = self.registry.live().filter_map(|vm| Some((vm.slot()?, vm.fixed.tgid)));
        let stirred = slotted.filter(|(_, tgid)| !still.contains(tgid));
        let gone: Vec<_> = stirred.filter(|(_, tgid)| !self.is_same_process(*tgid)).collect();
        for (slot, tgid) in gone {
            // A process hidden from us looks gone, but its threads hold slots.
            let settled = self
                .kernel
                .as_mut()
                .is_none_or(|kernel| kernel.slots().has_exited(slot) || kernel.slots().has_threads(slot));
            if !settled {
                self.end_unseen(tgid, at);
                self.slots.remove(&slot);
                if let Some(kernel) = &mut self.kernel {
                    kernel.forget(slot, tgid);
                }
            }
        }
    }

    fn holders(&self) -> Vec<u32> {
        let unknown = self.pending.values().map(|p| p.tgid).filter(|tgid| self.registry.of_tgid(*tgid).is_none());
        unknown.filter(|tgid| self.procfs.kvm_fds(crate::units::Tgid(*tgid)).is_ok_and(|fds| fds.is_vm())).collect()
    }

    /// Compares what we know with what there is: VMs nobody told of, threads without a slot, slots without a thread.
    fn reconcile(&mut self, at: Instant2) {
        let newest = self.tally.newest();
        let still = self.still_vms(at);
        let found = self.scan(&still);
        let events = self.drain_uevents(at);
        if !events.is_empty() {
            self.read_kernel(at, false);
            self.take_uevents(&events, at);
        }
        self.check_count(newest);
        self.attach_missing(at);
        self.drop_vanished(&still, at);
        self.follow_groups(&still, at);
        self.follow_disks(&still, at);
        self.follow_network(still);
        self.follow_memory();
        let missed: Vec<u32> = found
            .into_iter()
            .map(|(tgid, _)| tgid)
            // With hooks at work, holding vCPUs is not yet running them.
            .filter(|tgid| self.kernel.is_none() || self.has_run(*tgid))
            .collect();
        self.adopt(&missed, at);
        if let Some(kernel) = &mut self.kernel {
            let walked = kernel.list_cpus().and_then(|()| kernel.walk());
            let orphans = kernel.slots().collect_orphans();
            if let Err(error) = walked {
                tracing::warn!(%error, "the kernel's task walk failed");
                self.count_error("walk", 1);
            }
            if orphans > 0 {
                tracing::debug!(orphans, "thread slots without a thread were returned");
            }
        }
    }
}
