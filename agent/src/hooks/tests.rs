//! Laws of hooks, with real processes and real sockets.

mod command;
mod delivery;
mod web;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::ledger::{Committed, Draft, Kind, Subject, Written};
use crate::metrics::tests::Remembering;

/// Hooks, the bus they listen to and a directory that everybody may write to.
struct Rig {
    dir: TempDir,
    bus: Bus,
    metrics: Remembering,
    hooks: Hooks,
}

fn facts() -> HostFacts {
    HostFacts::gather(std::path::Path::new("/"))
}

/// The hooks of a configuration, in which `DIR` stands for a directory.
fn configured(toml: &str, dir: &TempDir) -> Vec<Hook> {
    let text = toml.replace("DIR", dir.path().to_str().unwrap());
    Config::from_toml(std::path::Path::new("k.toml"), &text).unwrap().0.hooks
}

impl Rig {
    fn new(toml: &str) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), toml)
    }

    fn in_dir(dir: TempDir, toml: &str) -> Self {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let (bus, metrics) = (Bus::default(), Remembering::default());
        let shared: Shared = Arc::new(metrics.clone());
        let hooks = Hooks::start(&configured(toml, &dir), &facts(), &bus, &shared);
        Self { dir, bus, metrics, hooks }
    }

    fn take_over(&mut self, toml: &str) {
        self.hooks.take_over(&configured(toml, &self.dir), &facts());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn shutdown(self, grace: Duration) -> (TempDir, Bus, Remembering) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.hooks.shutdown(grace));
        (self.dir, self.bus, self.metrics)
    }

    /// How many runs ended so.
    fn runs(&self, outcome: &str) -> usize {
        self.metrics.calls().iter().filter(|call| **call == format!("run {outcome}")).count()
    }

    fn lost(&self, stage: &str) -> u64 {
        self.bus.lost().get(stage).copied().unwrap_or(0)
    }
}

/// A line of this number, as one that was committed.
fn line(kind: Kind, seq: u64) -> Committed {
    let mut fact = Draft::new(kind, Subject::Incarnation(format!("x-{seq}-1")), "boot", 1, 1);
    fact.vm_id = format!("vm-{seq}");
    let line = Arc::from(format!("{{\"kind\":\"{kind}\",\"seq\":{seq}}}").into_bytes());
    let written = Written { seq, id: format!("{seq:032x}"), kind, bytes: 0, trimmed: false, line };
    Committed { written, fact }
}

fn start(seq: u64) -> Vec<Committed> {
    vec![line(Kind::VmComputeStart, seq)]
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_alive(pid: &str) -> bool {
    // A zombie has ended.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}
