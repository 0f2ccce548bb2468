//! The loaded kernel side: its maps, its wake-ups, its two programs that run on request.

use std::{
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, Map, MapData, RingBuf},
    programs::{Iter, RawTracePoint, RawTracePointRunOptions},
};
use kvmeter_common::{loss, signal::VmSignals};

use super::{
    attach::Links,
    maps::{MapError, Mapped},
    pin::Pins,
    plan::{self, Hooks, State, Status},
    slots::Slots,
    sockets::{CountedGroup, SocketBytes, Sockets},
};

/// The kernel programs, at work. Dropping it detaches them.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    pub(super) statuses: Vec<Status>,
    pub(super) slots: Slots,
    pub(super) losses: Mapped<u64>,
    pub(super) adopt: BpfHashMap<MapData, u32, u32>,
    pub(super) processes: BpfHashMap<MapData, u32, u32>,
    /// `None` where the kernel has no counters for control groups.
    pub(super) sockets: Option<Sockets>,
    pub(super) wakes: RingBuf<MapData>,
    /// How many there were to send.
    pub(super) woken: Mapped<u64>,
    /// How many came.
    pub(super) received: u64,
    pub(super) log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    pub(super) cpus: Vec<u32>,
    pub(super) links: Links,
    pub(super) pins: Option<Pins>,
    /// Why nothing is pinned, where that was wanted.
    pub(super) unpinned: Option<String>,
}

/// A map of the object as the type it must have.
pub(super) fn typed<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, MapError> {
    let map = ebpf.take_map(name).ok_or(MapError::NotThere(name))?;
    T::try_from(map).map_err(|_| MapError::NotThere(name))
}

impl Kernel {
    /// What became of each program.
    #[must_use]
    pub fn statuses(&self) -> &[Status] {
        &self.statuses
    }

    /// The loaded programs by name, to ask the kernel about them.
    pub fn programs(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        let loaded = |status: &Status| Some((status.name, self.ebpf.program(status.name)?.fd().ok()?.as_fd()));
        self.statuses.iter().filter_map(loaded)
    }

    /// Tries again what could not be attached: the KVM module may have been loaded since. True when something changed.
    pub fn attach_missing(&mut self) -> bool {
        let missing = |statuses: &[Status]| statuses.iter().filter(|s| matches!(s.state, State::Failed(_))).count();
        let before = missing(&self.statuses);
        if before > 0 {
            self.links.attach_again(&mut self.ebpf, &mut self.statuses, self.pins.as_ref());
            self.note_halts();
        }
        missing(&self.statuses) < before
    }

    pub(super) fn note_halts(&mut self) {
        let halts = |status: &Status| status.name == "kvm_vcpu_wakeup" && status.state == State::Attached;
        self.slots.halts_told = self.statuses.iter().any(halts);
    }

    /// Marks the programs on these hooks as attached in vain, or takes that back.
    pub fn mark_silent(&mut self, hooks: Hooks, why: Option<&str>) {
        plan::mark_silent(&mut self.statuses, hooks, why);
    }

    /// Whether a program is at work.
    #[must_use]
    pub fn is_at_work(&self, program: &str) -> bool {
        self.statuses.iter().any(|status| status.name == program && status.state == State::Attached)
    }

