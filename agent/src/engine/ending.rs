//! The end of a VM: what it is judged by (who sent signals, whether the host is going down), and its stop line.

use super::{Engine, annotate::Annotations};
use crate::{
    account::{CpuUsage, snapshot::VmEnd},
    bpf::{Exit, VmReading},
    clock::{self, Instant2},
    host::{libvirt_log, shutdown},
    ledger::{Past, TimeQuality},
    lifecycle::{Ending, Verdict, verdict},
    vm::{Line, Origin, identity::Hypervisor, record::Throttle},
};

/// How long a look at the host's state is good for: a thousand VMs stopped at once take one.
const GOOD_FOR_NS: u64 = 200_000_000;

/// Whether the host is going down, as of the last look.
#[derive(Clone, Copy, Debug, Default)]
struct HostDown {
    looked_ns: u64,
    down: bool,
}

/// What starts and ends are judged by, beside readings.
#[derive(Default)]
pub(super) struct Why {
    /// What was stated of VMs.
    pub(super) annotations: Annotations,
    /// Lives that are over.
    pub(super) past: Past,
    host_down: HostDown,
}

impl Engine {
    /// Judges the end of a process that was seen to end.
    pub(super) fn judge(&mut self, reading: &VmReading, exit: Exit, at: Instant2) -> Verdict {
        let host_down = self.is_host_going_down(at);
        let qemu = self.registry.of_tgid(reading.tgid).filter(|vm| vm.fixed.hypervisor == Hypervisor::Qemu.as_str());
        let shutoff = qemu.and_then(|vm| libvirt_log::shutoff(&self.root, &vm.fixed.name, vm.fixed.started_at));
        let shutoff = shutoff.or_else(|| self.moved_away(reading));
        let signals = self.kernel.as_ref().and_then(|kernel| kernel.signals(reading.slot));
        verdict(&Ending {
            status: Some(exit.code),
            last_exit: reading.last_exit,
            signals: signals.as_ref(),
            host_down,
            shutoff,
        })
    }

    fn is_host_going_down(&mut self, at: Instant2) -> bool {
        if self.why.host_down.looked_ns == 0 || at.boot_ns.saturating_sub(self.why.host_down.looked_ns) > GOOD_FOR_NS {
            self.why.host_down =
                HostDown { looked_ns: at.boot_ns, down: shutdown::is_under_way(&self.root, at.unix_ns) };
        }
        self.why.host_down.down
    }

    /// Ends a VM whose end nobody saw: some time between its last sign of life and now, told as the former.
    pub(super) fn end_unseen(&mut self, tgid: u32, at: Instant2) {
        let Some(vm) = self.registry.of_tgid(tgid) else { return };
        let alive_ns = vm.alive_ns;
        let (not_before, not_after) = (at.unix_of(alive_ns), at.unix_ns);
        let quality = TimeQuality::Bounded { not_before, not_after };
        self.settle_zombie_disk(tgid);
        self.settle_network_unseen(tgid, at);
        self.end(tgid, alive_ns, not_before, quality, verdict(&Ending::default()));
    }

    pub(super) fn end(&mut self, tgid: u32, stop_ns: u64, stopped_at: u64, quality: TimeQuality, mut verdict: Verdict) {
        self.stated_stop(tgid, stop_ns).over_stop(&mut verdict);
        let tick_ns = self.tick_ns();
        self.settle_sockets(tgid);
        self.end_memory(tgid, stop_ns);
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        self.ended.insert(tgid, (vm.start_tick(tick_ns), stop_ns));
        if vm.cpu.is_none() && vm.told.is_some() {
            // It ended before a first reading: what an earlier agent told stands.
            vm.take_cpu(CpuUsage::default());
        }
        let Some(vm) = self.registry.of_tgid(tgid) else { return };
        let draft = self.about(vm).stop(stopped_at, stop_ns, quality, &verdict);
        let vm_id = vm.fixed.vm_id.clone();
        let now_ns = clock::boot_ns().unwrap_or(stop_ns);
        self.tell(draft, now_ns);
        self.storage_stopped(&vm_id, Instant2 { boot_ns: stop_ns, unix_ns: stopped_at });
        let reason = verdict.reason.map_or("", |r| r.as_str()).to_owned();
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        tracing::info!(vm_id = %vm.fixed.vm_id, tgid, cause = verdict.cause, reason, "VM ended");
        // Its groups may be gone already; then what was read last stands.
        vm.read_throttling();
        vm.throttle = Throttle::NotLooked;
        vm.disk.close();
        // It may have had none from this agent, and a line from an earlier one.
        vm.samples = None;
        self.history.stopped(&vm.fixed.vm_id, stop_ns.saturating_add(self.settings.keep_ns));
        vm.origin = Origin::Final;
        vm.changed = true;
        vm.stop_line = Line::Queued;
        let label = if reason.is_empty() { "unknown".to_owned() } else { reason.clone() };
        let key = (vm.fixed.hypervisor.clone(), label);
        vm.end = Some(VmEnd { stopped_at, stop_ns, reason, cause: verdict.cause.to_owned() });
        *self.host.stops.entry(key).or_default() += 1;
        self.network_over(tgid);
        self.registry.retire(tgid);
    }
}
