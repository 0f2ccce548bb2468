//! Handing over: the turn's lines to the ledger, the state to the views.

use std::sync::Arc;

use super::Engine;
use crate::{
    account::{Snapshot, VmView, snapshot::LedgerState},
    clock::Instant2,
    ledger::{Stats, Ticket},
    vm::Vm,
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
        for vm in self.registry.live_mut() {
            vm.start_line.given(ticket);
        }
        for vm in self.registry.stopped_mut() {
            vm.start_line.given(ticket);
            vm.stop_line.given(ticket);
        }
    }

    /// Publishes the state as it is now.
    pub(super) fn publish(&mut self, at: Instant2) {
        self.serial += 1;
        if let Some(kernel) = &self.kernel {
            for (stage, count) in kernel.losses() {
                self.host.losses.insert(stage, count);
            }
        }
        self.host.linger_dropped = self.registry.dropped();
        self.host.ledger = state_of(&self.ledger.stats());
        let durable = self.ledger.durable();
        let degraded = self.ledger.is_degraded();
        let vms =
            self.registry.live().chain(self.registry.stopped()).filter_map(|vm| view(vm, durable, degraded)).collect();
        let snapshot = Snapshot { taken: at, serial: self.serial, vms, host: Arc::new(self.host.clone()) };
        self.snapshots.send_replace(Arc::new(snapshot));
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
    }
}

/// A VM as the views may show it: not before its start line is durable, and not stopped before its stop line is. While
/// the ledger cannot be written the numbers are shown all the same; health says what is wrong.
fn view(vm: &Vm, durable: Ticket, degraded: bool) -> Option<VmView> {
    if !degraded && !vm.start_line.is_durable(durable) {
        return None;
    }
    let end = vm.end.clone().filter(|_| degraded || vm.stop_line.is_durable(durable));
    Some(VmView {
        fixed: Arc::clone(&vm.fixed),
        end,
        cpu: vm.cpu,
        source: vm.source,
        userspace_exits: vm.userspace_exits,
        first_run_ns: vm.first_run_ns,
        latest: vm.ring.latest().cloned(),
        samples: vm.ring.len(),
    })
}
