//! Who a VM is, beyond its command line: files are read by a thread of their own, because a file system that hangs must
//! not stop the counting. What is known in time stands on the start line; the rest is told when it is learned.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use super::{Engine, disk::is_alive, life::Found};
use crate::{
    clock::Instant2,
    host::{
        ProcFs,
        source::{Learned, Sources, Stamps},
    },
    units::Tgid,
    vm::{
        Owner, Teller,
        identity::{Clues, Identity, scope},
    },
};

/// VMs whose files wait to be looked at.
const QUEUE: usize = 8_192;
/// How long a start line waits for files: they lie in memory, and take well under a millisecond once the thread has a CPU.
const PATIENCE: Duration = Duration::from_millis(100);
/// Between two looks at whether a VM's files have changed.
const FOLLOW_NS: u64 = 5_000_000_000;

/// Whose files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Of {
    tgid: u32,
    start_tick: u64,
}

struct Asked {
    of: Of,
    clues: Arc<Clues>,
    /// The states they were read in before.
    known: Option<Stamps>,
}

/// What they say; nothing if they have not changed.
struct Answer {
    of: Of,
    learned: Option<Learned>,
    /// It was this process, alive, also after they were read.
    certain: bool,
}

/// The thread that reads them.
pub(super) struct Identifier {
    ask: SyncSender<Asked>,
    answers: Receiver<Answer>,
    /// Answers that are still to come.
    open: usize,
}

