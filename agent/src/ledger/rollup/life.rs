//! One life of a VM, from its start line to its stop line, as amounts in buckets of time.
//! Time counts from line to line that proves life; what a counter grew by is spread evenly over the time since the
//! line that last told it. So the buckets of a life sum to its length and to its last counters, exactly.

use super::super::input::Notes;
use super::super::{Kind, Line, Shape, Subject};
use super::Whose;
use super::amount::{Amounts, Quantity};
use super::counter::Counters;
use super::stretch::{Part, Period, Point, Wall, share};

/// A life under way.
#[derive(Debug)]
pub(super) struct Life {
    /// Its row: a new one when the tenant changes.
    pub(super) owner: u32,
    pub(super) whose: Whose,
    /// The tenant from the next line that proves life on.
    pub(super) next_tenant: Option<String>,
    pub(super) start: Option<Start>,
    boot_id: String,
    shape: Shape,
    at: Point,
    counters: Counters,
    last_heartbeat: Option<(String, Point)>,
}

/// What a second start line of the same life has to say as well.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start {
    vm_id: String,
    at: Point,
    shape: Shape,
}

impl Start {
    pub(super) fn of(line: &Line) -> Self {
        Self { vm_id: line.fact.vm_id.clone(), at: point(line), shape: line.fact.shape }
    }
}

/// When a line's fact happened.
pub(super) fn point(line: &Line) -> Point {
    Point { unix_ns: line.fact.emitted_at, mono_ns: line.fact.mono_ns }
}

impl Life {
    /// Begins with the first line there is; unless that is a start, nothing before it is counted.
    pub(super) fn new(line: &Line, owner: u32, notes: &mut Notes) -> Self {
        let (fact, at) = (&line.fact, point(line));
        let begun = fact.kind == Kind::VmComputeStart;
        let mut counters = Counters::new(begun.then_some(at));
        if !begun {
            counters.grow(line, at, notes);
            counters.grow_net(line, at, notes);
        }
        let whose = Whose { vm_id: fact.vm_id.clone(), storage_id: String::new(), tenant: fact.tenant.clone() };
        let start = begun.then(|| Start::of(line));
        let (boot_id, shape) = (fact.boot_id.clone(), fact.shape);
        let last_heartbeat = fact.kind.is_heartbeat().then(|| (line.id.clone(), at));
        Self { owner, whose, next_tenant: None, start, boot_id, shape, at, counters, last_heartbeat }
    }

    /// Whether a heartbeat was there before, and then whether it said the same.
    pub(super) fn repeats(&mut self, line: &Line) -> Option<bool> {
        if !line.fact.kind.is_heartbeat() {
            return None;
        }
        let this = (line.id.clone(), point(line));
        let same = self.last_heartbeat.as_ref().filter(|known| known.0 == this.0).map(|known| *known == this);
        self.last_heartbeat = Some(this);
        same
    }

    /// What the line adds, bucket by bucket.
    pub(super) fn accept(
        &mut self,
        line: &Line,
        wall: &Wall,
        period: Period,
        notes: &mut Notes,
    ) -> Vec<(Part, Amounts)> {
        if line.fact.boot_id != self.boot_id {
            let subject = line.fact.subject.text("");
            notes.fault(|| format!("line {} of {subject} counts in another boot than its start", line.id));
            return Vec::new();
        }
        let mut to = point(line);
        if to.mono_ns < self.at.mono_ns {
            notes.fault(|| format!("line {} lies before the one that was counted last", line.id));
            to = self.at;
        }
        let parts = wall.parts(self.at, to.mono_ns, period);
        let mut amounts = vec![Amounts::default(); parts.len()];
        self.allocate(&parts, &mut amounts);
        let mut elsewhere = self.count(line, to, wall, period, &parts, &mut amounts, notes);
        self.at = to;
        self.resize(line.fact.shape);
        let mut all: Vec<_> = parts.into_iter().zip(amounts).collect();
        all.append(&mut elsewhere);
        all
    }

