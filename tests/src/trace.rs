//! The kernel's own trace of a guest run: an instance of tracefs of its own, so that nobody else's events are in it.
//!
//! It refuses to answer if the kernel dropped an event. Times are those of CLOCK_MONOTONIC, in whole microseconds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
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
pub struct Trace {
    instance: PathBuf,
    events: Vec<String>,
}

impl Trace {
    /// Begins to record these events of the group `kvm`, in an instance of this name.
    pub fn start(name: &str, events: &[&str]) -> Result<Self> {
        let mount =
            MOUNTS.iter().map(Path::new).find(|mount| mount.join("instances").is_dir()).context("no tracefs")?;
        let instance = mount.join("instances").join(format!("kvmeter-{name}-{}", std::process::id()));
        fs::create_dir(&instance).with_context(|| format!("no trace instance {}", instance.display()))?;
        let trace = Self { instance, events: events.iter().map(|event| (*event).to_owned()).collect() };
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
        self.records()
    }

    /// All events so far, while more come; an error if any was lost.
    pub fn records(&self) -> Result<Vec<Record>> {
        let text = fs::read_to_string(self.instance.join("trace"))?;
        for entry in fs::read_dir(self.instance.join("per_cpu"))? {
            let stats = fs::read_to_string(entry?.path().join("stats"))?;
            let lost = stats.lines().filter(|line| line.starts_with("overrun:") || line.starts_with("dropped events:"));
            for line in lost {
                ensure!(line.ends_with(": 0"), "the kernel's trace is not whole: {line}");
            }
        }
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        lines.map(|line| record(line, &self.events).with_context(|| format!("not a line of a trace: {line}"))).collect()
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.instance.join(file), value)
            .with_context(|| format!("cannot write {value} to the trace's {file}"))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        for value in ["tracing_on", "events/enable"] {
            // Removing the instance ends it anyway.
            let _ = self.set(value, "0");
        }
        if let Err(error) = fs::remove_dir(&self.instance) {
            eprintln!("the trace instance {} stays: {error}", self.instance.display());
        }
    }
}

/// `  comm-TID  [CPU] flags  SECONDS.MICROS: EVENT: TEXT`; a comm may hold anything, so the marks are sought from the end.
fn record(line: &str, events: &[String]) -> Option<Record> {
    let found = events.iter().filter_map(|event| Some((line.rfind(&format!(": {event}: "))?, event)));
    let (at, event) = found.max_by_key(|(at, _)| *at)?;
    let (head, text) = (&line[..at], &line[at + event.len() + 4..]);
    let (task, times) = head.rsplit_once(" [")?;
    let tid = task.trim_end().rsplit_once('-')?.1.parse().ok()?;
    let (seconds, micros) = times.split_ascii_whitespace().last()?.split_once('.')?;
    let at_us = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    Some(Record { tid, at_us, event: event.clone(), text: text.trim().to_owned() })
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
        let events = ["kvm_exit", "kvm_entry"].map(str::to_owned);
        assert_eq!(record(line, &events), Some(due));
        let line = "           <...>-9       [000] d...     1.5: kvm_entry: vcpu 0";
        assert_eq!(record(line, &events).unwrap().text, "vcpu 0");
        assert_eq!(record("nothing of the kind", &events), None);
    }

    #[test]
    fn a_record_has_its_thread_whatever_its_name_is() {
        let events = ["wake".to_owned()];
        for comm in ["vcpu0", "a b", "x-1 [002]", "<...>", ": wake: 7"] {
            let line = format!("  {comm}-18494   [000] ..... 12862.756214: wake: wait time 47 ns");
            let record = record(&line, &events).unwrap();
            assert_eq!((record.tid, record.text.as_str()), (18494, "wait time 47 ns"), "{comm}");
        }
        assert_eq!(record("CPU:1 [LOST 5 EVENTS]", &events), None);
    }
}