impl Identifier {
    /// Starts it; `None` where no thread can be had.
    pub(super) fn start(root: PathBuf) -> Option<Self> {
        let (ask, asked) = sync_channel::<Asked>(QUEUE);
        let (answer, answers) = std::sync::mpsc::channel();
        let work = move || {
            let procfs = ProcFs::new(&root);
            while let Ok(Asked { of, clues, known }) = asked.recv() {
                let sources = Sources::new(&root, &procfs, Tgid(of.tgid), &clues);
                let same = known.is_some_and(|known| known == sources.stamps());
                let learned = if same { None } else { Some(sources.read()) };
                let certain = is_alive(&procfs, of.tgid, of.start_tick);
                if answer.send(Answer { of, learned, certain }).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("identity".to_owned()).spawn(work);
        thread.inspect_err(|error| tracing::warn!(%error, "no thread to read identity files")).ok()?;
        Some(Self { ask, answers, open: 0 })
    }

    fn ask(&mut self, asked: Asked) -> bool {
        let sent = self.ask.try_send(asked).is_ok();
        self.open += usize::from(sent);
        sent
    }

    /// The next answer, waited for until `end`.
    fn answer(&mut self, end: Instant) -> Result<Answer, RecvTimeoutError> {
        let answer = self.answers.recv_timeout(end.saturating_duration_since(Instant::now()))?;
        self.open = self.open.saturating_sub(1);
        Ok(answer)
    }
}

impl Engine {
    /// Completes what was found of a VM before its start line, and returns its control group. Files are waited for only where none is waited for
    /// already: then one of them hangs.
    pub(super) fn complete(&mut self, found: &mut Found, at: Instant2) -> String {
        self.metrics.inc_cache_miss();
        found.sources.held = found.vcpus;
        let cgroup = if found.gone { String::new() } else { self.procfs.cgroup(Tgid(found.tgid)) };
        let mut owner = place(&mut found.identity, &cgroup);
        let clues = Arc::new(std::mem::take(&mut found.identity.clues));
        found.sources.clues = Arc::clone(&clues);
        let of = Of { tgid: found.tgid, start_tick: found.start_ns / self.tick_ns() };
        let idle = self.identifier.as_ref().is_some_and(|identifier| identifier.open == 0);
        if !clues.is_empty()
            && let Some(identifier) = &mut self.identifier
        {
            found.sources.asked = identifier.ask(Asked { of, clues, known: None });
        }
        let end = Instant::now() + PATIENCE;
        while found.sources.asked && idle {
            let Some(answer) = self.identifier.as_mut().and_then(|thread| thread.answer(end).ok()) else { break };
            if answer.of != of {
                self.take_answer(answer, at);
                continue;
            }
            found.sources.asked = false;
            if let Some(learned) = answer.learned.filter(|_| answer.certain) {
                self.count_identity_errors(found.tgid, &learned);
                owner = lay(&mut found.identity, &mut found.sources.live, owner, &learned);
                found.sources.stamps = Some(learned.stamps);
            }
        }
        found.owners.tell(Teller::Source, owner);
        cgroup
    }

    fn count_identity_errors(&mut self, tgid: u32, learned: &Learned) {
        for error in &learned.errors {
            tracing::warn!(tgid, error = %crate::cause::chain(error), "a file that should say who a VM is does not");
        }
        self.count_error("identity", learned.errors.len() as u64);
    }

    /// Once a sample: takes answers in, and has files looked at again when it is time.
    pub(super) fn follow_identities(&mut self, at: Instant2) {
        while let Some(answer) = self.identifier.as_mut().and_then(|thread| thread.answer(Instant::now()).ok()) {
            self.take_answer(answer, at);
        }
        if at.boot_ns >= self.next_identity_ns {
            self.next_identity_ns = at.boot_ns.saturating_add(FOLLOW_NS);
            let tgids: Vec<u32> = self.registry.live().map(|vm| vm.fixed.tgid).collect();
            for tgid in tgids {
                self.ask_identity(tgid);
            }
        }
    }

    /// Has a VM's files looked at.
    pub(super) fn ask_identity(&mut self, tgid: u32) {
        let tick_ns = self.tick_ns();
        let (Some(identifier), Some(vm)) = (&mut self.identifier, self.registry.of_tgid_mut(tgid)) else { return };
        let source = &vm.sources;
        if source.clues.is_empty() || source.asked || vm.exiting {
            return;
        }
        let of = Of { tgid, start_tick: vm.start_tick(tick_ns) };
        let asked = Asked { of, clues: Arc::clone(&source.clues), known: source.stamps.clone() };
        vm.sources.asked = identifier.ask(asked);
    }

    /// Takes in what was read. A process that is another by now, or none, is told nothing of.
    fn take_answer(&mut self, Answer { of, learned, certain }: Answer, at: Instant2) {
        let tick_ns = self.tick_ns();
        let vm = self.registry.of_tgid_mut(of.tgid);
        let Some(vm) = vm.filter(|vm| vm.start_tick(tick_ns) == of.start_tick && !vm.exiting) else { return };
        vm.sources.asked = false;
        let Some(learned) = learned else {
            self.metrics.inc_cache_hit();
            return;
        };
        self.metrics.inc_cache_miss();
        if !certain {
            return;
        }
        // A vCPU that was plugged in and has not run yet is known to nobody else.
        let held = self.procfs.kvm_fds(Tgid(of.tgid)).map_or(0, |fds| fds.vcpus);
        self.take_held(of.tgid, held);
        let Some(vm) = self.registry.of_tgid_mut(of.tgid) else { return };
        let nameless = vm.fixed.name.is_empty();
        let mut known = Identity {
            name: Some(vm.fixed.name.clone()).filter(|name| !name.is_empty()),
            uuid: Some(vm.fixed.uuid.clone()).filter(|uuid| !uuid.is_empty()),
            mem_bytes: Some(vm.fixed.mem_bytes).filter(|bytes| *bytes > 0),
            ..Identity::default()
        };
        let uuidless = known.uuid.is_none();
        let before = vm.owners.told(Teller::Source).cloned().unwrap_or_default();
        let mut owner = lay(&mut known, &mut vm.sources.live, before, &learned);
        vm.sources.live.1 = vm.sources.live.1.or(known.mem_bytes);
        owner.name = known.name.or(known.vmm_id).filter(|_| nameless);
        owner.uuid = known.uuid.filter(|_| uuidless);
        self.count_identity_errors(of.tgid, &learned);
        if let Some(vm) = self.registry.of_tgid_mut(of.tgid) {
            vm.sources.stamps = Some(learned.stamps);
        }
        self.set_owner(of.tgid, Teller::Source, owner, None, at);
        self.reshape(of.tgid, at);
    }
}

/// What the control group and the command line say of whose a VM is; completes its name.
fn place(identity: &mut Identity, cgroup: &str) -> Owner {
    let scope = scope::read(cgroup);
    if identity.name.is_none() {
        identity.name = scope.name;
    }
    let namespace = identity.name.as_deref().filter(|_| scope.pod_uid.is_some()).and_then(scope::kubevirt_namespace);
    let unknown = identity.hypervisor == crate::vm::identity::Hypervisor::Unknown;
    let labels = [
        ("kata.sandbox", identity.sandbox.as_deref()),
        ("kubernetes.namespace", namespace),
        ("kubernetes.pod_uid", scope.pod_uid.as_deref()),
        // Whoever adds up by VMM must be able to tell those that are not known apart.
        ("vmm", Some(identity.vmm.as_str()).filter(|_| unknown)),
    ];
    Owner::heard(None, labels.into_iter().filter_map(|(key, value)| Some((key, value?))))
}

/// Lays what files say over what is known: a manager's word on the shape outweighs the command line's, all else fills in.
fn lay(known: &mut Identity, live: &mut (Option<u32>, Option<u64>), own: Owner, learned: &Learned) -> Owner {
    let facts = &learned.facts;
    known.name = known.name.take().or_else(|| facts.name.clone());
    known.uuid = known.uuid.take().or_else(|| facts.uuid.clone());
    known.vmm_id = known.vmm_id.take().or_else(|| learned.jail.clone());
    known.vcpus = known.vcpus.or(facts.vcpus);
    known.mem_bytes = known.mem_bytes.or(facts.mem_bytes);
    if learned.is_live {
        *live = (facts.vcpus, facts.mem_bytes);
    }
    let mut owner = facts.owner.clone();
    owner.fill(own);
    owner
}
