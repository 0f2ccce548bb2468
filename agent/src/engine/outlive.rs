//! Tables that outlive the agent: what an earlier one left in them is gone on with, what this one knows is left in them,
//! and a slot is emptied only once the ledger has what was in it.

use kvmeter_common::vm::Kept;

use super::Engine;
use crate::{
    account::{Carry, CpuUsage, Told},
    bpf::{VmReading, Want},
    clock::Instant2,
    ledger::{Coverage, Draft, Kind, OpenInterval, Recovered, Subject, Ticket, TimeQuality},
    units::Tgid,
    vm::{Line, Vm, identity, record::ToldWork},
};

/// Losses that cost latency alone.
const LATE: [&str; 1] = ["wake"];

impl Engine {
    /// What is in the slots that an earlier agent left; those whose stop is in the ledger are emptied.
    pub(super) fn found_slots(&mut self, recovered: &Recovered) -> Vec<VmReading> {
        let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.found().is_some()) else { return Vec::new() };
        let readings = kernel.slots().read(|_, _| Want::Always).changed;
        let tick_ns = self.facts.tick_ns().unwrap_or(super::scan::TICK_NS).max(1);
        // An incarnation found in /proc has its tick's first nanosecond.
        let over = |reading: &VmReading| {
            [reading.start_ns, reading.start_ns / tick_ns * tick_ns].into_iter().any(|start_ns| {
                recovered.has_ended(&identity::incarnation(&self.boot_id, Tgid(reading.tgid), start_ns))
            })
        };
        let (over, held): (Vec<_>, Vec<_>) = readings.into_iter().partition(over);
        for reading in &over {
            kernel.forget(reading.slot, reading.tgid);
        }
        tracing::info!(vms = held.len(), told = over.len(), "counting goes on in pinned tables");
        held
    }

    /// The slot of an open interval, whether or not its process still lives.
    pub(super) fn held<'a>(&self, interval: &OpenInterval, found: &'a [VmReading]) -> Option<&'a VmReading> {
        let tick = interval.started_mono_ns / self.tick_ns();
        let mine = |reading: &&VmReading| {
            Some(reading.tgid) == super::resume::tgid_of(interval) && reading.start_ns / self.tick_ns() == tick
        };
        found.iter().find(mine).filter(|_| interval.boot_id == self.boot_id)
    }

    /// Goes on with what an earlier agent added to a slot's numbers. False if it left nothing, or nothing that fits what
    /// it told: then the difference is worked out anew.
    pub(super) fn take_kept(&self, vm: &mut Vm, reading: &VmReading) -> bool {
        let Some(kept) = self.kernel.as_ref().and_then(|kernel| kernel.kept(reading.slot)) else { return false };
        let carry = Carry::from_words(kept.shift_ns, kept.runtime_ns, kept.run_delay_ns);
        let now = carry.apply(CpuUsage::from_roles(&reading.roles));
        if vm.told.as_ref().is_some_and(|told| !told.is_within(&now)) {
            tracing::warn!(vm_id = %vm.fixed.vm_id, "a VM's slot is behind what the ledger told of it");
            return false;
        }
        vm.told = None;
        vm.carry = carry;
        vm.told_work = ToldWork {
            guest_ns: vm.told_work.guest_ns.map(|_| kept.guest_ns),
            halt_poll_ns: vm.told_work.halt_poll_ns.map(|_| kept.halt_poll_ns),
        };
        vm.observed_before_ns = kept.observed_ns;
        vm.kept = true;
        true
    }

    /// Leaves with a VM's slot what is added to its numbers, once that is known.
    pub(super) fn keep(&mut self, reading: &VmReading) {
        let (Some(kernel), Some(vm)) = (&mut self.kernel, self.registry.of_tgid_mut(reading.tgid)) else { return };
        if vm.kept || vm.told.is_some() || vm.slot() != Some(reading.slot) {
            return;
        }
        let (shift_ns, runtime_ns, run_delay_ns) = vm.carry.to_words();
        let before_slot_ns = reading.seen_ns.saturating_sub(vm.observed_since_ns);
        kernel.keep(
            reading.slot,
            Kept {
                written: 1,
                guest_ns: vm.told_work.guest_ns.unwrap_or(0),
                halt_poll_ns: vm.told_work.halt_poll_ns.unwrap_or(0),
                observed_ns: vm.observed_before_ns.saturating_add(before_slot_ns),
                shift_ns,
                runtime_ns,
                run_delay_ns,
            },
        );
        vm.kept = true;
    }

    /// A VM's stop line is in this turn's batch: its slot goes back now, or, where it would outlive us, once the line is
    /// durable. An agent killed in between leaves it to the next one.
    pub(super) fn leave(&mut self, slot: u32) {
        let Some(kernel) = &mut self.kernel else { return };
        if kernel.is_pinned() {
            self.leaving.insert(slot, Line::Queued);
        } else {
            kernel.slots().release(slot);
        }
    }

    /// The batch was handed over.
    pub(super) fn leaving_given(&mut self, ticket: Ticket) {
        self.leaving.values_mut().for_each(|line| line.given(ticket));
    }

    /// Gives back the slots whose lines are durable. While the ledger takes none, half of all slots are held for it and
    /// no more: a VM that is not counted is worse than one that a crash would bound.
    pub(super) fn give_back(&mut self) {
        let Some(kernel) = self.kernel.as_mut().filter(|_| !self.leaving.is_empty()) else { return };
        let durable = self.ledger.durable();
        let most = kernel.slots().count() as usize / 2;
        let surplus = self.leaving.len().saturating_sub(most);
        let done = self.leaving.iter().filter(|(_, line)| line.is_durable(durable)).map(|(slot, _)| *slot);
        let done: Vec<u32> = done.chain(self.leaving.keys().copied().take(surplus)).collect();
        for slot in done {
            if self.leaving.remove(&slot).is_some() {
                kernel.slots().release(slot);
            }
        }
    }

    /// The line for what was lost while no agent read the tables, or for a time in which nothing was counted because an
    /// earlier agent's tables are of another layout.
    pub(super) fn gap(&self, recovered: &Recovered, now: Instant2) -> Option<Draft> {
        let kernel = self.kernel.as_ref()?;
        if let Some(found) = kernel.found() {
            let lost: Vec<_> = found.lost.iter().filter(|(stage, _)| !LATE.contains(stage)).collect();
            let told = lost.iter().map(|(stage, count)| format!("{stage} {count}")).collect::<Vec<_>>().join(", ");
            let lost_events = lost.iter().map(|(_, count)| count).sum();
            let watched =
                Coverage { observed_ns: now.boot_ns.saturating_sub(found.read_ns), unobserved_ns: 0, lost_events };
            return (lost_events > 0).then(|| self.gap_line(found.read_ns, watched, format!("lost: {told}"), now));
        }
        let (_, last) = recovered.watched.as_ref().filter(|(boot_id, _)| *boot_id == self.boot_id)?;
        let unobserved_ns = now.boot_ns.saturating_sub(last.mono_ns);
        let coverage = Coverage { observed_ns: 0, unobserved_ns, lost_events: 0 };
        kernel.closed_others().then(|| self.gap_line(last.mono_ns, coverage, "another layout".to_owned(), now))
    }

    fn gap_line(&self, since_ns: u64, coverage: Coverage, cause: String, now: Instant2) -> Draft {
        let since_at = now.unix_of(since_ns);
        let mut draft = Draft::new(Kind::AgentGap, Subject::Ledger, &self.boot_id, since_at, since_ns);
        draft.time_quality = TimeQuality::Bounded { not_before: since_at, not_after: now.unix_ns.max(since_at) };
        draft.coverage = Some(coverage);
        draft.cause = cause;
        draft
    }

    /// What is told of a VM that goes on, until its first reading is compared to it.
    pub(super) fn told_of(interval: &OpenInterval) -> Option<Told> {
        interval.usage.as_ref().map(|usage| Told {
            cpu_ns: [usage.cpu_vcpu_ns, usage.cpu_vmm_ns, usage.cpu_io_ns, usage.cpu_vhost_ns]
                .map(Option::unwrap_or_default),
            run_delay_ns: usage.run_delay_ns.unwrap_or(0),
        })
    }
}
