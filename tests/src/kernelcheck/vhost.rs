//! Role vhost: what the kernel's workers for a VM's vhost device used is that VM's, to the nanosecond, and nobody else's.
//!
//! A worker is a kernel thread or a thread of the VMM; where the kernel leaves the choice both are asked for.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{
    check::{Bench, Verdict},
    cpu::{Roles, Vm, bracket},
};
use crate::{ledger::number, process::last_slices_ns, vmm::schedstat};

const ROUNDS: u32 = 3;
/// What each worker must use while it is looked at: far more than waking up costs one that has nothing to send.
const LEAST_NS: u64 = 20_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// VMs that send, each with the worker that the kernel makes by itself but one, and one that has no device.
const VMS: [(&str, &[&str]); 4] = [
    ("ready", &["--duty", "10", "--vhost-net", "--vhost-frames", "1000"]),
    (PLUGGED, &["--duty", "10", "--vhost-net", "--vhost-frames", "1000"]),
    ("kthread", &["--duty", "10", "--vhost-net", "--vhost-frames", "1000", "--vhost-kernel-thread"]),
    ("without", &["--duty", "10", "--workers", "1", "--worker-duty", "5"]),
];
/// Its device comes only once the agent knows it as a VM.
const PLUGGED: &str = "plugged";

/// The scheduler's readings of each worker around the agent's; of stopped VMs they are equal; the ledger has them too.
pub fn attributed(bench: &Bench) -> Result<Verdict> {
    let agent = &bench.agent;
    let vms = start(bench)?;
    let kinds = vms.iter().map(|(id, vm)| kind(vm).context(*id)).collect::<Result<Vec<_>>>()?;
    ensure!(kinds[2..] == [Some(Kind::KernelThread), None] && kinds[0] == kinds[1], "workers {kinds:?}");
    agent.wait_until("role vhost", PATIENCE, |agent| {
        let scrape = agent.metrics()?;
        Ok(vms.iter().all(|(id, vm)| vm.worker.is_none() || Roles::told(&scrape, id).vhost.run_ns > 0))
    })?;
    let first = vms.iter().map(|(_, vm)| vm.roles()).collect::<Result<Vec<_>>>()?;
    for _ in 0..ROUNDS {
        bracket(agent, &vms)?;
    }
    let last = at_rest(bench, &vms)?;
    for ((id, vm), (first, last)) in vms.iter().zip(first.iter().zip(&last)) {
        let used = last.vhost.run_ns - first.vhost.run_ns;
        ensure!(vm.worker.is_none() || used >= LEAST_NS, "{id}: its worker used {used} ns only: nothing was tested");
    }
    ended(bench, vms, &last)?;
    let told = VMS.iter().zip(&kinds).zip(&last).map(|(((id, _), kind), roles)| match kind {
        Some(kind) => format!("{id}: {kind:?} {} ns", roles.vhost.run_ns),
        None => format!("{id}: none"),
    });
    Ok(Verdict::Holds(told.collect::<Vec<_>>().join("; ")))
}

/// All VMs, each with its worker.
fn start(bench: &Bench) -> Result<Vec<(&'static str, Vm)>> {
    let directory = TempDir::new()?;
    let plug = directory.path().join("plug");
    let when = ["--vhost-when", plug.to_str().context("no path")?];
    let mut vms = Vec::new();
    for (id, args) in VMS {
        let more: &[&str] = if id == PLUGGED { &when } else { &[] };
        vms.push((id, Vm::start(&[&["--id", id], args, more].concat())?));
    }
    bench.agent.wait_vms(&VMS.map(|(id, _)| id))?;
    std::fs::write(&plug, "")?;
    bench.agent.wait_until("a worker for the device that was plugged in", PATIENCE, |_| {
        let plugged = vms.iter_mut().find(|(id, _)| *id == PLUGGED);
        plugged.map_or(Ok(true), |(_, vm)| vm.find_worker())
    })?;
    Ok(vms)
}

/// What a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    KernelThread,
    ThreadOfTheVmm,
}

fn kind(vm: &Vm) -> Result<Option<Kind>> {
    let Some(tid) = vm.worker else { return Ok(None) };
    let inside = schedstat::per_thread(vm.vm.pid())?.contains_key(&tid);
    Ok(Some(if inside { Kind::ThreadOfTheVmm } else { Kind::KernelThread }))
}

/// With their VMMs stopped the workers have nothing left to send, so there is one right answer.
fn at_rest(bench: &Bench, vms: &[(&str, Vm)]) -> Result<Vec<Roles>> {
    for (_, vm) in vms {
        vm.vm.signal(Signal::SIGSTOP)?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let due = vms.iter().map(|(_, vm)| vm.roles()).collect::<Result<Vec<_>>>()?;
    bench.agent.wait_samples(2)?;
    let scrape = bench.agent.metrics()?;
    for ((id, vm), due) in vms.iter().zip(&due) {
        ensure!(*due == vm.roles()?, "{id}: a stopped VM ran");
        vm.compare(*due, Roles::told(&scrape, id), *due).with_context(|| format!("{id}, stopped"))?;
    }
    Ok(due)
}

/// The ledger's last word on each: what the worker had used, and at most its way out besides.
fn ended(bench: &Bench, vms: Vec<(&str, Vm)>, last: &[Roles]) -> Result<()> {
    for ((id, mut vm), last) in vms.into_iter().zip(last) {
        vm.vm.signal(Signal::SIGKILL)?;
        vm.vm.wait()?;
        let life = bench.agent.ended(id)?;
        let told = number(&life.stop.as_ref().context("no stop")?["usage"]["cpu_vhost_ns"])?;
        let least = last.vhost.run_ns;
        let most = if vm.worker.is_some() { least + last_slices_ns() } else { 0 };
        ensure!(least <= told && told <= most, "{id}: the ledger has {told} ns, its worker had used {least} ns");
    }
    Ok(())
}
