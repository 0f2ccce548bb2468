//! Waits for a CPU: what a scrape tells of them, and the truth beside it.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{agent::Agent, metrics::Metrics, vmm::schedstat};

const DELAY: &str = "kvmeter_vm_cpu_delay_seconds_total";
const PREEMPTED: &str = "kvmeter_vm_preempted_seconds_total";
/// How far two sums of the same nanoseconds may be apart, in seconds.
const ROUNDING: f64 = 1e-6;
const WINDOW: Duration = Duration::from_secs(2);
/// Windows that are tried before a host counts as too busy.
const WINDOWS: u32 = 6;
/// The least share of a CPU that those in question must have had in a window.
const OURS: f64 = 0.95;

/// What one VM waited, in seconds, by who ran instead.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waited {
    /// In all, over its roles.
    pub delay: f64,
    /// By whom.
    pub by: BTreeMap<String, f64>,
}

impl Waited {
    /// What a scrape tells, held against the laws: the parts sum to the whole, there are few of them, none is the VM.
    #[must_use]
    pub fn of(scrape: &Metrics, id: &str) -> Self {
        let labels = [("vm_id", id)];
        let delay = scrape.sum(DELAY, &labels);
        let by: BTreeMap<_, _> =
            scrape.all(PREEMPTED, &labels).map(|series| (series.labels["by"].clone(), series.value)).collect();
        let sum: f64 = by.values().sum();
        assert!((sum - delay).abs() <= ROUNDING, "{id}: {sum} s by somebody, {delay} s in all: {by:?}");
        assert_eq!(by.len(), scrape.all(PREEMPTED, &labels).count(), "{id}: somebody is there twice");
        assert!(!by.contains_key(id), "{id} waited for itself: {by:?}");
        let offenders = by.keys().filter(|by| !["host", "other"].contains(&by.as_str())).count();
        assert!(offenders <= 4, "{id}: {offenders} offenders: {by:?}");
        Self { delay, by }
    }

    /// The share of what it waited since `before` that it waited for this one.
    #[must_use]
    pub fn share(&self, before: &Self, by: &str) -> f64 {
        let of = |waited: &Self| waited.by.get(by).copied().unwrap_or(0.0);
        (of(self) - of(before)) / (self.delay - before.delay)
    }

    /// Whether no counter fell.
    #[must_use]
    pub fn goes_on_from(&self, before: &Self) -> bool {
        self.delay >= before.delay && before.by.iter().all(|(by, value)| self.by.get(by) >= Some(value))
    }
}

/// What these VMs waited before and after a window in which these threads had (nearly) all of one CPU; `None` if others
/// take part of it all the time.
pub fn undisturbed(agent: &Agent, ids: &[&str], threads: &[(i32, i32)]) -> Result<Option<Vec<(Waited, Waited)>>> {
    let ran = || -> Result<u64> {
        let each = threads.iter().map(|(pid, tid)| Ok(schedstat::thread(*pid, *tid)?.run_ns));
        each.sum()
    };
    let read = || -> Result<Vec<Waited>> {
        agent.wait_samples(1)?;
        let scrape = agent.metrics()?;
        Ok(ids.iter().map(|id| Waited::of(&scrape, id)).collect())
    };
    for _ in 0..WINDOWS {
        let (began, ran_before) = (Instant::now(), ran()?);
        let before = read()?;
        std::thread::sleep(WINDOW);
        let after = read()?;
        let share = Duration::from_nanos(ran()? - ran_before).as_secs_f64() / began.elapsed().as_secs_f64();
        eprintln!("they had {:.1} % of the CPU", share * 100.0);
        if share >= OURS {
            return Ok(Some(before.into_iter().zip(after).collect()));
        }
    }
    Ok(None)
}

/// A process that is no VM and spins on one CPU, killed and reaped when dropped.
#[derive(Debug)]
pub struct Spinner(Child);

impl Spinner {
    /// Starts one.
    pub fn on(cpu: usize) -> Result<Self> {
        let child = Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn()?;
        let spinner = Self(child);
        let mut only = CpuSet::new();
        only.set(cpu)?;
        sched_setaffinity(Pid::from_raw(spinner.pid()), &only).context("cannot pin the spinner")?;
        Ok(spinner)
    }

    /// Its process, and its one thread.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// How often a process's living threads were given a CPU (the third number of `schedstat`): as many waits at most.
pub fn times_run(pid: i32) -> Result<u64> {
    let mut sum = 0;
    for tid in schedstat::per_thread(pid)?.into_keys() {
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")) {
            sum += text.split_ascii_whitespace().nth(2).context("no third number")?.parse::<u64>()?;
        }
    }
    Ok(sum)
}
