//! One turn: read, settle births and deaths, sample when it is time, hand over to ledger and views.

use std::time::Instant;

use super::{Engine, scan::Process, workload::workload};
use crate::{
    bpf::{Readings, VmReading, Want},
    clock::{self, Instant2},
    history::Reading,
    vm::Origin,
};

/// How long after a VM is seen its running threads are looked at: guest time moves with the scheduler's tick (4 ms at
/// 250 Hz), and the sooner a vCPU that never leaves the guest is known for one, the less of its time is told as the VMM's.
const PEEK_NS: u64 = 20_000_000;
/// How long a process is remembered as one that ran a guest.
const RAN_NS: u64 = 300_000_000_000;

impl Engine {
    /// One turn at `now`.
    pub(super) fn turn(&mut self, now: Instant2) {
        let began = Instant::now();
        let due = now.boot_ns >= self.next_tick_ns;
        self.watch_clocks(now);
        self.give_back();
        self.network_forget();
        let peek = self.peek_ns > 0 && now.boot_ns >= self.peek_ns;
        if due {
            self.ask_network(now);
        }
        if due || peek {
            self.peek_ns = 0;
            self.refresh();
        }
        if peek {
            // Threads that had their names before their VM was seen.
            self.walk();
        }
        // The instant of the reading: after the refresh, before the read.
        let at = clock::now().unwrap_or(now);
        // Before the readings: a VM that ended in between must be known when its end is judged.
        let events = self.drain_uevents(at);
        self.read_kernel(at, due || peek);
        self.take_uevents(&events, at);
        if due {
            self.sample(at);
            let took = began.elapsed();
            self.host.sample_durations.observe(took.as_secs_f64());
            self.host.last_sample_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            // Ticks keep their rhythm; after a pause the rhythm starts anew instead of catching up.
            self.next_tick_ns = match self.next_tick_ns.saturating_add(self.settings.sample_ns) {
                next if self.next_tick_ns > 0 && next > at.boot_ns => next,
                _ => at.boot_ns.saturating_add(self.settings.sample_ns),
            };
        }
        self.take_storage(at);
        self.submit();
        self.settle_statements(at);
        self.publish(at);
    }

    fn refresh(&mut self) {
        let failed = self.kernel.as_mut().map_or(0, crate::bpf::Kernel::refresh);
        self.count_error("refresh", failed);
    }

    fn walk(&mut self) {
        if self.kernel.as_mut().is_some_and(|kernel| kernel.walk().is_err()) {
            self.count_error("walk", 1);
        }
    }

    /// Takes over what the kernel programs know: ends first, so that an old stop precedes a new start. Between two
    /// samples only VMs that begin or end are looked at.
    pub(super) fn read_kernel(&mut self, at: Instant2, all: bool) {
        let Some(kernel) = self.kernel.as_mut() else { return };
        kernel.drain();
        let unwalked = kernel.unwalked();
        if unwalked > self.unwalked {
            self.unwalked = unwalked;
            self.walk();
        }
        let Some(kernel) = self.kernel.as_mut() else { return };
        let (known_slots, leaving) = (&self.slots, &self.leaving);
        let readings = kernel.slots().read(|slot, ended| match (known_slots.contains_key(&slot), all) {
            // Its stop is on its way into the ledger.
            (false, _) if leaving.contains_key(&slot) => Want::No,
            // An end, or a beginning that could not be taken in yet, is looked at until it is settled.
            (true, _) if ended => Want::Always,
            (false, _) => Want::Always,
            (true, true) => Want::IfChanged,
            (true, false) => Want::No,
        });
        kernel.note_read(at.boot_ns);
        let readings = self.still_alive(readings, at);
        let torn = readings.iter().filter(|r| !r.consistent).count();
        self.count_error("fold", u64::try_from(torn).unwrap_or(u64::MAX));
        let (mut known, mut new): (Vec<_>, Vec<_>) =
            readings.into_iter().partition(|r| self.slots.contains_key(&r.slot));
        // Old ends before new ones, old births before new ones: per vm_id the ledger's order is the order of time.
        known.sort_by_key(|reading| reading.exit.map(|exit| exit.at_ns));
        new.sort_by_key(|reading| reading.start_ns);
        for reading in known {
            self.take(reading, at);
        }
        if !new.is_empty() && self.peek_ns == 0 {
            self.peek_ns = at.boot_ns + PEEK_NS;
        }
        for reading in new {
            self.newcomer(reading, at);
        }
    }

    /// VMs in which nothing has run live on all the same.
    fn still_alive(&mut self, readings: Readings, at: Instant2) -> Vec<VmReading> {
        for slot in readings.idle {
            if let Some(vm) = self.slots.get(&slot).and_then(|tgid| self.registry.of_tgid_mut(*tgid)) {
                vm.alive_ns = at.boot_ns;
            }
        }
        readings.changed
    }

