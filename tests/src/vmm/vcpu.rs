//! One vCPU thread: enters the guest, answers its exits, keeps the duty cycle, and reports how it ended.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::CpuId;
use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::code;
use super::end::End;
use super::exits::Exit;
use super::guest::{self, Guest};
use super::halt::{self, Alarm};
use super::nic::port::Nic;
use super::pace::{DEFAULT_PERIOD_NS, Pace, Speed};
use super::shared::{Shared, cpu_ns, sleep_sharply, wall_ns};

/// How long each of `--first-halts` is.
const FIRST_HALT: Duration = Duration::from_millis(10);

/// What a vCPU does with its time.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Share of one CPU to use inside the guest, 0..=100.
    pub duty_percent: u32,
    /// Userspace exits per second; 0 leaves it to the duty cycle.
    pub exit_rate: u32,
    /// Halts in the kernel per second; 0 sleeps in the VMM instead.
    pub halt_rate: u32,
    /// Halts in the kernel before the first entry.
    pub first_halts: u32,
    /// The only CPU to run on.
    pub cpu: Option<usize>,
    /// Memory to write to, one word a page, before anything else.
    pub touch_bytes: u64,
    /// How long to wait before the first KVM_RUN.
    pub delay: Duration,
    /// How the guest ends on this vCPU, if it does; then it must go on when the VM is over.
    pub ends: Option<End>,
}

impl Work {
    /// Whether the guest never leaves KVM_RUN by itself.
    #[must_use]
    pub fn is_endless(&self) -> bool {
        self.duty_percent == 100 && self.exit_rate == 0
    }

    /// Whether the guest leaves once and is then left alone.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.duty_percent == 0 && self.exit_rate == 0 && self.halt_rate == 0
    }

    fn period_ns(&self) -> u64 {
        let rate = self.exit_rate.max(self.halt_rate);
        1_000_000_000_u64.checked_div(rate.into()).unwrap_or(DEFAULT_PERIOD_NS)
    }
}

/// A vCPU that is ready to run.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    number: u32,
    work: Work,
    shared: Arc<Shared>,
    nic: Option<Nic>,
    // The VM and its memory must outlive the vCPU.
    _guest: Arc<Guest>,
}

impl Vcpu {
    /// Creates vCPU `index` of `guest`, which has this `number` in the process.
    pub fn new(
        guest: &Arc<Guest>,
        index: u32,
        number: u32,
        cpuid: &CpuId,
        work: Work,
        shared: &Arc<Shared>,
    ) -> Result<Self> {
        let fd = guest.create_vcpu(index)?;
        fd.set_cpuid2(cpuid).context("KVM_SET_CPUID2 failed")?;
        let rounds = if work.is_endless() { code::FOREVER } else { 1 };
        guest.set_registers(&fd, index, work.touch_bytes, rounds)?;
        if work.halt_rate > 0 {
            // With a local APIC all but the first vCPU wait for a start-up interrupt that nobody sends.
            halt::set_state(&fd, kvm_bindings::KVM_MP_STATE_RUNNABLE)?;
        }
        Ok(Self { fd, number, work, shared: Arc::clone(shared), nic: None, _guest: Arc::clone(guest) })
    }

    /// Has this vCPU run the program of a NIC instead of its duty.
    pub fn attach(&mut self, nic: Nic) -> Result<()> {
        nic.take_over(&self.fd)?;
        self.nic = Some(nic);
        Ok(())
    }

    /// The name of the thread: `vcpu` and its number in the process.
    #[must_use]
    pub fn thread_name(&self) -> String {
        format!("vcpu{}", self.number)
    }

    /// Runs the guest in the calling thread until it shuts down or halts, which is returned, or until the VM is over.
    pub fn run(&mut self) -> Result<Option<Exit>> {
        self.shared.register(self.number);
        sleep_sharply();
        if let Some(cpu) = self.work.cpu {
            pin(cpu).with_context(|| format!("--pin: cannot run on CPU {cpu} alone"))?;
        }
        let mut alarm = (self.work.halt_rate > 0).then(Alarm::new).transpose()?;
        if self.shared.sleep(Some(self.work.delay)) && self.work.ends.is_none() {
            return Ok(None);
        }
        if let Some(alarm) = &mut alarm {
            for _ in 0..self.work.first_halts {
                self.halt(alarm, FIRST_HALT, 1)?;
            }
        }
        if let Some(mut nic) = self.nic.take() {
            return self.run_nic(&mut nic);
        }
        let mut cycle = Cycle::new(self.work);
        loop {
            let (exit, offset) = self.enter(cycle.rounds)?;
            self.shared.exits.add(exit);
            match (exit, offset) {
                (Exit::Interrupted, _) => {}
                (Exit::Mmio, Some(code::MMIO_NEXT)) => {
                    let sleep = cycle.rest();
                    let over = match &mut alarm {
                        Some(alarm) => self.halt(alarm, sleep.unwrap_or_default(), cycle.rounds)?,
                        None => self.shared.sleep(sleep),
                    };
                    cycle.resume(over);
                    if over && self.work.ends.is_none() {
                        return Ok(None);
                    }
                }
                (Exit::Mmio, Some(code::MMIO_HALT)) => self.come_to_an_end()?,
                (Exit::Shutdown | Exit::Halt | Exit::SystemEvent | Exit::InternalError, _) => return Ok(Some(exit)),
                _ => bail!("vcpu{}: an exit this VMM does not expect: {exit:?} at {offset:?}", self.number),
            }
        }
    }

