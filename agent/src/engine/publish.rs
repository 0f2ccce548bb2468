//! Handing over: the turn's lines to the ledger, the state to the views.

use std::sync::Arc;

use super::Engine;
use crate::{
    account::{DiskUsage, Snapshot, VmState, VmView, host::LedgerState},
    clock::Instant2,
    ledger::{Stats, Ticket},
    vm::{Owner, Vm, record::Throttle},
};

/// Lines handed over at once: a refusal is all or none.
const CHUNK: usize = 1_024;

impl Engine {
    /// Gives the turn's lines to the ledger, a handful at a time. A full spool hands them back; they are offered again,
    /// without the heartbeats, which the next ones make good.
    pub(super) fn submit(&mut self) {
        let mut newest = None;
        while !self.out.is_empty() {
            let rest = self.out.split_off(self.out.len().min(CHUNK));
            match self.ledger.submit(std::mem::replace(&mut self.out, rest)) {
                Ok(ticket) => newest = Some(ticket),
                Err(refused) => {
                    let (mut kept, lines) = (refused.drafts, refused.why);
                    kept.append(&mut self.out);
                    let before = kept.len();
                    kept.retain(|draft| !draft.kind.is_heartbeat());
                    self.count_loss("heartbeat", (before - kept.len()) as u64);
                    tracing::error!(lines = kept.len(), why = ?lines, "the ledger takes no lines; they are kept");
                    self.out = kept;
                    return;
                }
            }
        }
        if let Some(ticket) = newest {
            self.given(ticket);
        }
    }

    /// All lines are handed over, the last of them with this ticket.
    fn given(&mut self, ticket: Ticket) {
        self.leaving_given(ticket);
        self.network_given(ticket);
        self.newest_ticket = ticket;
        for vm in self.registry.live_mut() {
            vm.start_line.given(ticket);
            vm.identity_line.given(ticket);
        }
        for vm in self.registry.stopped_mut() {
            vm.start_line.given(ticket);
            vm.identity_line.given(ticket);
            vm.stop_line.given(ticket);
        }
    }

    /// Finds the vm_ids of those that others waited for. All VMs of this turn are known by now; one that is not is none
    /// of ours, and its part stays with the rest.
    fn name_offenders(&mut self) {
        let asked = self.registry.live().filter(|vm| vm.changed).filter_map(|vm| Some((vm, vm.work.as_ref()?)));
        let mut found = Vec::new();
        for (vm, work) in asked {
            for (place, offender) in work.offenders.iter().enumerate().filter(|(_, offender)| offender.tgid != 0) {
                if vm.offenders[place].is_none()
                    && let Some(vm_id) = self.registry.vm_id_of(offender.tgid, offender.start_ns)
                {
                    found.push((vm.fixed.tgid, place, vm_id.to_owned()));
                }
            }
        }
        for (tgid, place, vm_id) in found {
            if let Some(vm) = self.registry.of_tgid_mut(tgid) {
                Arc::make_mut(&mut vm.offenders)[place] = Some(vm_id);
            }
        }
    }

    /// Publishes the state as it is now.
    pub(super) fn publish(&mut self, at: Instant2) {
        self.serial += 1;
        if let Some(kernel) = &self.kernel {
            self.host.wake_ups = kernel.wake_ups();
            for (stage, count) in kernel.losses() {
                self.host.losses.insert(stage, count);
            }
        }
        self.host.losses.extend(self.bus.lost());
        self.host.detail = self.settings.detail;
        self.host.linger_dropped = self.registry.dropped();
        let stats = self.ledger.stats();
        self.host.losses.insert("unread", stats.unread);
        self.host.ledger = state_of(&stats);
        let durable = self.ledger.durable();
        let degraded = self.ledger.is_degraded();
        self.name_offenders();
        let mut vms = Vec::with_capacity(self.registry.len());
        vms.extend(self.registry.all_mut().filter_map(|vm| view(vm, durable, degraded)));
        self.tell_states(&vms);
        let snapshot = Snapshot {
            taken: at,
            sampled_ns: self.sampled_ns,
            serial: self.serial,
            vms,
            host: Arc::new(self.host.clone()),
        };
        self.snapshots.send_replace(Arc::new(snapshot));
    }
}

