//! One VM as the agent keeps it: what is fixed, what has been counted, what the ledger still owes it.

use std::sync::{Arc, LazyLock};

use kvmeter_common::{thread::cause, vcpu::mode};

use crate::{
    account::{
        Carry, CpuUsage, NetworkUsage, Role, Told, VmView, network::Continued, snapshot::VmEnd, snapshot::VmFixed,
        work::AllWork,
    },
    bpf::{VmReading, Work},
    history::{Line as HistoryLine, Rates, Reading},
    host::ThrottleSource,
    vm::{Line, Origin, disk::VmDisk, sockets::VmSockets},
    workload::Place,
};

/// Counters that an earlier agent told and that the kernel keeps nowhere: this agent goes on from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToldWork {
    /// Nanoseconds inside the guest.
    pub guest_ns: Option<u64>,
    /// Nanoseconds spent polling.
    pub halt_poll_ns: Option<u64>,
}

/// How its control groups' throttling is known.
#[derive(Debug, Default)]
pub enum Throttle {
    /// Nobody has looked yet.
    #[default]
    NotLooked,
    /// It is counted.
    Counted(ThrottleSource),
    /// It is not this VM's alone, or not there: why.
    Absent(Arc<str>),
}

/// vCPUs that are numbered; a VM that plugs more threads in and out has the rest in its sums.
const MAX_VCPUS: usize = 4_096;

/// One VM.
pub struct Vm {
    /// What does not change.
    pub fixed: Arc<VmFixed>,
    /// Whose it is.
    pub owners: super::Owners,
    /// Since when it is watched, CLOCK_BOOTTIME nanoseconds.
    pub observed_since_ns: u64,
    /// How long earlier agents watched it, nanoseconds.
    pub observed_before_ns: u64,
    /// Where its identity and shape are read.
    pub sources: super::source::VmSource,
    /// Where its numbers come from.
    pub origin: Origin,
    /// Where they came from while it lived.
    pub source: &'static str,
    /// Counters so far.
    pub cpu: Option<CpuUsage>,
    /// What an earlier agent told last, until the first reading is compared to it.
    pub told: Option<Told>,
    /// What that comparison found missing.
    pub carry: Carry,
    /// What is added to its slot's numbers is left with the slot.
    pub kept: bool,
    /// What its threads did and waited for, where the kernel programs are.
    pub work: Option<Arc<Work>>,
    /// What earlier agents told of the two counters that begin anew with each agent.
    pub told_work: ToldWork,
    /// How its control groups' throttling is known.
    pub throttle: Throttle,
    /// Its threads have run, or its groups were looked for, since that was read.
    pub throttle_moved: bool,
    /// Its threads have run since what it holds was looked at.
    pub stirred: bool,
    /// Its memory.
    pub memory: super::Memory,
    /// Nanoseconds it was throttled.
    pub throttled_ns: Option<u64>,
    /// What passed through its interfaces.
    pub network: Continued,
    /// When its end was told to those who count them, CLOCK_BOOTTIME nanoseconds.
    pub network_ends_ns: Option<u64>,
    /// What is known of its interfaces is too old to be shown.
    pub network_is_old: bool,
    /// Its storage.
    pub disk: VmDisk,
    /// The sockets of its VMM.
    pub sockets: VmSockets,
    /// The vm_ids of those it waited for; once found, they stay.
    pub offenders: Arc<[Option<String>; cause::OFFENDERS]>,
    /// Thread ids of its vCPUs in the order they were seen; the place is the vCPU's number.
    pub vcpu_order: Arc<Vec<u32>>,
    /// What the views were shown last, and whether that is out of date.
    pub view: Option<Arc<VmView>>,
    /// Something has changed since `view` was made.
    pub changed: bool,
    /// First guest entry, CLOCK_BOOTTIME nanoseconds.
    pub first_run_ns: Option<u64>,
    /// Where its state may have come from, if one came in.
    pub arrival: Option<super::Arrival>,
    /// When it was last known to live, CLOCK_BOOTTIME nanoseconds.
    pub alive_ns: u64,
    /// Its process has passed its exit hook; last slices may still be charged.
    pub exiting: bool,
    /// When its process was first found gone or a zombie while it still held thread slots, CLOCK_BOOTTIME nanoseconds.
    pub gone_ns: Option<u64>,
    /// Its end.
    pub end: Option<VmEnd>,
    /// Its start line: shown to nobody before that is durable.
    pub start_line: Line,
    /// The newest line that tells whose it is.
    pub identity_line: Line,
    /// Its stop line.
    pub stop_line: Line,
    /// Whether it is held.
    pub pause: super::Pause,
    /// Its recent past.
    pub rates: Rates,
    /// Where its samples are kept, once it has one.
    pub samples: Option<Arc<HistoryLine>>,
    /// Where its workload is asked, if it is.
    pub workload: Option<Arc<Place>>,
}

/// No VM is known that another waited for: one place for all that wait for none.
static NOBODY: LazyLock<Arc<[Option<String>; cause::OFFENDERS]>> = LazyLock::new(Arc::default);