    /// Takes a known VM's reading; ends it if that is its last.
    fn take(&mut self, reading: VmReading, at: Instant2) {
        let Some(vm) = self.registry.of_tgid_mut(reading.tgid) else { return };
        if vm.slot() != Some(reading.slot) {
            return;
        }
        vm.alive_ns = at.boot_ns;
        let fell = vm.take_reading(&reading, &mut self.host.work);
        let kept = vm.kept;
        if vm.first_run_ns.is_none() {
            vm.first_run_ns = reading.first_run_ns;
        }
        vm.throttle_moved = true;
        vm.stirred = true;
        vm.disk.moved = true;
        vm.sockets.moved = true;
        vm.exiting |= reading.exit.is_some();
        self.ran.insert(reading.tgid, at.boot_ns);
        self.count_error("regression", u64::from(fell));
        if !kept {
            self.keep(&reading);
        }
        if let Some(exit) = reading.exit {
            self.maybe_end(&reading, exit, at);
        }
    }

    /// What happens once an interval.
    fn sample(&mut self, at: Instant2) {
        self.sample_proc(at);
        self.search(at);
        self.follow_inventory(at);
        self.follow_identities(at);
        self.find_groups(at);
        self.sample_throttling();
        self.sample_disks(at);
        self.follow_shapes(at);
        self.tally_storage(at);
        self.sample_sockets();
        self.sample_paused();
        self.follow_arrivals();
        self.sample_network(at);
        self.judge_entries();
        self.sample_memory(at);
        let text = clock::rfc3339(at.unix_ns);
        // Readings jitter around their rhythm: half of it is the nearest one.
        let spacing = self.settings.history_ns.saturating_sub(self.settings.sample_ns / 2);
        for vm in self.registry.live_mut() {
            if !vm.rates.is_due(at.boot_ns, spacing) {
                continue;
            }
            let workload = self.workloads.as_ref().and_then(|asker| workload(asker, vm));
            let reading = Reading { workload, ..vm.reading() };
            if let Some(sample) = vm.rates.offer(at.boot_ns, spacing, &text, reading).cloned() {
                if self.history.keeps() {
                    let line = vm.samples.get_or_insert_with(|| self.history.track(&vm.fixed.vm_id));
                    self.history.push(line, at.unix_ns, &sample);
                }
                vm.changed = true;
            }
        }
        self.history.expire(at.boot_ns);
        self.samples += 1;
        self.trim(at);
        self.heartbeat(at);
        self.registry.expire(at.boot_ns.saturating_sub(self.settings.linger_ns));
        let oldest = at.boot_ns.saturating_sub(RAN_NS);
        self.ran.retain(|_, seen| *seen >= oldest);
        self.ended.retain(|_, (_, seen)| *seen >= oldest);
    }

    /// Reads the VMs that only `/proc` tells of; ends those that are gone.
    fn sample_proc(&mut self, at: Instant2) {
        let tgids: Vec<u32> =
            self.registry.live().filter(|vm| matches!(vm.origin, Origin::Proc(_))).map(|vm| vm.fixed.tgid).collect();
        for tgid in tgids {
            self.sample_one(tgid, at);
        }
    }

    fn sample_one(&mut self, tgid: u32, at: Instant2) {
        let alive = self.is_same_process(tgid);
        let (root, procfs) = (self.root.clone(), &self.procfs);
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        if !alive {
            return self.end_unseen(tgid, at);
        }
        let Origin::Proc(threads) = &mut vm.origin else { return };
        let errors = threads.errors();
        let cpu = threads.sample(&root, procfs);
        let failed = threads.errors() - errors;
        let fell = cpu.is_some_and(|cpu| vm.take_cpu(cpu));
        vm.throttle_moved = true;
        vm.disk.moved = true;
        vm.sockets.moved = true;
        vm.alive_ns = at.boot_ns;
        self.count_error("proc", failed);
        self.count_error("regression", u64::from(fell));
    }

    /// Whether the process that was this VM still is: same start tick, and not a zombie. One that cannot be looked at
    /// counts as itself.
    pub(super) fn is_same_process(&self, tgid: u32) -> bool {
        let Some(vm) = self.registry.of_tgid(tgid) else { return false };
        match self.process_of(tgid) {
            Process::Alive { start_ns } => start_ns / self.tick_ns() == vm.start_tick(self.tick_ns()),
            Process::Ended => false,
            Process::Unknown => true,
        }
    }

    /// The next heartbeat's Unix second after `unix_ns`.
    pub(super) fn heartbeat_after(&self, unix_ns: u64) -> u64 {
        let period = (self.settings.heartbeat_ns / 1_000_000_000).max(1);
        (unix_ns / 1_000_000_000 / period + 1) * period
    }

    /// One line a living VM, at multiples of the period on the wall clock.
    fn heartbeat(&mut self, at: Instant2) {
        let now_s = at.unix_ns / 1_000_000_000;
        if self.next_heartbeat_s == 0 {
            self.next_heartbeat_s = self.heartbeat_after(at.unix_ns);
        }
        if now_s < self.next_heartbeat_s {
            return;
        }
        let period = (self.settings.heartbeat_ns / 1_000_000_000).max(1);
        let slot = now_s / period * period;
        self.next_heartbeat_s = slot + period;
        if slot <= self.last_slot_s {
            // The wall clock was set back into a slot already told: its lines would have ids already used.
            return;
        }
        self.last_slot_s = slot;
        let lines: Vec<_> = self
            .registry
            .live()
            // One that began after this turn's instant was taken is told of from the next slot on.
            .filter(|vm| vm.cpu.is_some() && !vm.exiting && vm.fixed.start_ns <= at.boot_ns)
            .map(|vm| self.about(vm).heartbeat(at, slot))
            .collect();
        self.out.extend(lines);
    }
}
