//! From a VM to the ledger lines that tell of it. Pure: everything comes in as values.

use std::sync::Arc;

use crate::{
    account::{
        CpuUsage, MemoryUsage, NetworkUsage, Role,
        network::{Interface, Traffic},
        snapshot::VmFixed,
    },
    clock::Instant2,
    ledger::{Coverage, Draft, Kind, NetUnobserved, NetUsage, Shape, Subject, TimeQuality, Usage},
    lifecycle::{Start, Verdict},
    vm::Owner,
};

/// What lines about one VM have in common.
pub struct About<'a> {
    /// The VM.
    pub fixed: &'a VmFixed,
    /// Whose it is.
    pub owner: &'a Owner,
    /// The boot its instants count in.
    pub boot_id: &'a str,
    /// Since when its numbers were watched, CLOCK_BOOTTIME nanoseconds.
    pub observed_since_ns: u64,
    /// How long earlier agents watched them, nanoseconds.
    pub observed_before_ns: u64,
    /// Its numbers so far; absent if none could be read.
    pub cpu: Option<CpuUsage>,
    /// Whether I/O threads and the kernel's own are told apart: `/proc` alone does not.
    pub fine: bool,
    /// Time inside the guest; absent if it was not told.
    pub guest_ns: Option<u64>,
    /// Time spent polling while halted, with success; absent if it was not told.
    pub halt_poll_ns: Option<u64>,
    /// What passed through its interfaces; absent where that is not known at all.
    pub network: Option<&'a NetworkUsage>,
    /// Bytes its process read from and wrote to storage; absent if they could not be read.
    pub disk: Option<(u64, u64)>,
    /// Its memory.
    pub memory: &'a MemoryUsage,
}

impl About<'_> {
    fn draft(&self, kind: Kind, emitted_at: u64, mono_ns: u64) -> Draft {
        let subject = Subject::Incarnation(self.fixed.incarnation.clone());
        let mut draft = Draft::new(kind, subject, self.boot_id, emitted_at, mono_ns);
        draft.vm_id.clone_from(&self.fixed.vm_id);
        draft.hypervisor.clone_from(&self.fixed.hypervisor);
        let VmFixed { vcpus: cpu, mem_bytes, storage_bytes, .. } = *self.fixed;
        draft.shape = Shape { cpu, mem_bytes, storage_bytes };
        draft
    }

    fn named(&self, mut draft: Draft) -> Draft {
        draft.name.clone_from(self.owner.name.as_ref().unwrap_or(&self.fixed.name));
        draft.uuid.clone_from(self.owner.uuid.as_ref().unwrap_or(&self.fixed.uuid));
        draft.tenant = self.owner.tenant.clone().unwrap_or_default();
        draft.labels.clone_from(&self.owner.labels);
        draft
    }

    /// The counters as the ledger writes them.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let cpu = self.cpu?;
        Some(Usage {
            cpu_vcpu_ns: Some(cpu.of(Role::Vcpu).runtime_ns),
            cpu_vmm_ns: Some(cpu.of(Role::Vmm).runtime_ns),
            cpu_io_ns: cpu.told(Role::Io, self.fine).map(|time| time.runtime_ns),
            cpu_vhost_ns: cpu.told(Role::Vhost, self.fine).map(|time| time.runtime_ns),
            guest_ns: self.guest_ns,
            halt_poll_ns: self.halt_poll_ns,
            run_delay_ns: Some(cpu.run_delay_ns()),
            net: self.network.map(net).unwrap_or_default(),
            net_unobserved: self.network.map(net_unobserved).unwrap_or_default(),
            disk_read_bytes: self.disk.map(|(read, _)| read),
            disk_written_bytes: self.disk.map(|(_, written)| written),
            mem_byte_ns: self.memory.byte_ns,
            mem_peak_bytes: self.memory.peak_bytes,
        })
    }

    /// How much of the life up to `mono_ns` was watched.
    #[must_use]
    pub fn coverage(&self, mono_ns: u64) -> Coverage {
        let age = mono_ns.saturating_sub(self.fixed.start_ns);
        let lately = mono_ns.saturating_sub(self.observed_since_ns.max(self.fixed.start_ns));
        let observed_ns = self.observed_before_ns.saturating_add(lately).min(age);
        Coverage { observed_ns, unobserved_ns: age - observed_ns, lost_events: 0 }
    }

    /// `vm.compute.start`, at the process's start. `quality` is bounded where only `/proc` told the start, in ticks.
    #[must_use]
    pub fn start(&self, first_run_at: Option<u64>, why: &Start, quality: TimeQuality) -> Draft {
        let mut draft = self.named(self.draft(Kind::VmComputeStart, self.fixed.started_at, self.fixed.start_ns));
        draft.evidence.first_run_at = first_run_at;
        draft.evidence.annotated_by.clone_from(&why.annotated_by);
        draft.reason = why.reason;
        draft.source_snapshot_id.clone_from(&why.source_snapshot_id);
        draft.time_quality = quality;
        draft
    }

    /// `vm.identity`: all that is known of whose it is, learned at `at`; `annotated_by` names who stated it, if somebody did.
    #[must_use]
    pub fn identity(&self, at: Instant2, annotated_by: Option<&str>) -> Draft {
        let mut draft = self.named(self.draft(Kind::VmIdentity, at.unix_ns, at.boot_ns));
        draft.evidence.annotated_by = annotated_by.map(str::to_owned);
        draft
    }

    /// `vm.compute.resize`: the whole shape, as it is from `at` on.
    #[must_use]
    pub fn resize(&self, at: Instant2) -> Draft {
        self.draft(Kind::VmComputeResize, at.unix_ns, at.boot_ns)
    }

    /// `vm.compute.usage`, of the reading at `at`, for the slot that began at `slot` (Unix seconds).
    #[must_use]
    pub fn heartbeat(&self, at: Instant2, slot: u64) -> Draft {
        let mut draft = self.draft(Kind::VmComputeUsage, at.unix_ns, at.boot_ns);
        draft.slot = Some(slot);
        draft.usage = self.usage();
        draft.coverage = Some(self.coverage(at.boot_ns));
        draft
    }

    /// `vm.compute.stop`, at the instant and with the certainty given.
    #[must_use]
    pub fn stop(&self, emitted_at: u64, mono_ns: u64, quality: TimeQuality, verdict: &Verdict) -> Draft {
        let mut draft = self.named(self.draft(Kind::VmComputeStop, emitted_at, mono_ns));
        draft.time_quality = quality;
        draft.cause = verdict.cause.to_owned();
        draft.reason = verdict.reason;
        draft.snapshot_id.clone_from(&verdict.snapshot_id);
        draft.evidence = verdict.evidence.clone();
        draft.usage = self.usage();
        draft.coverage = Some(self.coverage(mono_ns));
        draft
    }
}

