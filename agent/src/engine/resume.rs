//! The first turn: VMs that ran before this agent, and what an earlier agent left open in the ledger.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{Engine, scan::Process};
use crate::{
    account::{snapshot::VmFixed, work::AllWork},
    bpf::{VmReading, Want},
    clock::Instant2,
    ledger::{Draft, Kind, OpenInterval, Reason, Subject, TimeQuality, Usage},
    sample::{ProcCpu, network::VmKey},
    units::Tgid,
    vm::{
        Origin, Owner, Teller, Vm,
        disk::VmDisk,
        identity::{self, Argv, Clues},
        record::ToldWork,
    },
};

impl Engine {
    /// Finds what runs, goes on with what an earlier agent opened, closes what has ended meanwhile, opens the rest.
    /// `found` is what an earlier agent's slots hold.
    pub(super) fn first_scan(&mut self, open: Vec<OpenInterval>, found: &[VmReading], now: Instant2) {
        let mut running: Vec<u32> = self.scan(&HashSet::new()).into_iter().map(|(tgid, _)| tgid).collect();
        let told = open.iter().filter(|i| i.boot_id == self.boot_id).map(|i| i.last_evidence_at / 1_000_000_000);
        self.last_slot_s = told.max().unwrap_or(0);
        let (mut alive, ended): (Vec<_>, Vec<_>) = open.into_iter().partition(|interval| self.goes_on(interval));
        running.extend(alive.iter().filter_map(tgid_of));
        // Those that ended while programs counted on are gone on with as well: their slots tell how they ended.
        let (held, ended): (Vec<_>, Vec<_>) =
            ended.into_iter().partition(|interval| self.held(interval, found).is_some());
        alive.extend(held);
        running.sort_unstable();
        running.dedup();
        self.tell_former(&alive, &ended);
        for interval in ended {
            let draft = self.close(interval, now);
            self.tell(draft, now.boot_ns);
        }
        if let Some(kernel) = &mut self.kernel
            && let Err(error) = kernel.adopt(&running)
        {
            tracing::warn!(%error, "the kernel's task walk failed; running VMs are read from /proc");
            self.count_error("walk", 1);
        }
        self.resume(alive, now);
        self.adopt(&running, now);
        self.apply_inventory(now);
        self.ask_about_programs();
        self.next_scan_ns = now.boot_ns.saturating_add(self.settings.scan_ns);
    }

    /// Whether the process of an open interval is still the same one: boot, process id and clock tick of the start. One
    /// that cannot be looked at goes on.
    fn goes_on(&self, interval: &OpenInterval) -> bool {
        let tick_ns = self.tick_ns();
        let same = |tgid| match self.process_of(tgid) {
            Process::Alive { start_ns } => start_ns / tick_ns == interval.started_mono_ns / tick_ns,
            Process::Ended => false,
            Process::Unknown => true,
        };
        interval.boot_id == self.boot_id && tgid_of(interval).is_some_and(same)
    }

    /// Names of interfaces that the ledger told of VMs of this boot: what passed through one of them may be theirs.
    fn tell_former(&self, alive: &[OpenInterval], ended: &[OpenInterval]) {
        let tick_ns = self.tick_ns();
        let key = |interval: &OpenInterval| {
            Some(VmKey { tgid: tgid_of(interval)?, start_ticks: interval.started_mono_ns / tick_ns })
        };
        let names = |interval: &OpenInterval| {
            let net = interval.usage.iter().flat_map(|usage| &usage.net);
            net.map(|one| Arc::from(one.interface.as_str())).collect::<BTreeSet<_>>()
        };
        for interval in alive.iter().chain(ended).filter(|interval| interval.boot_id == self.boot_id) {
            if let Some(vm) = key(interval) {
                self.network_former(vm, names(interval));
            }
        }
    }

