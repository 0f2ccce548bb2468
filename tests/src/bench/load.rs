//! What makes hooks fire: switches, system calls and threads of no VM, in this process, and VMs that are let run and stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::vmm::pingpong::{PingPong, pin};
use crate::vmm::spawn::TestVm;

use super::contest::Load;

/// The CPUs this process may run on.
pub fn cpus() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect())
}

/// The CPU loads are put on: the last, for the first has most of the interrupts.
pub fn busy_cpu() -> Result<usize> {
    cpus()?.last().copied().context("this process may run on no CPU")
}

/// Lets the calling thread run on these CPUs again.
pub fn let_run_on(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Keeps a VM's vCPUs on a CPU.
pub fn keep_on(vm: &TestVm, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(vm.vcpu_tids().iter().try_for_each(|tid| sched_setaffinity(Pid::from_raw(*tid), &set))?)
}

/// Switches of threads of no VM.
#[derive(Debug)]
pub struct Switches {
    pair: PingPong,
    rounds: u64,
    caused: u64,
}

impl Switches {
    /// On one CPU, about as long as this at a time.
    pub fn new(cpu: usize, slice: Duration) -> Result<Self> {
        const TRIAL: u64 = 2_000;
        let pair = PingPong::start(cpu)?;
        let took = pair.run(TRIAL)?.max(Duration::from_micros(1));
        let rounds = u128::from(TRIAL) * slice.as_nanos() / took.as_nanos();
        Ok(Self { pair, rounds: u64::try_from(rounds)?.max(1), caused: 0 })
    }
}

impl Load for Switches {
    fn begin(&mut self) -> Result<()> {
        self.pair.begin(self.rounds)
    }

    fn finish(&mut self) -> Result<()> {
        self.caused += 2 * self.rounds;
        self.pair.finish().map(drop)
    }

    fn caused(&self) -> Result<u64> {
        Ok(self.caused)
    }
}

/// What of a VM's process is counted as caused by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caused {
    /// Switches of its threads.
    Switches,
    /// Nothing that is known from outside.
    Unknown,
}

/// A VM that is stopped between the rounds.
#[derive(Debug)]
pub struct Vm {
    vm: TestVm,
    caused: Caused,
}

impl Vm {
    /// Starts one with these options; it is stopped at first.
    pub fn start(args: &[&str], caused: Caused) -> Result<Self> {
        let vm = TestVm::start(args)?;
        let vm = Self { vm, caused };
        vm.stop()?;
        Ok(vm)
    }

    /// Its process.
    pub fn tgid(&self) -> Result<u32> {
        Ok(u32::try_from(self.vm.pid())?)
    }

    /// The VM itself.
    #[must_use]
    pub fn vm(&self) -> &TestVm {
        &self.vm
    }

    fn stop(&self) -> Result<()> {
        self.vm.signal(Signal::SIGSTOP)?;
        let stat = format!("/proc/{}/stat", self.vm.pid());
        for _ in 0..2_000 {
            let text = std::fs::read_to_string(&stat)?;
            if text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        bail!("the test VM does not stop")
    }
}

impl Load for Vm {
    fn begin(&mut self) -> Result<()> {
        self.vm.signal(Signal::SIGCONT)
    }

    fn finish(&mut self) -> Result<()> {
        self.stop()
    }

    fn caused(&self) -> Result<u64> {
        match self.caused {
            Caused::Switches => super::watch::switches(self.vm.pid()),
            Caused::Unknown => Ok(0),
        }
    }
}

/// A thread of this process that does one thing over and over while it is told to.
#[derive(Debug)]
pub struct Worker {
    on: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    orders: Option<Sender<()>>,
    rests: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread on this CPU; it sleeps. `counted` when one time is one run of the programs on the hook.
    pub fn start(cpu: usize, counted: bool, mut once: impl FnMut() + Send + 'static) -> Self {
        let (on, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (orders, ordered) = channel::<()>();
        let (rest, rests) = channel();
        let (its_on, its_done) = (Arc::clone(&on), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            // One that may not choose its CPU runs on any.
            drop(pin(cpu));
            while ordered.recv().is_ok() {
                let mut times = 0;
                while its_on.load(Ordering::Relaxed) {
                    once();
                    times += 1;
                }
                its_done.fetch_add(if counted { times } else { 0 }, Ordering::Relaxed);
                if rest.send(()).is_err() {
                    return;
                }
            }
        });
        Self { on, done, orders: Some(orders), rests, thread: Some(thread) }
    }
}

impl Load for Worker {
    fn begin(&mut self) -> Result<()> {
        self.on.store(true, Ordering::Relaxed);
        self.orders.as_ref().context("the thread is gone")?.send(()).context("the thread is gone")
    }

    fn finish(&mut self) -> Result<()> {
        self.on.store(false, Ordering::Relaxed);
        self.rests.recv().context("the thread is gone")
    }

    fn caused(&self) -> Result<u64> {
        Ok(self.done.load(Ordering::Relaxed))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.on.store(false, Ordering::Relaxed);
        drop(self.orders.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// No load at all.
#[derive(Debug)]
pub struct Nothing;

impl Load for Nothing {
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn caused(&self) -> Result<u64> {
        Ok(0)
    }
}
