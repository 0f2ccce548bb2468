//! bpftrace's one-liners that people count by process id with; started and ended with a round.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// CPU time by process id: a clock at each switch, and what has passed since the last one.
pub const CPU_BY_PID: &str = "tracepoint:sched:sched_switch { \
    if (@on[cpu]) { @ns[args->prev_pid] = sum(nsecs - @on[cpu]); } @on[cpu] = nsecs; }";
/// Only how often each process was switched out.
pub const COUNT_BY_PID: &str = "tracepoint:sched:sched_switch { @[args->prev_pid] = count(); }";
/// What it says first once everything is attached.
const READY: &str = "kvmeter-bench: ready";

/// A running one-liner.
#[derive(Debug)]
pub struct OneLiner(Child);

impl OneLiner {
    /// Starts it and waits until it counts.
    pub fn start(one_liner: &str) -> Result<Self> {
        let script = format!("BEGIN {{ printf(\"{READY}\\n\"); }} {one_liner}");
        let mut command = Command::new("bpftrace");
        command.args(["-e", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut this = Self(command.spawn().context("cannot run bpftrace")?);
        let output = this.0.stdout.take().context("bpftrace has no output")?;
        let mut lines = BufReader::new(output).lines();
        for line in lines.by_ref() {
            if line?.contains(READY) {
                // What it prints at its end must find a reader.
                std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
                return Ok(this);
            }
        }
        bail!("bpftrace ended before it was ready: {}", this.said())
    }

    fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut errors) = self.0.stderr.take() {
            drop(std::io::Read::read_to_string(&mut errors, &mut text));
        }
        text.trim().replace('\n', " ")
    }
}

impl Drop for OneLiner {
    fn drop(&mut self) {
        // Ctrl-C is what it waits for.
        if kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT).is_err() {
            drop(self.0.kill());
        }
        drop(self.0.wait());
    }
}
