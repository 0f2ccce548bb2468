//! Births and deaths: a newcomer gets its identity, its vm_id and its start line; an end gets its verdict and its stop.

use std::sync::Arc;

use super::Engine;
use crate::{
    account::{Told, snapshot::VmFixed},
    bpf::{Exit, VmReading},
    clock::Instant2,
    ledger::TimeQuality,
    lifecycle::draft::About,
    units::Tgid,
    vm::{
        Line, Origin, Owners, Vm,
        identity::{self, Argv, Identity, identify, incoming},
        source::VmSource,
        thread::family_of,
    },
};

/// How long the last switches of a process that is gone or a zombie are waited for: microseconds where a CPU is free,
/// but a thousand VMs killed at once queue for two CPUs, and an end told too early tells too little.
const GRACE_NS: u64 = 5_000_000_000;

/// What is known of a VM before it is one of ours.
pub(super) struct Found {
    pub(super) tgid: u32,
    /// The start that goes into the incarnation.
    pub(super) start_ns: u64,
    /// Whether that is the start itself, or its clock tick's first nanosecond.
    pub(super) exact: bool,
    pub(super) vcpus: u32,
    pub(super) identity: Identity,
    /// Whose it is, as far as is known before its start line.
    pub(super) owners: Owners,
    /// Where more of it is read.
    pub(super) sources: VmSource,
    pub(super) argv: Argv,
    pub(super) adopted: bool,
    pub(super) observed_since_ns: u64,
    pub(super) first_run_ns: Option<u64>,
    /// Its process is no more, and its id may be another's.
    pub(super) gone: bool,
    pub(super) origin: Origin,
}

impl Engine {
    /// What lines about this VM have in common.
    pub(super) fn about<'a>(&'a self, vm: &'a Vm) -> About<'a> {
        About {
            fixed: &vm.fixed,
            owner: vm.owners.whole(),
            boot_id: &self.boot_id,
            observed_since_ns: vm.observed_since_ns,
            observed_before_ns: vm.observed_before_ns,
            cpu: vm.cpu,
            fine: vm.source != Origin::PROC,
            guest_ns: vm.guest_ns(),
            halt_poll_ns: vm.halt_poll_ns(),
            network: vm.network.last().map(AsRef::as_ref),
            disk: vm.disk.usage.io.map(|io| (io.read_bytes, io.written_bytes)),
            memory_byte_ns: vm.memory.byte_ns(),
            memory_peak_bytes: vm.memory.usage().peak_bytes,
        }
    }

    /// A slot nobody knows yet: a VM has begun, or has lived and died since the last turn.
    pub(super) fn newcomer(&mut self, reading: VmReading, at: Instant2) {
        let tgid = reading.tgid;
        self.ran.insert(tgid, at.boot_ns);
        if let Some(old) = self.registry.of_tgid(tgid) {
            // The same process, so far read from /proc (it got no slot then): from now on the kernel counts it. An
            // older life under this process id must get its stop first; the next turn comes back to this one.
            if self.starts_alike(old, reading.start_ns) {
                self.take_over(&reading);
            }
            return;
        }
        let found = self.found_by_kernel(&reading);
        let family = family_of(found.identity.hypervisor);
        if !self.begin(found, at) {
            return;
        }
        self.slots.insert(reading.slot, tgid);
        if let (Some(run), true) = (reading.first_run_ns, self.registry.of_tgid(tgid).is_some_and(|v| !v.fixed.adopted))
        {
            self.metrics.record_vm_boot(run.saturating_sub(reading.start_ns) as f64 / 1e9);
        }
        if let Some(vm) = self.registry.of_tgid_mut(tgid) {
            vm.take_reading(&reading, &mut self.host.work);
            vm.exiting = reading.exit.is_some();
        }
        self.keep(&reading);
        if family != reading.family
            && let Some(kernel) = &mut self.kernel
        {
            // Its leader has another name than its program; the walk that follows looks at its threads' names again.
            kernel.slots().set_family(reading.slot, family);
        }
        if let Some(exit) = reading.exit {
            self.maybe_end(&reading, exit, at);
        }
    }

