//! The lives a ledger tells: each start once, each stop after its start, nothing between a stop and the next start,
//! and every `id` as the contract computes it.

use std::collections::HashMap;

use super::super::ordinal::Ordinals;
use super::super::{Kind, Line, Subject, TimeQuality, digest};
use super::limit::{Meter, incarnation};
use super::report::{Open, OpenStored};
use super::stored::Stored;

/// Slot lengths that are tried first, in seconds; then every second of the hour before the reading.
const SLOTS: [u64; 12] = [1, 60, 10, 30, 15, 20, 5, 300, 600, 900, 1800, 3600];
const SLOT_REACH: u64 = 3600;

#[derive(Debug)]
struct Life {
    vm_id: String,
    boot_id: String,
    start_seq: u64,
    start_mono_ns: u64,
    last_heartbeat: String,
    meter: Meter,
}

#[derive(Debug)]
pub(super) struct Lives {
    /// Whether every line of the ledger is seen, so that what has no start is a fault.
    whole: bool,
    ordinals: Ordinals,
    running: HashMap<String, Life>,
    by_vm: HashMap<String, String>,
    stored: Stored,
    host_cpus: u32,
    slot: u64,
}

impl Lives {
    pub(super) fn new(whole: bool) -> Self {
        Self {
            whole,
            ordinals: Ordinals::default(),
            running: HashMap::new(),
            by_vm: HashMap::new(),
            stored: Stored::default(),
            host_cpus: 0,
            slot: 1,
        }
    }

    /// VM processes and stored things without a stop, oldest first.
    pub(super) fn open(self) -> (Vec<Open>, Vec<OpenStored>) {
        let open =
            |(incarnation, life): (String, Life)| Open { incarnation, vm_id: life.vm_id, start_seq: life.start_seq };
        let mut open: Vec<_> = self.running.into_iter().map(open).collect();
        open.sort_by_key(|o| o.start_seq);
        (open, self.stored.open())
    }

    /// Takes the next line; says what is wrong with the life it tells.
    pub(super) fn accept(&mut self, line: &Line) -> Vec<String> {
        let mut faults = Vec::new();
        self.check_id(line, &mut faults);
        check_bounds(line, &mut faults);
        match line.fact.kind {
            Kind::AgentUp => self.host_cpus = self.host_cpus.max(line.fact.shape.cpu),
            Kind::VmComputeStart => self.start(line, &mut faults),
            kind if kind.is_compute() => self.go_on(line, &mut faults),
            kind if kind.is_storage() => self.stored.accept(line, self.whole, &mut faults),
            _ => {}
        }
        self.ordinals.note(&line.fact.subject, line.fact.kind);
        faults
    }

    fn start(&mut self, line: &Line, faults: &mut Vec<String>) {
        let Some(who) = incarnation(line) else {
            faults.push("a start without `incarnation`".to_owned());
            return;
        };
        let twice = match self.running.get(who) {
            Some(life) => Some(format!("a second start of {who}, the first is line {}", life.start_seq)),
            None => self.ordinals.has_ended(who).then(|| format!("a second start of {who}, which has ended")),
        };
        if let Some(twice) = twice {
            faults.push(twice);
            return;
        }
        if let Some(other) = self.by_vm.insert(line.fact.vm_id.clone(), who.to_owned()) {
            faults.push(format!("{:?} starts as {who} before {other} has stopped", line.fact.vm_id));
        }
        let mut meter = Meter::new(line);
        meter.accept(line, self.host_cpus, faults);
        let life = Life {
            vm_id: line.fact.vm_id.clone(),
            boot_id: line.fact.boot_id.clone(),
            start_seq: line.seq,
            start_mono_ns: line.fact.mono_ns,
            last_heartbeat: String::new(),
            meter,
        };
        self.running.insert(who.to_owned(), life);
    }

    fn go_on(&mut self, line: &Line, faults: &mut Vec<String>) {
        let kind = line.fact.kind;
        let Some(who) = incarnation(line) else {
            faults.push(format!("{kind} without `incarnation`"));
            return;
        };
        let Some(life) = self.running.get_mut(who) else {
            if self.ordinals.has_ended(who) {
                faults.push(format!("{kind} of {who} after its stop"));
            } else if self.whole {
                faults.push(format!("{kind} of {who} without a start"));
            }
            return;
        };
        if life.vm_id != line.fact.vm_id {
            faults.push(format!("{who} is {:?} since its start and {:?} here", life.vm_id, line.fact.vm_id));
        }
        if life.boot_id != line.fact.boot_id {
            faults.push(format!("{who} began in boot {}, this line counts in {}", life.boot_id, line.fact.boot_id));
        } else if line.fact.mono_ns < life.start_mono_ns {
            faults
                .push(format!("{kind} of {who} lies before its start: {} < {}", line.fact.mono_ns, life.start_mono_ns));
        }
        if kind.is_heartbeat() && std::mem::replace(&mut life.last_heartbeat, line.id.clone()) == line.id {
            faults.push(format!("a second heartbeat of {who} for the same slot"));
        }
        life.meter.accept(line, self.host_cpus, faults);
        if kind == Kind::VmComputeStop {
            if self.by_vm.get(&life.vm_id).is_some_and(|open| open == who) {
                self.by_vm.remove(&life.vm_id);
            }
            self.running.remove(who);
        }
    }

    fn check_id(&mut self, line: &Line, faults: &mut Vec<String>) {
        let (fact, subject) = (&line.fact, line.fact.subject.text(&line.ledger));
        let gives = |ordinal| digest::fact_id(&fact.boot_id, subject, fact.kind, ordinal) == line.id;
        let right = match (&fact.subject, fact.kind) {
            (Subject::Ledger, _) => gives(line.seq),
            (_, kind) if kind.is_heartbeat() => {
                let second = fact.emitted_at / 1_000_000_000;
                let slot = find_slot(second, self.slot, gives);
                self.slot = slot.unwrap_or(self.slot);
                slot.is_some()
            }
            // Without the lines before, an ordinal cannot be known.
            (subject, kind) => !self.whole || gives(self.ordinals.count(subject, kind)),
        };
        if !right {
            faults.push("`id` is not what boot, subject, kind and ordinal give".to_owned());
        }
    }
}

/// A heartbeat's slot is not on the line: it is the start of the interval the reading fell in. Returns its length, to
/// be tried first the next time.
fn find_slot(second: u64, known: u64, gives: impl Fn(u64) -> bool) -> Option<u64> {
    let lengths = std::iter::once(known).chain(SLOTS);
    let by_length = lengths.clone().find(|length| gives(second - second % (*length).max(1)));
    let searched =
        || (second.saturating_sub(SLOT_REACH)..=second.saturating_add(1)).rev().find(|s| gives(*s)).map(|_| known);
    by_length.or_else(searched)
}

fn check_bounds(line: &Line, faults: &mut Vec<String>) {
    if let TimeQuality::Bounded { not_before, not_after } = line.fact.time_quality
        && !(not_before..=not_after).contains(&line.fact.emitted_at)
    {
        faults.push("`emitted_at` lies outside `not_before` and `not_after`".to_owned());
    }
}
