//! The list of checks, running them, and one line of JSON for each: `{"name":…,"outcome":…,"detail":…}`.
//!
//! `absent` is no excuse: a check may say so only with the agent's own word that its kernel program is not at work.

use std::{
    fs::File,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{clocks, cpu, exits, guest, handling, lives, memory, network, programs::Programs, suites, vhost};
use crate::{
    agent::{Agent, Setup},
    trace::Trace,
};

/// What a check found out; that it failed is an error.
#[derive(Debug)]
pub enum Verdict {
    /// It holds; with the figures seen.
    Holds(String),
    /// It cannot be asked here, and why.
    Absent(String),
}

/// What checks share: starting an agent takes a machine that emulates its verifier ten seconds.
#[derive(Debug)]
pub struct Bench {
    /// What became of the kernel programs.
    pub programs: Programs,
    /// A trace that was there before the agent: its probes are called first. It records when it is told to.
    pub ahead: Trace,
    /// An agent that was there before any VM, with a histogram for each.
    pub agent: Agent,
}

/// The kernel is asked about its programs at each scan.
const SETTINGS: &str = "[metrics]\nhistograms = true\n[discovery]\nscan_interval = \"1s\"\n";
/// After this no reading is from before: a scan and a sample.
const SCANNED: Duration = Duration::from_millis(2500);

impl Bench {
    /// Runs of this program that the kernel has skipped, while no VM runs.
    ///
    /// From 7.0 on a program on a tracepoint can be preempted, and what then hits the same tracepoint on the same CPU is
    /// not counted by it (kernel/trace/bpf_trace.c, `__bpf_trace_run`); seen on 7.2: one of 44,000 faults of guests.
    pub fn skipped(&self, program: &str) -> Result<u64> {
        std::thread::sleep(SCANNED);
        let told = self.agent.metrics()?.one("kvmeter_program_misses_total", &[("program", program)]);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of whole numbers")]
        Ok(told.unwrap_or_default() as u64)
    }

    /// What holds of each run that this program saw whole: a run of which the kernel skipped some is made again.
    pub fn unskipped<T>(&self, program: &str, mut run: impl FnMut(u32) -> Result<T>) -> Result<T> {
        for attempt in 0..5 {
            let before = self.skipped(program)?;
            let outcome = run(attempt);
            if outcome.is_ok() || self.skipped(program)? == before {
                return outcome;
            }
            println!("kernelcheck: the kernel skipped runs of {program}: once more");
        }
        bail!("the kernel skipped runs of {program} each time")
    }
}

type Check = fn(&Bench) -> Result<Verdict>;

/// Names are the rows of `docs/kernels.md`.
const CHECKS: [(&str, Check); 19] = [
    ("CPU time lies between two readings of schedstat, by role", cpu::by_role),
    ("CPU time of stopped threads equals schedstat to the nanosecond", cpu::stopped),
    ("CPU time of vhost workers is their VM's, in role vhost, and no other's", vhost::attributed),
    ("a short VM's whole life, with how it ended", lives::short),
    ("who sent the signal that ended a VM, and what its guest said last, are told", lives::ended_by),
    ("a running VM is adopted with its true start and all its CPU time", lives::adopted),
    ("the wall clock set by days changes no length, and each step has its line", clocks::set),
    ("a suspended host has its line, and its VMs their whole length", clocks::suspended),
    ("exits to user space by reason equal the kernel's trace and the VMM's count", exits::to_user_space),
    ("exits by reason equal the kernel's trace", exits::by_reason),
    ("how long exits were handled lies between bounds from the kernel's trace", handling::histogram),
    ("guest time lies between bounds from /proc", guest::bounds),
    ("guest time equals the kernel's trace", guest::traced),
    ("the modes of a vCPU sum to its CPU time", guest::modes),
    ("halt polling equals the kernel's trace", guest::halt_poll),
    ("memory that comes and goes lies between two readings of /proc", memory::moved),
    ("faults of the guest equal the kernel's trace", memory::guest_faults),
    ("packets of a tap by class equal the guest's own count and the link's", network::tap),
    ("packets of a macvtap by class equal the guest's own count and the link's", network::macvtap),
];

/// Runs every check, whichever fails; results go to the directory that is the only argument.
pub fn run() -> Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).context("give a directory for the results")?);
    let mut lines = Lines(File::create(directory.join("checks.jsonl"))?, Instant::now());
    let programs = Programs::ask()?;
    for (name, outcome) in programs.each() {
        lines.tell(&format!("`{name}`"), outcome)?;
    }
    let ahead = Trace::start("ahead", &handling::EVENTS)?;
    ahead.stand_by()?;
    let agent = Agent::with(Setup::of(&format!("{SETTINGS}{}", network::CLASSES)))?;
    let bench = Bench { programs, ahead, agent };
    for (name, check) in CHECKS {
        // One that panics is one that fails: the others have their say.
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&bench)));
        lines.tell(name, outcome.unwrap_or_else(|_panic| bail!("it panicked: see the console")))?;
    }
    // The tests start agents of their own, and each would see the other's VMs.
    let Bench { programs, agent, ahead } = bench;
    drop(ahead);
    lines.tell(network::NOTHING_LEFT, network::nothing_left(&programs, agent))?;
    suites::each(Path::new("/tests"), &directory, |name, outcome| lines.tell(name, outcome))
}

/// The results so far, and when the last check ended.
struct Lines(File, Instant);

impl Lines {
    fn tell(&mut self, name: &str, outcome: Result<Verdict>) -> Result<()> {
        let (outcome, detail) = match outcome {
            Ok(Verdict::Holds(detail)) => ("pass", detail),
            Ok(Verdict::Absent(why)) => ("absent", why),
            Err(error) => ("fail", format!("{error:#}")),
        };
        writeln!(self.0, "{}", json!({ "name": name, "outcome": outcome, "detail": detail }))?;
        println!("kernelcheck: {outcome}: {:.1} s: {name}: {detail}", self.1.elapsed().as_secs_f64());
        self.1 = Instant::now();
        Ok(())
    }
}
