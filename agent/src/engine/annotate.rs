//! Taking what somebody states of a VM: at once where it has happened, else when it does.
//!
//! A statement about whose a living VM is makes a `vm.identity` line. One about a start or a stop is laid over the next
//! one; if the newest was told less than a minute ago and nobody has stated anything of it yet, it is about that one, and
//! a `correction` takes the line's place.

use std::collections::VecDeque;

use super::{Engine, keeper::Answer, keeping::Keeping};
use crate::{
    clock::{self, Instant2},
    ledger::{Draft, Kind, Subject},
    lifecycle::annotation::{self, Names, Pending, Request, Stated, Store, Target, Whom, correction},
    units::{Tgid, Tid},
    vm::{Owner, Teller, Vm},
};

/// How long after a line was made a statement is still about it.
pub(super) const AFTER_NS: u64 = 60_000_000_000;
/// Lines that can be corrected, at most.
const RECENT: usize = 1_024;

/// Why a statement is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such process.
    #[error("there is no process {0}, and none that was a VM until a minute ago")]
    NoProcess(u32),
    /// Too many wait already.
    #[error("too many annotations wait for their VMs; give them shorter times to live")]
    Full,
    /// It would not outlive the agent.
    #[error("the annotation cannot be kept ({0}), so it was not taken")]
    NotKept(String),
    /// It was taken, but the line it made is not durable.
    #[error("the annotation was taken, but the ledger cannot be written now; its line waits in memory")]
    NotWritten,
}

/// A statement on its way to the engine.
pub struct Annotate {
    /// What is stated.
    pub request: Request,
    /// By whom, as the ledger tells it.
    pub by: String,
    /// What became of it.
    pub answer: Answer,
}

/// A start or stop that was told lately.
struct Recent {
    names: Names,
    made_ns: u64,
    line: Box<Draft>,
}

/// What is kept for statements.
#[derive(Default)]
pub(super) struct Annotations {
    pub(super) store: Store,
    pub(super) keeping: Keeping,
    recent: VecDeque<Recent>,
}

impl Annotations {
    /// A start or stop was told at `now_ns`.
    pub(super) fn note(&mut self, line: &Draft, now_ns: u64) {
        let Subject::Incarnation(incarnation) = &line.subject else { return };
        if !matches!(line.kind, Kind::VmComputeStart | Kind::VmComputeStop) {
            return;
        }
        while self.recent.front().is_some_and(|r| self.recent.len() >= RECENT || now_ns > r.made_ns + AFTER_NS) {
            self.recent.pop_front();
        }
        let names = Names::of_line(&line.vm_id, &line.uuid, incarnation);
        self.recent.push_back(Recent { names, made_ns: now_ns, line: Box::new(line.clone()) });
    }

    /// The newest line of a kind about this VM, if it is young and nobody has stated anything of it.
    fn open_line(&mut self, kind: Kind, whom: &Whom, now_ns: u64) -> Option<&mut Recent> {
        let newest = self.recent.iter_mut().rev().find(|r| r.line.kind == kind && whom.is(&r.names))?;
        let open = now_ns <= newest.made_ns + AFTER_NS && newest.line.evidence.annotated_by.is_none();
        open.then_some(newest)
    }
}

impl Engine {
    /// What was stated of a VM's start, and of whose it is, before it began.
    pub(super) fn stated_start(&mut self, names: &Names, at_ns: u64) -> (Stated, Vec<(Owner, String)>) {
        self.why.annotations.store.take_start(names, at_ns)
    }

    /// What was stated of a VM's stop before it is told.
    pub(super) fn stated_stop(&mut self, tgid: u32, stop_ns: u64) -> Stated {
        let Some(names) = self.registry.of_tgid(tgid).map(|vm| self.names(vm)) else { return Stated::default() };
        self.why.annotations.store.take_stop(&names, stop_ns)
    }

    /// A VM as statements name it.
    pub(super) fn names(&self, vm: &Vm) -> Names {
        Names {
            vm_id: vm.fixed.vm_id.clone(),
            uuid: vm.owners.whole().uuid.clone().unwrap_or_else(|| vm.fixed.uuid.clone()),
            tgid: vm.fixed.tgid,
            start_ns: vm.fixed.start_ns,
        }
    }

