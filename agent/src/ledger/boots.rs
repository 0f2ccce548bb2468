//! What lines tell of the boots they were written in: until when an agent watched, and what the clocks showed.

use std::collections::HashMap;

use super::{Kind, Line, Stamp, Subject};

/// Fed with lines in order; bounded by the number of boots.
#[derive(Debug, Default)]
pub(super) struct Boots {
    seen: HashMap<String, Stamp>,
    writing: String,
    /// Both clocks at one instant of that boot, as the newest line has it that tells of its own instant.
    clocks: Option<Stamp>,
    /// What the newest `agent.up` and the lines after it tell of how long the host was suspended since it booted.
    asleep_ns: Option<u64>,
}

impl Boots {
    /// Takes the next line. The boot lines are written in is the one the agent last named; a stop may name an older one.
    pub(super) fn note(&mut self, line: &Line) {
        let fact = &line.fact;
        match (fact.kind, fact.suspended_ns) {
            (Kind::AgentUp, told) => self.asleep_ns = told,
            (Kind::HostSuspend, Some(more)) => self.asleep_ns = self.asleep_ns.map(|ns| ns.saturating_add(more)),
            _other => {}
        }
        if fact.subject == Subject::Ledger || self.writing.is_empty() {
            self.writing.clone_from(&fact.boot_id);
        }
        if fact.boot_id != self.writing {
            self.clocks = None;
            return;
        }
        let seen = self.seen.entry(fact.boot_id.clone()).or_insert(Stamp { unix_ns: 0, mono_ns: 0 });
        (seen.unix_ns, seen.mono_ns) = (seen.unix_ns.max(line.recorded_at), seen.mono_ns.max(fact.mono_ns));
        if matches!(fact.kind, Kind::AgentUp | Kind::AgentDown | Kind::ClockStep | Kind::VmComputeUsage) {
            self.clocks = Some(Stamp { unix_ns: fact.emitted_at, mono_ns: fact.mono_ns });
        }
    }

    /// The newest instant of a line that was written in this boot.
    pub(super) fn seen(&self, boot_id: &str) -> Option<&Stamp> {
        self.seen.get(boot_id)
    }

    /// The boot lines are written in, and the newest instant of one.
    pub(super) fn watched(&self) -> Option<(String, Stamp)> {
        Some((self.writing.clone(), *self.seen(&self.writing)?))
    }

    /// What both clocks showed at one instant of the boot lines are written in, the newest that is known.
    pub(super) const fn clocks(&self) -> Option<Stamp> {
        self.clocks
    }

    /// For how long the host was suspended in the boot lines are written in, as far as they tell.
    pub(super) const fn asleep_ns(&self) -> Option<u64> {
        self.asleep_ns
    }
}