impl Engine {
    /// Tells the metrics how many VMs came into each state and left it since the last time. What is told follows what is
    /// shown, so no lost event can put it off for good.
    fn tell_states(&mut self, vms: &[Arc<VmView>]) {
        let mut now = [0; VmState::ALL.len()];
        for vm in vms {
            now[vm.state() as usize] += 1;
        }
        for ((state, now), told) in VmState::ALL.into_iter().zip(now).zip(&mut self.states_told) {
            (*told..now).for_each(|_| self.metrics.inc_vm_state(state));
            (now..*told).for_each(|_| self.metrics.dec_vm_state(state));
            *told = now;
        }
    }
}

fn state_of(stats: &Stats) -> LedgerState {
    LedgerState {
        records: stats.records_total.iter().map(|(kind, count)| (kind.as_str(), *count)).collect(),
        failures: stats.write_failures.iter().map(|(op, count)| (op.as_str(), *count)).collect(),
        sequence: stats.last_seq,
        spooled: stats.spooled,
        refused: stats.refused,
        dropped_heartbeats: stats.dropped_heartbeats,
        busy_ns: u64::try_from(stats.busy.as_nanos()).unwrap_or(u64::MAX),
        degraded: stats.degraded,
        last_error: stats.last_error.clone(),
        hurt: stats.hurt.clone(),
        space: stats.space.map(|space| (space.free_bytes, space.min_bytes)),
    }
}

/// A VM as the views may show it: not before its start line is durable, and not stopped before its stop line is. While
/// the ledger cannot be written the numbers are shown all the same; health says what is wrong. Made anew only when
/// something has changed: most turns are about one VM of many.
fn view(vm: &mut Vm, durable: Ticket, degraded: bool) -> Option<Arc<VmView>> {
    if !degraded && !vm.start_line.is_durable(durable) {
        return None;
    }
    let ended = vm.end.is_some() && (degraded || vm.stop_line.is_durable(durable));
    if let Some(view) = &vm.view
        && !vm.changed
        && view.end.is_some() == ended
    {
        return Some(Arc::clone(view));
    }
    let told = degraded || vm.identity_line.is_durable(durable);
    let view = Arc::new(VmView {
        fixed: Arc::clone(&vm.fixed),
        owner: owner(vm, told),
        end: vm.end.clone().filter(|_| ended),
        paused: vm.pause.paused,
        cpu: vm.cpu,
        source: vm.source,
        work: vm.work.clone(),
        guest_ns: vm.guest_ns(),
        halt_poll_ns: vm.halt_poll_ns(),
        throttled_ns: vm.throttled_ns,
        unthrottled: match &vm.throttle {
            Throttle::Absent(why) => Some(Arc::clone(why)),
            _ => None,
        },
        network: vm.shown_network().cloned(),
        disk: (*vm.disk.usage != DiskUsage::default()).then(|| Arc::clone(&vm.disk.usage)),
        sockets: vm.sockets.bytes,
        unsocketed: vm.sockets.why_not.clone(),
        memory: vm.memory.view(),
        offenders: Arc::clone(&vm.offenders),
        vcpu_order: Arc::clone(&vm.vcpu_order),
        vcpus_in_order: vm.vcpus_in_order(),
        read_ns: vm.alive_ns,
        first_run_ns: vm.first_run_ns,
        latest: vm.rates.latest().cloned(),
        workload: vm.workload.as_ref().map(|place| place.told()),
    });
    vm.changed = !told;
    vm.view = Some(Arc::clone(&view));
    Some(view)
}

/// Whose a VM is, as the views may show it: what was learned not before the line that tells it is durable.
fn owner(vm: &Vm, told: bool) -> Arc<Owner> {
    match &vm.view {
        Some(before) if !told => Arc::clone(&before.owner),
        _ => Arc::clone(vm.owners.whole()),
    }
}