/// One entry an interface and class. What is not observed has none, never a zero.
fn net(usage: &NetworkUsage) -> Vec<NetUsage> {
    let of = |interface: &Interface| {
        let entry = |(class, traffic): (&Arc<str>, &Traffic)| NetUsage::new(&interface.name, class, traffic);
        interface.classes.iter().map(entry).collect::<Vec<_>>()
    };
    usage.interfaces.iter().flat_map(of).collect()
}

fn net_unobserved(usage: &NetworkUsage) -> Vec<NetUnobserved> {
    let blind = usage.interfaces.iter().filter(|interface| interface.unobserved.is_some());
    let told = |interface: &Interface| NetUnobserved {
        interface: interface.name.to_string(),
        kind: interface.kind.as_str().to_owned(),
    };
    blind.map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed() -> VmFixed {
        VmFixed { incarnation: "i".into(), vm_id: "v".into(), start_ns: 100, started_at: 1_100, ..VmFixed::default() }
    }

    #[test]
    fn observed_and_unobserved_sum_to_the_age() {
        let fixed = fixed();
        for since in [0, 100, 150, 500] {
            let about = About {
                fixed: &fixed,
                owner: &Owner::default(),
                boot_id: "b",
                observed_since_ns: since,
                observed_before_ns: 0,
                cpu: None,
                fine: true,
                guest_ns: None,
                halt_poll_ns: None,
                network: None,
                disk: None,
                memory: &MemoryUsage::default(),
            };
            let coverage = about.coverage(300);
            assert_eq!(coverage.observed_ns + coverage.unobserved_ns, 200, "since {since}");
        }
    }

    #[test]
    fn unmeasured_usage_is_absent() {
        let fixed = fixed();
        let about = About {
            fixed: &fixed,
            owner: &Owner::default(),
            boot_id: "b",
            observed_since_ns: 0,
            observed_before_ns: 0,
            cpu: None,
            fine: true,
            guest_ns: None,
            halt_poll_ns: None,
            network: None,
            disk: None,
            memory: &MemoryUsage::default(),
        };
        let verdict = crate::lifecycle::verdict(&crate::lifecycle::Ending::default());
        assert!(about.stop(1, 1, TimeQuality::Exact, &verdict).usage.is_none());
    }
}