    fn resume(&mut self, alive: Vec<OpenInterval>, now: Instant2) {
        let readings =
            self.kernel.as_mut().map(|kernel| kernel.slots().read(|_, _| Want::Always).changed).unwrap_or_default();
        for interval in alive {
            let Some(tgid) = tgid_of(&interval) else { continue };
            let reading = self.held(&interval, &readings);
            let gone = reading.is_some_and(|reading| reading.exit.is_some());
            let origin = reading.map_or_else(|| Origin::Proc(ProcCpu::new(Tgid(tgid))), |r| Origin::Slot(r.slot));
            let observed_since = reading.map_or(now.boot_ns, |r| r.seen_ns);
            // What has ended has no files, and its process id may be another's.
            let cgroup = if gone { String::new() } else { identity::label(self.procfs.cgroup(Tgid(tgid)).as_bytes()) };
            let mut vm = Vm::new(fixed(&interval, tgid, cgroup), origin, observed_since, now.boot_ns);
            vm.owners.tell(if interval.annotated { Teller::Annotation } else { Teller::Ledger }, told_owner(&interval));
            if !gone {
                vm.sources.clues = self.clues_of(tgid);
            }
            vm.observed_before_ns = interval.coverage.map_or(0, |c| c.observed_ns);
            vm.told = Self::told_of(&interval);
            vm.told_work = interval.usage.as_ref().map_or_else(ToldWork::default, |usage| ToldWork {
                guest_ns: usage.guest_ns,
                halt_poll_ns: usage.halt_poll_ns,
            });
            let network_key = VmKey { tgid, start_ticks: vm.start_tick(self.tick_ns()) };
            vm.network = self.network_told(network_key, interval.usage.as_ref());
            let disk = |of: fn(&Usage) -> Option<u64>| interval.usage.as_ref().and_then(of);
            vm.disk = VmDisk::told(disk(|usage| usage.disk_read_bytes), disk(|usage| usage.disk_written_bytes));
            if let Some(usage) = &interval.usage {
                vm.memory.resume(usage.mem_byte_ns, usage.mem_peak_bytes);
            }
            if let Some(reading) = reading {
                // What was in the slot before is no news.
                let mut before = AllWork::default();
                let known = self.take_kept(&mut vm, reading);
                vm.take_reading(reading, if known { &mut before } else { &mut self.host.work });
                vm.exiting = gone;
                self.slots.insert(reading.slot, tgid);
            }
            tracing::info!(vm_id = %vm.fixed.vm_id, tgid, gone, "VM goes on from the ledger");
            self.registry.insert(vm);
            if let Some(reading) = reading {
                self.keep(reading);
            }
            self.network_born(tgid);
            self.network_base(network_key, interval.usage.as_ref());
            if !gone {
                self.ask_disks(tgid, now);
                self.first_memory(tgid, now);
            }
        }
    }

    /// Files that may say more of a VM than the ledger told.
    fn clues_of(&self, tgid: u32) -> Arc<Clues> {
        let line = self.procfs.cmdline(Tgid(tgid)).unwrap_or_default();
        let exe = self.procfs.exe_name(Tgid(tgid)).ok();
        Arc::new(identity::identify(&Argv::parse(&line.raw, line.truncated), b"", exe.as_deref()).clues)
    }

    /// The stop of a VM that ended while no agent ran: told as its last evidence of life, never as now.
    fn close(&mut self, interval: OpenInterval, now: Instant2) -> Draft {
        let stated = self.stated_unseen(&interval, now);
        let other_boot = interval.boot_id != self.boot_id;
        let subject = Subject::Incarnation(interval.incarnation.clone());
        let (at, mono) = (interval.last_evidence_at, interval.last_evidence_mono_ns);
        let mut draft = Draft::new(Kind::VmComputeStop, subject, &interval.boot_id, at, mono);
        draft.vm_id = interval.vm_id;
        draft.hypervisor = interval.hypervisor;
        draft.shape = interval.shape;
        draft.name = interval.name;
        draft.uuid = interval.uuid;
        draft.tenant = interval.tenant;
        draft.labels = interval.labels;
        draft.usage = interval.usage;
        draft.coverage = interval.coverage;
        draft.time_quality = TimeQuality::Bounded { not_before: at, not_after: now.unix_ns.max(at) };
        if other_boot {
            draft.cause = "host-reboot".to_owned();
            draft.reason = Some(Reason::StopCrash);
        } else {
            draft.cause = "unknown".to_owned();
        }
        stated.over_line(&mut draft);
        draft
    }
}

/// Whose a VM is, as the ledger told it last.
fn told_owner(interval: &OpenInterval) -> Owner {
    let labels = interval.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let name = (interval.name != interval.start_name).then(|| interval.name.clone());
    Owner { name, ..Owner::heard(Some(&interval.tenant), labels) }
}

/// The process id inside `<boot>-<tgid>-<start_ns>`.
pub(super) fn tgid_of(interval: &OpenInterval) -> Option<u32> {
    interval.incarnation.split('-').nth(1)?.parse().ok()
}

fn fixed(interval: &OpenInterval, tgid: u32, cgroup: String) -> VmFixed {
    VmFixed {
        vm_id: interval.vm_id.clone(),
        incarnation: interval.incarnation.clone(),
        name: interval.start_name.clone(),
        uuid: interval.uuid.clone(),
        hypervisor: interval.hypervisor.clone(),
        vmm: interval.hypervisor.clone(),
        tgid,
        vcpus: interval.shape.cpu,
        mem_bytes: interval.shape.mem_bytes,
        storage_bytes: interval.shape.storage_bytes,
        cgroup,
        start_ns: interval.started_mono_ns,
        started_at: interval.started_at,
        adopted: true,
    }
}