    /// A part of the size that a line leaves out is unknown to it, and stands.
    fn resize(&mut self, shape: Shape) {
        let newest = |new: u64, old: u64| if new == 0 { old } else { new };
        self.shape.cpu = if shape.cpu == 0 { self.shape.cpu } else { shape.cpu };
        self.shape.mem_bytes = newest(shape.mem_bytes, self.shape.mem_bytes);
    }

    fn allocate(&self, parts: &[Part], amounts: &mut [Amounts]) {
        for (part, amounts) in parts.iter().zip(amounts) {
            let len = u128::from(part.len_ns());
            amounts.add(Quantity::Running, len);
            if self.shape.cpu > 0 {
                amounts.add(Quantity::VcpuAllocated, len * u128::from(self.shape.cpu));
            }
            if self.shape.mem_bytes > 0 {
                amounts.add(Quantity::MemAllocated, len * u128::from(self.shape.mem_bytes));
            }
        }
    }

    /// Shares out what counters grew by; those that were last told by an earlier line have parts of their own.
    #[expect(clippy::too_many_arguments, reason = "the line, its stretch and what it adds to belong together")]
    fn count(
        &mut self,
        line: &Line,
        to: Point,
        wall: &Wall,
        period: Period,
        parts: &[Part],
        amounts: &mut [Amounts],
        notes: &mut Notes,
    ) -> Vec<(Part, Amounts)> {
        let (from, mut elsewhere) = (self.at, Vec::new());
        let mut spread = |since: Point, whole: u128, add: &dyn Fn(&mut Amounts, u128)| {
            if since == from {
                share(whole, parts).into_iter().zip(&mut *amounts).for_each(|(share, amounts)| add(amounts, share));
                return;
            }
            let own = wall.parts(since, to.mono_ns, period);
            for (share, part) in share(whole, &own).into_iter().zip(own) {
                let mut amounts = Amounts::default();
                add(&mut amounts, share);
                elsewhere.push((part, amounts));
            }
        };
        for (what, growth) in self.counters.grow(line, to, notes) {
            spread(growth.since, growth.by, &|amounts, share| amounts.add(what, share));
        }
        if let Some(growth) = self.counters.grow_net(line, to, notes) {
            for (class, by) in growth.by {
                for (at, whole) in by.into_iter().enumerate() {
                    spread(growth.since, whole, &|amounts, share| {
                        let mut one = [0; 4];
                        one[at] = share;
                        amounts.add_net(&class, one);
                    });
                }
            }
        }
        elsewhere
    }
}

/// A stored thing under way.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) owner: u32,
    pub(super) whose: Whose,
    pub(super) boot_id: String,
    bytes: u64,
    at: Point,
}

impl Stored {
    /// Begins with the first line there is.
    pub(super) fn new(line: &Line, owner: u32, tenant: String) -> Self {
        let fact = &line.fact;
        let of_vm = matches!(fact.kind, Kind::VmStorageStart | Kind::VmStorageResize | Kind::VmStorageStop);
        let storage_id = match &fact.subject {
            Subject::Storage(id) | Subject::Snapshot(id) if !of_vm => id.clone(),
            _ => String::new(),
        };
        let whose = Whose { vm_id: fact.vm_id.clone(), storage_id, tenant };
        Self { owner, whose, boot_id: fact.boot_id.clone(), bytes: fact.shape.storage_bytes, at: point(line) }
    }

    /// What it held up to an instant of its boot.
    pub(super) fn up_to(&mut self, to: Point, wall: &Wall, period: Period) -> Vec<(Part, Amounts)> {
        let parts = wall.parts(self.at, to.mono_ns, period);
        let bytes = u128::from(self.bytes);
        let mut held = Vec::new();
        for part in parts.into_iter().filter(|_| bytes > 0) {
            let mut amounts = Amounts::default();
            amounts.add(Quantity::Storage, bytes * u128::from(part.len_ns()));
            held.push((part, amounts));
        }
        self.at = to;
        held
    }

    /// The size from here on.
    pub(super) const fn resize(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// When it was counted last.
    pub(super) const fn at(&self) -> Point {
        self.at
    }
}