    fn run_nic(&mut self, nic: &mut Nic) -> Result<Option<Exit>> {
        let mut answer = 0;
        loop {
            let (exit, offset) = self.enter(answer)?;
            self.shared.exits.add(exit);
            match (exit, offset) {
                (Exit::Interrupted, _) => {}
                (Exit::Mmio, Some(offset)) => {
                    let read = nic.read(offset)?;
                    answer = read.with_context(|| format!("vcpu{}: a read at {offset:#x}", self.number))?;
                }
                _ => bail!("vcpu{}: an exit its NIC does not expect: {exit:?}", self.number),
            }
        }
    }

    /// One KVM_RUN. `rounds` answers the read that the guest waits for, if it waits for one.
    fn enter(&mut self, rounds: u64) -> Result<(Exit, Option<u64>)> {
        self.answer(rounds);
        let exit = match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, _) | VcpuExit::MmioWrite(address, _)) => {
                return Ok((Exit::Mmio, guest::window_offset(address)));
            }
            Ok(VcpuExit::Shutdown) => Exit::Shutdown,
            Ok(VcpuExit::Hlt) => Exit::Halt,
            Ok(VcpuExit::SystemEvent(..)) => Exit::SystemEvent,
            Ok(VcpuExit::InternalError) => Exit::InternalError,
            Ok(other) => bail!("vcpu{}: KVM_RUN returned {other:?}", self.number),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Exit::Interrupted,
            Err(error) => return Err(error).with_context(|| format!("vcpu{}: KVM_RUN failed", self.number)),
        };
        Ok((exit, None))
    }

    /// Puts the answer where the kernel looks for it when KVM_RUN completes an MMIO read; harmless otherwise.
    fn answer(&mut self, rounds: u64) {
        let run = self.fd.get_kvm_run();
        if run.exit_reason == kvm_bindings::KVM_EXIT_MMIO {
            // SAFETY: `mmio` is the member of the union that this exit reason selects, and any bytes are valid for it.
            let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
            if mmio.is_write == 0 {
                mmio.data = rounds.to_le_bytes();
            }
        }
    }

    /// Halts in the kernel for as long; true when the VM is over. The guest's read is answered on the way in, so its next
    /// rounds are those of the burn before.
    fn halt(&mut self, alarm: &mut Alarm, time: Duration, rounds: u64) -> Result<bool> {
        if !time.is_zero() {
            halt::set_state(&self.fd, kvm_bindings::KVM_MP_STATE_HALTED)?;
            alarm.set(time)?;
            let (exit, _) = self.enter(rounds)?;
            alarm.clear()?;
            ensure!(exit == Exit::Interrupted, "vcpu{}: a halted vCPU came back by {exit:?}", self.number);
            self.shared.exits.add(exit);
            halt::set_state(&self.fd, kvm_bindings::KVM_MP_STATE_RUNNABLE)?;
        }
        Ok(self.shared.sleep(Some(Duration::ZERO)))
    }

    /// Completes the guest's write without entering it, then lets it do what ends it: execute `hlt`, if nothing else.
    fn come_to_an_end(&mut self) -> Result<()> {
        self.fd.set_kvm_immediate_exit(1);
        let (exit, _) = self.enter(1)?;
        self.fd.set_kvm_immediate_exit(0);
        self.shared.exits.add(exit);
        match self.work.ends {
            Some(End::SystemEvent) => guest::ask_for_reset(&self.fd),
            Some(End::InternalError) => guest::lead_astray(&self.fd),
            _ => guest::grant_privilege(&self.fd),
        }
    }
}

/// Where the duty cycle of a vCPU stands.
struct Cycle {
    work: Work,
    pace: Pace,
    speed: Speed,
    rounds: u64,
    cpu_before_ns: u64,
}

impl Cycle {
    fn new(work: Work) -> Self {
        let cpu_before_ns = cpu_ns();
        let pace = Pace::new(work.duty_percent, work.period_ns(), wall_ns(), cpu_before_ns);
        Self { work, pace, speed: Speed::default(), rounds: 1, cpu_before_ns }
    }

    /// The guest has burnt what it was told: learn from it. How long to sleep; `None` is without limit.
    fn rest(&mut self) -> Option<Duration> {
        let cpu = cpu_ns();
        self.speed.learn(self.rounds, cpu.saturating_sub(self.cpu_before_ns));
        let sleep = (!self.work.is_idle()).then(|| Duration::from_nanos(self.pace.sleep_ns(wall_ns(), cpu)));
        if self.work.halt_rate > 0 {
            self.rounds = self.speed.rounds(self.pace.burn_ns(cpu));
        }
        sleep
    }

    /// After the sleep: set what the guest burns next.
    fn resume(&mut self, over: bool) {
        self.cpu_before_ns = cpu_ns();
        // Once it is over there is nothing to pace: the guest sees its command in the first round.
        if over {
            self.rounds = 1;
        } else if self.work.halt_rate == 0 {
            self.rounds = self.speed.rounds(self.pace.burn_ns(self.cpu_before_ns));
        }
    }
}

fn pin(cpu: usize) -> nix::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &only)
}