    /// Takes one statement; what became of it is said once that is durable.
    pub(super) fn annotate(&mut self, annotate: Annotate, at: Instant2) {
        let Annotate { request, by, answer } = annotate;
        match self.whom(request.target.clone()).and_then(|whom| self.take_statement(request, whom, by, at)) {
            Ok((id, told)) => self.why.annotations.keeping.took(id, told, answer),
            Err(refused) => {
                // Who asked may be gone.
                let _ = answer.send(Err(refused));
            }
        }
    }

    fn whom(&self, target: Target) -> Result<Whom, Refused> {
        let pid = match target {
            Target::VmId(vm_id) => return Ok(Whom::VmId(vm_id)),
            Target::Uuid(uuid) => return Ok(Whom::Uuid(uuid)),
            Target::Pid(pid) => pid,
        };
        let is_process = self.procfs.tgid_of(Tid(pid)).is_ok_and(|tgid| tgid.get() == pid);
        let stat = self.procfs.stat(Tgid(pid)).ok().filter(|_| is_process);
        // After the look: what it saw had begun by then.
        let there_ns = clock::boot_ns().unwrap_or(0);
        let tick_ns = self.tick_ns();
        let told = self.why.annotations.recent.iter().rev().find(|recent| recent.names.tgid == pid);
        match stat.map(|stat| stat.start_ticks).or_else(|| told.map(|recent| recent.names.start_ns / tick_ns)) {
            Some(start_tick) => Ok(Whom::Process { tgid: pid, start_tick, tick_ns, there_ns }),
            None => Err(Refused::NoProcess(pid)),
        }
    }

    /// The number under which something of it waits, and whether it made lines.
    fn take_statement(
        &mut self,
        request: Request,
        whom: Whom,
        by: String,
        at: Instant2,
    ) -> Result<(Option<u64>, bool), Refused> {
        let Request { target: _, owner, mut start, mut stop, ttl } = request;
        (start.by, stop.by) = (by.clone(), by.clone());
        let living = self.registry.live().find(|vm| whom.is(&self.names(vm))).map(|vm| vm.fixed.tgid);
        let mut owner = Some((owner, by)).filter(|(owner, _)| !owner.is_empty());
        let (mut lines, mut told) = (Vec::new(), false);
        if let Some(tgid) = living {
            if let Some((owner, by)) = owner.take() {
                told |= self.set_owner(tgid, Teller::Annotation, owner, Some(&by), at);
            }
            if !start.is_empty()
                && let Some(recent) = self.why.annotations.open_line(Kind::VmComputeStart, &whom, at.boot_ns)
            {
                lines.push(recent.correct(std::mem::take(&mut start), None));
            }
        } else if (!stop.is_empty() || owner.is_some())
            && let Some(recent) = self.why.annotations.open_line(Kind::VmComputeStop, &whom, at.boot_ns)
        {
            let line = recent.correct(std::mem::take(&mut stop), owner.take());
            let stated = Owner { tenant: Some(line.tenant.clone()), labels: line.labels.clone(), ..Owner::default() };
            self.storage_belongs(&line.vm_id, &stated);
            lines.push(line);
        }
        for line in lines {
            told = true;
            self.tell(line, at.boot_ns);
        }
        let until_ns = at.boot_ns.saturating_add(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
        let pending = Pending { id: 0, after_seq: self.newest_seq(), whom, owner, start, stop, until_ns };
        match self.why.annotations.store.keep(pending, at.boot_ns) {
            annotation::Keeping::Over => Ok((None, told)),
            annotation::Keeping::Waits(id) => Ok((Some(id), told)),
            annotation::Keeping::Full => Err(Refused::Full),
        }
    }
}

impl Recent {
    /// The line that takes this one's place; from now on this one is as that says.
    fn correct(&mut self, stated: Stated, owner: Option<(Owner, String)>) -> Draft {
        let correction = correction(&self.line, stated, owner);
        *self.line = Draft { kind: self.line.kind, corrects: String::new(), ..correction.clone() };
        correction
    }
}