impl Vm {
    /// A VM just found.
    #[must_use]
    pub fn new(fixed: VmFixed, origin: Origin, observed_since_ns: u64, now_ns: u64) -> Self {
        let (source, start_ns) = (origin.as_str(), fixed.start_ns);
        Self {
            fixed: Arc::new(fixed),
            owners: super::Owners::default(),
            observed_since_ns,
            observed_before_ns: 0,
            sources: super::source::VmSource::default(),
            origin,
            source,
            cpu: None,
            told: None,
            carry: Carry::default(),
            kept: false,
            work: None,
            told_work: ToldWork::default(),
            throttle: Throttle::default(),
            throttle_moved: false,
            stirred: true,
            memory: super::Memory::default(),
            pause: super::Pause::default(),
            throttled_ns: None,
            network: Continued::default(),
            network_ends_ns: None,
            network_is_old: false,
            disk: VmDisk::told(None, None),
            sockets: VmSockets::default(),
            offenders: Arc::clone(&NOBODY),
            vcpu_order: Arc::default(),
            view: None,
            changed: true,
            first_run_ns: None,
            arrival: None,
            // It may have begun after this turn's instant was taken.
            alive_ns: now_ns.max(start_ns),
            exiting: false,
            gone_ns: None,
            end: None,
            start_line: Line::None,
            identity_line: Line::None,
            stop_line: Line::None,
            rates: Rates::default(),
            samples: None,
            workload: None,
        }
    }

    /// Takes a reading of its CPU time. True when a counter would have fallen (it is kept instead).
    pub fn take_cpu(&mut self, reading: CpuUsage) -> bool {
        if let Some(told) = self.told.take() {
            self.carry = Carry::between(told, &reading);
        }
        let reading = self.carry.apply(reading);
        self.changed = true;
        match &mut self.cpu {
            Some(cpu) => cpu.advance(reading),
            None => {
                self.cpu = Some(reading);
                false
            }
        }
    }

    /// Takes over a reading that is whole, and adds what is new in it to `all`. True when a counter would have fallen.
    pub fn take_reading(&mut self, reading: &VmReading, all: &mut AllWork) -> bool {
        if !reading.consistent {
            return false;
        }
        all.grow(self.work.as_deref(), &reading.work);
        self.take_work(Arc::clone(&reading.work));
        self.take_cpu(CpuUsage::from_roles(&reading.roles))
    }

    /// Takes a reading of what its threads did.
    fn take_work(&mut self, work: Arc<Work>) {
        for vcpu in &work.vcpus {
            if self.vcpu_order.len() < MAX_VCPUS && !self.vcpu_order.contains(&vcpu.tid) {
                Arc::make_mut(&mut self.vcpu_order).push(vcpu.tid);
            }
        }
        self.changed = true;
        self.work = Some(work);
    }

    /// Whether what its threads did tells of its vCPUs in the order of their numbers, and of each.
    #[must_use]
    pub fn vcpus_in_order(&self) -> bool {
        let told = self.work.iter().flat_map(|work| &work.vcpus).map(|vcpu| vcpu.tid);
        told.eq(self.vcpu_order.iter().copied())
    }

    /// Takes a reading of its interfaces. True when a counter would have fallen.
    pub fn take_network(&mut self, reading: &Arc<NetworkUsage>) -> bool {
        let before = self.network.last().map(Arc::as_ptr);
        let fell = self.network.take_shared(reading);
        self.changed |= self.network.last().map(Arc::as_ptr) != before;
        fell
    }

    /// Its interfaces as they may be shown: nothing while their figures are old.
    #[must_use]
    pub fn shown_network(&self) -> Option<&Arc<NetworkUsage>> {
        self.network.last().filter(|_| !self.network_is_old)
    }

    /// What the next point of its line is made from.
    #[must_use]
    pub fn reading(&self) -> Reading {
        Reading {
            cpu: self.cpu,
            disk: self.disk.usage.io.map(|io| (io.read_bytes, io.written_bytes)),
            network: self.shown_network().and_then(|usage| usage.seen_passing()),
            memory_used: self.memory.usage().used_bytes(),
            memory_limit: Some(self.fixed.mem_bytes).filter(|bytes| *bytes > 0),
            workload: None,
        }
    }

    /// Reads how long it was throttled, where that is known. False when it could not be read.
    pub fn read_throttling(&mut self) -> bool {
        let Throttle::Counted(source) = &mut self.throttle else { return true };
        let Ok(ns) = source.read() else { return false };
        if self.throttled_ns != Some(ns) {
            self.throttled_ns = Some(ns.max(self.throttled_ns.unwrap_or(0)));
            self.changed = true;
        }
        true
    }

    /// Nanoseconds inside the guest: part of the vCPUs' time. `None` where guest entries are not told.
    #[must_use]
    pub fn guest_ns(&self) -> Option<u64> {
        let counted = self.work.as_ref().map(|work| work.vcpu).filter(|vcpu| vcpu.entries > 0);
        let ns = sum(self.told_work.guest_ns, counted.map(|vcpu| vcpu.mode_ns[mode::GUEST as usize]))?;
        Some(self.cpu.map_or(ns, |cpu| ns.min(cpu.of(Role::Vcpu).runtime_ns)))
    }

    /// Nanoseconds spent polling with success. `None` where halts are not told.
    #[must_use]
    pub fn halt_poll_ns(&self) -> Option<u64> {
        let counted = self.work.as_ref().filter(|work| work.halts_told);
        let counted = counted.map(|work| work.vcpu.mode_ns[mode::POLL as usize]);
        sum(self.told_work.halt_poll_ns, counted)
    }

    /// The clock tick of its start, which is all that `/proc` and an old ledger line have in common.
    #[must_use]
    pub fn start_tick(&self, tick_ns: u64) -> u64 {
        self.fixed.start_ns / tick_ns.max(1)
    }

    /// The kernel slot, while it has one.
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        match self.origin {
            Origin::Slot(slot) => Some(slot),
            _ => None,
        }
    }
}

/// What was told and what was counted since; `None` if neither is there.
fn sum(told: Option<u64>, counted: Option<u64>) -> Option<u64> {
    match (told, counted) {
        (None, None) => None,
        (told, counted) => Some(told.unwrap_or(0).saturating_add(counted.unwrap_or(0))),
    }
}
