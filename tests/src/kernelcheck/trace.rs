//! The kernel's own trace of a guest run: an instance of tracefs of its own, so that nobody else's events are in it.
//!
//! It refuses to answer if the kernel dropped an event. Times are those of CLOCK_MONOTONIC, in whole microseconds.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

const INSTANCES: &str = "/sys/kernel/tracing/instances";
const BUFFER_KB: &str = "16384";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The thread in which it happened.
    pub tid: i32,
    /// When, microseconds.
    pub at_us: u64,
    /// Such as `kvm_exit`.
    pub event: String,
    /// What the event prints of itself.
    pub text: String,
}

/// A trace under way; gone when dropped.
#[derive(Debug)]
pub struct Trace(PathBuf);

impl Trace {
    /// Begins to record these events of the group `kvm`, in an instance of this name.
    pub fn start(name: &str, events: &[&str]) -> Result<Self> {
        let trace = Self(PathBuf::from(INSTANCES).join(format!("kvmeter-{name}-{}", std::process::id())));
        fs::create_dir(&trace.0).with_context(|| format!("no trace instance {}", trace.0.display()))?;
        trace.set("buffer_size_kb", BUFFER_KB)?;
        trace.set("trace_clock", "mono")?;
        for event in events {
            trace.set(&format!("events/kvm/{event}/enable"), "1")?;
        }
        Ok(trace)
    }

    /// Records nothing until told to; its probes stay where they are among those of a hook.
    pub fn stand_by(&self) -> Result<()> {
        self.set("tracing_on", "0")
    }

    /// Forgets what was recorded and records again.
    pub fn go_on(&self) -> Result<()> {
        self.set("trace", "")?;
        self.set("tracing_on", "1")
    }

    /// Ends recording: every event there was.
    pub fn so_far(&self) -> Result<Vec<Record>> {
        self.stand_by()?;
        for entry in fs::read_dir(self.0.join("per_cpu"))? {
            let stats = fs::read_to_string(entry?.path().join("stats"))?;
            let lost = stats.lines().filter(|line| line.starts_with("overrun:") || line.starts_with("dropped events:"));
            for line in lost {
                ensure!(line.ends_with(": 0"), "the kernel's trace is not whole: {line}");
            }
        }
        let text = fs::read_to_string(self.0.join("trace"))?;
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        lines.map(|line| record(line).with_context(|| format!("not a line of a trace: {line}"))).collect()
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.0.join(file), value).with_context(|| format!("cannot write {value} to the trace's {file}"))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        for value in ["tracing_on", "events/enable"] {
            // Removing the instance ends it anyway.
            let _ = self.set(value, "0");
        }
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("the trace instance {} stays: {error}", self.0.display());
        }
    }
}

/// `  comm-TID  [CPU] flags  SECONDS.MICROS: EVENT: TEXT`, where `comm` may be anything but is cut at 15 bytes.
fn record(line: &str) -> Option<Record> {
    let cpu = line
        .match_indices(" [")
        .map(|(at, _)| at)
        .find(|at| line[at + 2..].split_once(']').is_some_and(|(number, _)| number.parse::<u32>().is_ok()))?;
    let tid = line[..cpu].trim_end().rsplit_once('-')?.1.parse().ok()?;
    let (head, rest) = line[cpu..].split_once(": ")?;
    let (seconds, micros) = head.split_ascii_whitespace().last()?.split_once('.')?;
    let (event, text) = rest.split_once(':')?;
    let at_us = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    Some(Record { tid, at_us, event: event.trim().to_owned(), text: text.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_thread_time_event_and_text_whatever_the_thread_is_called() {
        let line = "  a-b [x] c: d-123     [001] d..1.    12.000345: kvm_exit: reason npf rip 0x1000 info 7 8";
        let due = Record {
            tid: 123,
            at_us: 12_000_345,
            event: "kvm_exit".into(),
            text: "reason npf rip 0x1000 info 7 8".into(),
        };
        assert_eq!(record(line), Some(due));
        assert_eq!(record("           <...>-9       [000] d...     1.5: kvm_entry: vcpu 0").unwrap().text, "vcpu 0");
        assert_eq!(record("nothing of the kind"), None);
    }
}
