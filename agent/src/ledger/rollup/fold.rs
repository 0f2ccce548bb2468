//! The fold over one host's lines: which life or stored thing a line is about, and what it adds to whom.
//! Memory: what is open, eight bytes for each life that ended, and the settings of the clock.

use std::collections::{HashMap, HashSet};

use super::super::digest::short;
use super::super::input::Notes;
use super::super::{Kind, Line, Subject};
use super::amount::Amounts;
use super::life::{Life, Start, Stored, point};
use super::stretch::{Part, Period, Wall};
use super::{Sink, Whose};

/// One host's lines so far.
#[derive(Debug)]
pub(in crate::ledger) struct Fold {
    period: Period,
    lives: HashMap<String, Life>,
    stored: HashMap<Subject, Stored>,
    ended: HashSet<u64>,
    walls: HashMap<String, Wall>,
    owners: u32,
}

impl Fold {
    /// Nothing seen yet.
    pub(in crate::ledger) fn new(period: Period) -> Self {
        let (lives, stored, ended, walls) = Default::default();
        Self { period, lives, stored, ended, walls, owners: 0 }
    }

    /// Takes the next line.
    pub(in crate::ledger) fn accept(&mut self, line: &Line, to: &mut impl Sink, notes: &mut Notes) {
        if line.fact.kind == Kind::Correction {
            return;
        }
        self.walls.entry(line.fact.boot_id.clone()).or_default().note(point(line));
        match line.fact.kind {
            kind if kind.is_compute() => self.compute(line, to, notes),
            kind if kind.is_storage() => self.storage(line, to, notes),
            _ => {}
        }
    }

    /// Nothing more comes: stored things that are open are counted up to the last line of their boot.
    pub(in crate::ledger) fn finish(mut self, to: &mut impl Sink, notes: &mut Notes) {
        notes.open_vms += self.lives.len() as u64;
        notes.open_storage += self.stored.len() as u64;
        for life in self.lives.into_values() {
            to.close(life.owner, life.whose);
        }
        let nothing = Wall::default();
        for stored in self.stored.values_mut() {
            let wall = self.walls.get(&stored.boot_id).unwrap_or(&nothing);
            let until = if wall.newest().mono_ns > stored.at().mono_ns { wall.newest() } else { stored.at() };
            let held = stored.up_to(until, wall, self.period);
            give(to, None, stored.owner, &stored.whose, &held);
        }
        for stored in self.stored.into_values() {
            to.close(stored.owner, stored.whose);
        }
    }

    fn owner(&mut self) -> u32 {
        self.owners = self.owners.wrapping_add(1);
        self.owners
    }

    fn compute(&mut self, line: &Line, to: &mut impl Sink, notes: &mut Notes) {
        let (kind, Subject::Incarnation(who)) = (line.fact.kind, &line.fact.subject) else {
            notes.fault(|| format!("line {} is about a VM but names no incarnation", line.id));
            return;
        };
        if self.ended.contains(&short(who)) {
            // The same life in another ledger of this host ends once; anything new after its end is wrong.
            match kind {
                Kind::VmComputeStart | Kind::VmComputeStop => notes.repeated += 1,
                _ => notes.fault(|| format!("line {} of {who} comes after its stop", line.id)),
            }
            return;
        }
        let Some(life) = self.lives.get_mut(who) else {
            self.begin(line, who, to, notes);
            return;
        };
        match kind {
            Kind::VmComputeStart => {
                notes.repeated += 1;
                if life.start.as_ref().is_none_or(|start| *start != Start::of(line)) {
                    notes.fault(|| format!("a second start of {who}, line {}, says something else", line.id));
                }
            }
            Kind::VmIdentity => learn(life, line),
            _ if life.repeats(line).is_some_and(|same| told_twice(line, same, notes)) => {}
            _ => self.go_on(line, who, to, notes),
        }
    }

    fn begin(&mut self, line: &Line, who: &str, to: &mut impl Sink, notes: &mut Notes) {
        notes.begun_before += u64::from(line.fact.kind != Kind::VmComputeStart);
        let life = Life::new(line, self.owner(), notes);
        if line.fact.kind == Kind::VmComputeStop {
            self.ended.insert(short(who));
            to.close(life.owner, life.whose);
            return;
        }
        self.tell_storage(&life.whose);
        self.lives.insert(who.to_owned(), life);
    }