    fn starts_alike(&self, vm: &Vm, start_ns: u64) -> bool {
        vm.start_tick(self.tick_ns()) == start_ns / self.tick_ns()
    }

    fn take_over(&mut self, reading: &VmReading) {
        self.slots.insert(reading.slot, reading.tgid);
        if let Some(vm) = self.registry.of_tgid_mut(reading.tgid) {
            vm.origin = Origin::Slot(reading.slot);
            vm.source = vm.origin.as_str();
            vm.changed = true;
            vm.kept = false;
            // The kernel splits the past by role otherwise than /proc told it so far.
            vm.told = vm.cpu.map(|cpu| Told::of(&cpu));
            vm.first_run_ns = vm.first_run_ns.or(reading.first_run_ns);
            let ran = vm.arrival.is_some();
            self.sample_soon_if(ran);
        }
    }

    fn found_by_kernel(&mut self, reading: &VmReading) -> Found {
        let tgid = Tgid(reading.tgid);
        let tick_ns = self.tick_ns();
        let same = || self.procfs.stat(tgid).is_ok_and(|stat| stat.start_ticks == reading.start_ns / tick_ns);
        let gone = reading.exit.is_some() && !same();
        let (raw, truncated) = self.kernel.as_mut().map_or_else(Default::default, |k| k.slots().args(reading.slot));
        let from_proc = (!gone && (raw.is_empty() || truncated)).then(|| self.procfs.cmdline(tgid).ok()).flatten();
        let argv = match from_proc {
            Some(line) if !line.raw.is_empty() => Argv::parse(&line.raw, line.truncated),
            _ => Argv::parse(&raw, truncated),
        };
        let comm: Vec<u8> = reading.comm.iter().copied().take_while(|b| *b != 0).collect();
        let exe = if gone { None } else { self.procfs.exe_name(tgid).ok() };
        let identity = identify(&argv, &comm, exe.as_deref());
        let held = if gone { 0 } else { self.procfs.kvm_fds(tgid).map_or(0, |fds| fds.vcpus) };
        Found {
            tgid: reading.tgid,
            start_ns: reading.start_ns,
            exact: true,
            // Two CPUs can count one vCPU twice at the same instant; descriptors are certain, where they can be seen.
            vcpus: if held > 0 { held } else { reading.vcpus },
            identity,
            owners: Owners::default(),
            sources: VmSource::default(),
            argv,
            // Older than our hooks: found running, not seen starting.
            adopted: reading.start_ns < self.attached_ns,
            observed_since_ns: reading.seen_ns,
            first_run_ns: reading.first_run_ns,
            gone,
            origin: Origin::Slot(reading.slot),
        }
    }

