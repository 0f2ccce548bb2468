//! CPU time by role against the scheduler's own: a reading before, the agent's, a reading after.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::check::{Bench, Verdict};
use crate::{
    agent::Agent,
    bracket::within,
    metrics::{Metrics, Series},
    vmm::{
        schedstat::{self, SchedStat},
        spawn::TestVm,
        vhost,
    },
};

const CPU: &str = "kvmeter_vm_cpu_seconds_total";
const DELAY: &str = "kvmeter_vm_cpu_delay_seconds_total";
const ROUNDS: u32 = 3;

/// vCPUs that spin, that leave for user space, and threads that are none.
pub fn by_role(bench: &Bench) -> Result<Verdict> {
    let agent = &bench.agent;
    let spin = ["--id", "spin", "--duty", "100"];
    let many = ["--id", "many", "--duty", "10", "--vcpus", "2", "--workers", "2", "--worker-duty", "5"];
    let vms = [("spin", Vm::start(&spin)?), ("many", Vm::start(&many)?)];
    agent.wait_vms(&["spin", "many"])?;
    let mut widest = 0;
    for _ in 0..ROUNDS {
        widest = widest.max(bracket(agent, &vms)?);
    }
    Ok(Verdict::Holds(format!("{ROUNDS} readings of 2 VMs, the widest bracket {} ms", widest / 1_000_000)))
}

/// Each VM's roles lie between two readings of the scheduler; the widest distance of two, nanoseconds.
pub(super) fn bracket(agent: &Agent, vms: &[(&str, Vm)]) -> Result<u64> {
    let before = vms.iter().map(|(_, vm)| vm.roles()).collect::<Result<Vec<_>>>()?;
    agent.wait_samples(1)?;
    let scrape = agent.metrics()?;
    let mut widest = 0;
    for ((id, vm), low) in vms.iter().zip(before) {
        let high = vm.roles()?;
        vm.compare(low, Roles::told(&scrape, id), high).with_context(|| (*id).to_owned())?;
        widest = widest.max(high.sum().run_ns - low.sum().run_ns);
    }
    Ok(widest)
}

/// A stopped process uses nothing, so there is one right answer.
pub fn stopped(bench: &Bench) -> Result<Verdict> {
    let agent = &bench.agent;
    let vm = Vm::start(&["--id", "parked", "--duty", "40", "--vcpus", "2", "--workers", "1", "--worker-duty", "10"])?;
    agent.wait_vms(&["parked"])?;
    vm.vm.signal(Signal::SIGSTOP)?;
    std::thread::sleep(Duration::from_millis(500));
    let due = vm.roles()?;
    agent.wait_samples(2)?;
    let told = Roles::told(&agent.metrics()?, "parked");
    ensure!(due == vm.roles()?, "a stopped process ran");
    vm.compare(due, told, due)?;
    let early = due.vcpu.run_ns - told.vcpu.run_ns;
    Ok(Verdict::Holds(format!(
        "{} ns, of which vCPUs {}; {early} before they were any",
        due.sum().run_ns,
        told.vcpu.run_ns
    )))
}

/// A VM whose vCPUs are in the guest.
pub(super) struct Vm {
    pub(super) vm: TestVm,
    /// The thread that works for its vhost device, if it owns one.
    pub(super) worker: Option<i32>,
    /// What the vCPUs' threads had used when all of them were: more than before they were vCPUs, which is told as
    /// the role they had then.
    early: SchedStat,
}

impl Vm {
    pub(super) fn start(args: &[&str]) -> Result<Self> {
        let mut this = Self { vm: TestVm::start(args)?, worker: None, early: SchedStat::default() };
        this.find_worker()?;
        this.early = this.roles()?.vcpu;
        Ok(this)
    }

    /// Looks for the vhost worker, which may come later; whether there is one.
    pub(super) fn find_worker(&mut self) -> Result<bool> {
        self.worker = vhost::worker(self.vm.pid())?;
        Ok(self.worker.is_some())
    }

    /// What the scheduler charged so far.
    pub(super) fn roles(&self) -> Result<Roles> {
        let mut roles = Roles::default();
        for (tid, thread) in schedstat::per_thread(self.vm.pid())? {
            if self.worker == Some(tid) {
                continue;
            }
            let sum = if self.vm.vcpu_tids().contains(&tid) { &mut roles.vcpu } else { &mut roles.vmm };
            *sum = add(*sum, thread);
        }
        if let Some(tid) = self.worker {
            roles.vhost = schedstat::thread(tid, tid)?;
        }
        Ok(roles)
    }

    /// The whole between two readings exactly, and each role but for what its threads did in another.
    pub(super) fn compare(&self, low: Roles, told: Roles, high: Roles) -> Result<()> {
        within(low.sum(), told.sum(), high.sum()).context("the whole")?;
        let less = SchedStat {
            run_ns: low.vcpu.run_ns.saturating_sub(self.early.run_ns),
            delay_ns: low.vcpu.delay_ns.saturating_sub(self.early.delay_ns),
        };
        within(less, told.vcpu, high.vcpu).context("role vcpu")?;
        within(low.vhost, told.vhost, high.vhost).context("role vhost")?;
        within(low.vmm, told.vmm, add(high.vmm, self.early)).context("role vmm")
    }
}

fn add(left: SchedStat, right: SchedStat) -> SchedStat {
    SchedStat { run_ns: left.run_ns + right.run_ns, delay_ns: left.delay_ns + right.delay_ns }
}

/// CPU and run-queue time of each role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) vcpu: SchedStat,
    pub(super) vmm: SchedStat,
    pub(super) vhost: SchedStat,
}

impl Roles {
    /// What the agent says.
    pub(super) fn told(scrape: &Metrics, vm_id: &str) -> Self {
        let of = |role| {
            let labels = [("vm_id", vm_id), ("role", role)];
            let nanos = |name| scrape.all(name, &labels).map(Series::nanos).sum();
            SchedStat { run_ns: nanos(CPU), delay_ns: nanos(DELAY) }
        };
        Self { vcpu: of("vcpu"), vmm: of("vmm"), vhost: of("vhost") }
    }

    fn sum(self) -> SchedStat {
        add(add(self.vcpu, self.vmm), self.vhost)
    }
}