    fn go_on(&mut self, line: &Line, who: &str, to: &mut impl Sink, notes: &mut Notes) {
        let next_owner = self.owners.wrapping_add(1);
        let (Some(life), Some(wall)) = (self.lives.get_mut(who), self.walls.get(&line.fact.boot_id)) else { return };
        if line.fact.kind == Kind::VmComputeStop && life.whose.tenant.is_empty() {
            life.whose.tenant.clone_from(&line.fact.tenant);
        }
        let added = life.accept(line, wall, self.period, notes);
        give(to, Some(line), life.owner, &life.whose, &added);
        if let Some(tenant) = life.next_tenant.take() {
            let before = life.whose.clone();
            life.whose.tenant = tenant;
            to.close(std::mem::replace(&mut life.owner, next_owner), before);
            self.owners = next_owner;
        }
        let whose = life.whose.clone();
        if line.fact.kind == Kind::VmComputeStop
            && let Some(life) = self.lives.remove(who)
        {
            self.ended.insert(short(who));
            to.close(life.owner, life.whose);
        }
        self.tell_storage(&whose);
    }

    /// A VM's storage is its tenant's unless it says otherwise.
    fn tell_storage(&mut self, whose: &Whose) {
        if whose.tenant.is_empty() {
            return;
        }
        if let Some(stored) = self.stored.get_mut(&Subject::Storage(whose.vm_id.clone()))
            && stored.whose.tenant.is_empty()
            && stored.whose.vm_id == whose.vm_id
        {
            stored.whose.tenant.clone_from(&whose.tenant);
        }
    }

    fn storage(&mut self, line: &Line, to: &mut impl Sink, notes: &mut Notes) {
        let (kind, subject) = (line.fact.kind, &line.fact.subject);
        if *subject == Subject::Ledger {
            notes.fault(|| format!("line {} is about storage but does not say which", line.id));
            return;
        }
        let starts = matches!(kind, Kind::VmStorageStart | Kind::SnapStorageStart);
        let stops = matches!(kind, Kind::VmStorageStop | Kind::SnapStorageStop);
        if !self.stored.contains_key(subject) {
            notes.begun_before += u64::from(!starts);
            if !stops {
                let stored = Stored::new(line, self.owner(), self.tenant_of(line));
                self.stored.insert(subject.clone(), stored);
            }
            return;
        }
        let (Some(stored), Some(wall)) = (self.stored.get_mut(subject), self.walls.get(&line.fact.boot_id)) else {
            return;
        };
        if stored.boot_id != line.fact.boot_id || point(line).mono_ns < stored.at().mono_ns {
            let what = subject.text("");
            notes.fault(|| format!("line {} of {what} lies in another boot, or before what was counted", line.id));
        } else if starts {
            notes.repeated += 1;
            if point(line) != stored.at() {
                let what = subject.text("");
                notes.fault(|| format!("a second start of {what}, line {}, says something else", line.id));
            }
        } else {
            let held = stored.up_to(point(line), wall, self.period);
            give(to, Some(line), stored.owner, &stored.whose, &held);
            stored.resize(line.fact.shape.storage_bytes);
            if stops && stored.whose.tenant.is_empty() {
                stored.whose.tenant.clone_from(&line.fact.tenant);
            }
        }
        if stops && let Some(stored) = self.stored.remove(subject) {
            to.close(stored.owner, stored.whose);
        }
    }

    fn tenant_of(&self, line: &Line) -> String {
        let known = |life: &&Life| life.whose.vm_id == line.fact.vm_id && !life.whose.tenant.is_empty();
        match line.fact.tenant.is_empty() && !line.fact.vm_id.is_empty() {
            true => self.lives.values().filter(known).map(|life| &life.whose.tenant).min().cloned().unwrap_or_default(),
            false => line.fact.tenant.clone(),
        }
    }
}

/// A tenant that becomes known has the whole life so far; one that takes over has it from the next line on.
fn learn(life: &mut Life, line: &Line) {
    let tenant = &line.fact.tenant;
    if tenant.is_empty() || *tenant == life.whose.tenant {
        return;
    }
    if life.whose.tenant.is_empty() {
        life.whose.tenant.clone_from(tenant);
    } else {
        life.next_tenant = Some(tenant.clone());
    }
}

/// A heartbeat whose `id` was there before counts once, and is a fault where it says something else.
fn told_twice(line: &Line, same: bool, notes: &mut Notes) -> bool {
    notes.repeated += 1;
    if !same {
        notes.fault(|| format!("heartbeat {} says two different things; the first is counted", line.id));
    }
    true
}

fn give(to: &mut impl Sink, line: Option<&Line>, owner: u32, whose: &Whose, added: &[(Part, Amounts)]) {
    for (part, amounts) in added {
        to.add(line, owner, whose, part, amounts);
    }
}