    /// Makes a found VM one of ours, with its start line. False when an older life with its vm_id has ended but is not
    /// settled yet: its stop must come first, so the next turn tries again.
    pub(super) fn begin(&mut self, mut found: Found, at: Instant2) -> bool {
        let cgroup = self.complete(&mut found, at);
        let known = found.owners.whole();
        found.identity.name = known.name.clone().or(found.identity.name);
        found.identity.uuid = known.uuid.clone().or(found.identity.uuid);
        let incarnation = identity::incarnation(&self.boot_id, Tgid(found.tgid), found.start_ns);
        let mut vm_id = identity::vm_id(&found.identity, Tgid(found.tgid), &incarnation);
        if self.registry.is_taken(&vm_id) {
            if self.is_ending(&vm_id) {
                return false;
            }
            self.host.vm_id_conflicts += 1;
            vm_id = identity::fallback_vm_id(&found.identity.vmm, Tgid(found.tgid), &incarnation);
        }
        let (start_ns, quality) = self.start_instant(&found, at);
        let identity = found.identity;
        let fixed = VmFixed {
            vm_id,
            incarnation,
            name: identity.name.or(identity.vmm_id).unwrap_or_default(),
            uuid: identity.uuid.unwrap_or_default(),
            hypervisor: identity.hypervisor.as_str().to_owned(),
            vmm: identity.vmm,
            tgid: found.tgid,
            vcpus: found.sources.vcpus().or(identity.vcpus).unwrap_or(0),
            mem_bytes: found.sources.live.1.or(identity.mem_bytes).unwrap_or(0),
            storage_bytes: 0,
            cgroup: identity::label(cgroup.as_bytes()),
            start_ns,
            started_at: at.unix_of(start_ns),
            adopted: found.adopted,
        };
        let mut vm = Vm::new(fixed, found.origin, found.observed_since_ns, at.boot_ns);
        vm.owners = found.owners;
        vm.sources = found.sources;
        let fixed = Arc::clone(&vm.fixed);
        self.ask_inventory(&mut vm.owners, &fixed.uuid, &fixed.name, &fixed.vm_id);
        let incoming = incoming(identity.hypervisor, &found.argv);
        let why = self.why_started(&mut vm, &incoming, at);
        vm.first_run_ns = found.first_run_ns;
        self.note_arrival(&mut vm, &incoming);
        self.known_storage(&mut vm);
        let first_run_at = vm.first_run_ns.map(|ns| at.unix_of(ns));
        self.tell(self.about(&vm).start(first_run_at, &why, quality), at.boot_ns);
        vm.start_line = Line::Queued;
        if !found.adopted {
            let key = (vm.fixed.hypervisor.clone(), why.reason.map_or("unknown", |r| r.as_str()).to_owned());
            *self.host.starts.entry(key).or_default() += 1;
        }
        tracing::info!(vm_id = %vm.fixed.vm_id, tgid = vm.fixed.tgid, adopted = vm.fixed.adopted, "VM found");
        self.pending.retain(|_, p| p.tgid != found.tgid);
        let tgid = vm.fixed.tgid;
        self.registry.insert(vm);
        self.ask_disks(tgid, at);
        self.network_born(tgid);
        self.first_memory(tgid, at);
        true
    }

    /// The start as its line tells it: exact, or the later end of its clock tick, which bills less.
    fn start_instant(&self, found: &Found, at: Instant2) -> (u64, TimeQuality) {
        if found.exact {
            return (found.start_ns, TimeQuality::Exact);
        }
        // Now at the latest, but a process found late in this turn may have started after it began.
        let end = found.start_ns.saturating_add(self.tick_ns() - 1).min(at.boot_ns.max(found.start_ns));
        let (not_before, not_after) = (at.unix_of(found.start_ns), at.unix_of(end));
        (end, TimeQuality::Bounded { not_before, not_after })
    }

    fn is_ending(&self, vm_id: &str) -> bool {
        self.registry.live().any(|vm| vm.fixed.vm_id == vm_id && !self.is_same_process(vm.fixed.tgid))
    }

    /// Ends a VM whose process has passed its exit hook, once its last threads were switched out, or cannot be any
    /// more.
    pub(super) fn maybe_end(&mut self, reading: &VmReading, exit: Exit, at: Instant2) {
        if (reading.threads > 0 || !reading.consistent) && !self.is_long_gone(reading.tgid, at) {
            return;
        }
        if !self.settle_network(reading.tgid, at) {
            return;
        }
        self.settle_disk(reading);
        if reading.threads > 0 {
            self.count_loss("last_slice", u64::from(reading.threads));
        }
        let verdict = self.judge(reading, exit, at);
        let stopped_at = at.unix_of(exit.at_ns);
        self.end(reading.tgid, exit.at_ns, stopped_at, TimeQuality::Exact, verdict);
        self.slots.remove(&reading.slot);
        self.leave(reading.slot);
    }

    /// Whether a process has been a zombie, or nothing at all, for longer than its last switches can take. The time
    /// counts from there and not from the exit hook: tearing down a large memory takes seconds in between.
    fn is_long_gone(&mut self, tgid: u32, at: Instant2) -> bool {
        let same = self.is_same_process(tgid);
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return false };
        if same {
            vm.gone_ns = None;
            return false;
        }
        at.boot_ns.saturating_sub(*vm.gone_ns.get_or_insert(at.boot_ns)) > GRACE_NS
    }
}
