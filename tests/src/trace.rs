//! The kernel's own trace of one event, as truth: text lines of a tracefs instance that nobody else uses.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// For each CPU; a record takes about 30 bytes.
const BUFFER_KIB: &str = "8192";

/// A trace under way, ended and removed when dropped.
#[derive(Debug)]
pub struct Trace {
    instance: PathBuf,
    event: &'static str,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The thread it happened in.
    pub tid: i32,
    /// What the event's format prints.
    pub text: String,
}

impl Trace {
    /// Begins to trace `system/event`.
    pub fn of(system: &str, event: &'static str) -> Result<Self> {
        let mount =
            MOUNTS.iter().map(Path::new).find(|mount| mount.join("instances").is_dir()).context("no tracefs")?;
        let instance = mount.join("instances").join(format!("kvmeter-{}", std::process::id()));
        std::fs::create_dir(&instance).with_context(|| format!("cannot make {}", instance.display()))?;
        let trace = Self { instance, event };
        trace.write("buffer_size_kb", BUFFER_KIB)?;
        trace.write(&format!("events/{system}/{event}/enable"), "1")?;
        Ok(trace)
    }

    /// All records so far; an error if any was lost.
    pub fn records(&self) -> Result<Vec<Record>> {
        let text = std::fs::read_to_string(self.instance.join("trace"))?;
        for cpu in std::fs::read_dir(self.instance.join("per_cpu"))? {
            let stats = std::fs::read_to_string(cpu?.path().join("stats"))?;
            let lost = stats.lines().filter(|line| line.starts_with("overrun:") || line.starts_with("dropped"));
            let lost: Vec<_> = lost.filter(|line| !line.ends_with(": 0")).collect();
            ensure!(lost.is_empty(), "the trace lost records: {lost:?}");
        }
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| record(line, self.event).with_context(|| format!("not a record: {line}"))).collect()
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.instance.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // The files in it are the kernel's and go with it.
        drop(std::fs::remove_dir(&self.instance));
    }
}

/// `<comm>-<tid> [<cpu>] <flags> <time>: <event>: <text>`; a comm may hold anything, so the marks are sought from the end.
fn record(line: &str, event: &str) -> Option<Record> {
    let (head, text) = line.rsplit_once(&format!(": {event}: "))?;
    let (task, _) = head.rsplit_once(" [")?;
    let (_, tid) = task.trim_end().rsplit_once('-')?;
    Some(Record { tid: tid.parse().ok()?, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_thread_whatever_its_name_is() {
        for comm in ["vcpu0", "a b", "x-1 [002]", "<...>", ": wake: 7"] {
            let line = format!("  {comm}-18494   [000] ..... 12862.756214: wake: wait time 47 ns");
            let record = record(&line, "wake").unwrap();
            assert_eq!((record.tid, record.text.as_str()), (18494, "wait time 47 ns"), "{comm}");
        }
        assert_eq!(record("CPU:1 [LOST 5 EVENTS]", "wake"), None);
    }
}