    /// Readable when a wake-up waits.
    #[must_use]
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wakes.as_fd()
    }

    /// Takes all wake-ups off the ring, and kernel-side log lines with them.
    pub fn drain(&mut self) {
        while self.wakes.next().is_some() {
            self.received += 1;
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Wake-ups of this agent's own ring: how many there were to send, and how many came. The others were lost, or wait.
    #[must_use]
    pub fn wake_ups(&self) -> (u64, u64) {
        (self.woken.get(0).unwrap_or(0), self.received)
    }

    /// Brings the slots of threads that are on a CPU right now level with the scheduler. Returns how many CPUs could
    /// not be asked (one that went offline).
    pub fn refresh(&mut self) -> u64 {
        let Some(aya::programs::Program::RawTracePoint(program)) = self.ebpf.program_mut("refresh") else {
            return u64::try_from(self.cpus.len()).unwrap_or(u64::MAX);
        };
        let ask = |cpu: &u32| {
            let mut options = RawTracePointRunOptions::new();
            options.cpu = Some(*cpu);
            aya::programs::TestRun::test_run(&*program as &RawTracePoint, options).is_err()
        };
        self.cpus.iter().filter(|cpu| ask(cpu)).map(|_| 1).sum()
    }

    /// Looks up which CPUs are online now; they are the ones [`Self::refresh`] asks.
    ///
    /// # Errors
    /// When the list cannot be read; the old one stays.
    pub fn list_cpus(&mut self) -> std::io::Result<()> {
        self.cpus = aya::util::online_cpus().map_err(|(_, error)| error)?;
        Ok(())
    }

    /// Makes VMs of these processes, and finds threads that have no slot yet.
    ///
    /// # Errors
    /// When the walk cannot be run.
    pub fn adopt(&mut self, tgids: &[u32]) -> std::io::Result<()> {
        for tgid in tgids {
            self.adopt.insert(tgid, 1, 0).map_err(std::io::Error::other)?;
        }
        let walked = self.walk();
        for tgid in tgids {
            // Already gone is as good.
            let _ = self.adopt.remove(tgid);
        }
        walked
    }

    /// Lets a VM go whose process is gone without having passed the exit hook in sight of the programs.
    pub fn forget(&mut self, slot: u32, tgid: u32) {
        if self.processes.get(&tgid, 0).is_ok_and(|owner| owner == slot) {
            // Gone in between is as good.
            let _ = self.processes.remove(&tgid);
        }
        self.slots.release(slot);
    }

    /// Walks all tasks: threads of known VMs that have no slot get one.
    ///
    /// # Errors
    /// When the kernel refuses the walk.
    pub fn walk(&mut self) -> std::io::Result<()> {
        let Some(aya::programs::Program::Iter(program)) = self.ebpf.program_mut("walk_tasks") else {
            return Err(std::io::Error::other("walk_tasks is not loaded"));
        };
        let link = Iter::attach(program).map_err(std::io::Error::other)?;
        let link = program.take_link(link).map_err(std::io::Error::other)?;
        let mut file = link.into_file().map_err(std::io::Error::other)?;
        let mut nothing = [0; 64];
        while file.read(&mut nothing)? > 0 {}
        Ok(())
    }

    /// Losses counted in the kernel, by stage.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        loss::STAGES.iter().zip(0u32..).map(|(stage, index)| {
            let ours = if index == loss::SLOT_RETURN { self.slots.unreturned() } else { 0 };
            (*stage, self.losses.get(index).unwrap_or(0) + ours)
        })
    }

    /// Processes with more threads than the kernel side walks: theirs are found by [`Self::walk`].
    #[must_use]
    pub fn unwalked(&self) -> u64 {
        self.losses.get(loss::THREAD_WALK).unwrap_or(0)
    }

    /// Whether a program is loaded and attached.
    #[must_use]
    pub fn has(&self, program: &str) -> bool {
        self.statuses.iter().any(|status| status.name == program && status.state == State::Attached)
    }

    /// Signals that were sent to a VM's process; `None` where the kernel programs do not tell.
    #[must_use]
    pub fn signals(&self, slot: u32) -> Option<VmSignals> {
        self.has("signal_generate").then(|| self.slots.signals(slot))
    }

    /// Counts the bytes of a control group's sockets from now on.
    ///
    /// # Errors
    /// As [`Sockets::count`].
    pub fn count_sockets(&mut self, dir: &Path) -> Result<CountedGroup, String> {
        Sockets::count(&mut self.ebpf, dir)
    }

    /// What has been counted on a group so far.
    ///
    /// # Errors
    /// As [`Sockets::read`].
    pub fn socket_bytes(&self, group: &CountedGroup) -> std::io::Result<SocketBytes> {
        let none = || std::io::Error::from(std::io::ErrorKind::Unsupported);
        self.sockets.as_ref().ok_or_else(none)?.read(group)
    }

    /// The tables.
    pub fn slots(&mut self) -> &mut Slots {
        &mut self.slots
    }
}
