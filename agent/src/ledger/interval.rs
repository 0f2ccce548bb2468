//! VM processes and stored things with a start line and no stop line. Fed with lines in order; bounded by what is open.

use std::collections::{BTreeMap, HashMap};

use super::boots::Boots;
use super::{Coverage, Kind, Line, Shape, StoredFile, Subject, Usage};

/// A VM process with a start line and no stop line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInterval {
    /// The string the start line fixed.
    pub incarnation: String,
    /// The id the start line fixed.
    pub vm_id: String,
    /// VMM family.
    pub hypervisor: String,
    /// Size on the newest line; each that tells one tells it whole.
    pub shape: Shape,
    /// The boot it runs (or ran) in.
    pub boot_id: String,
    /// Sequence number of the start line.
    pub start_seq: u64,
    /// `id` of the start line.
    pub start_id: String,
    /// The start's `emitted_at`, unix nanoseconds.
    pub started_at: u64,
    /// The start's CLOCK_BOOTTIME, nanoseconds.
    pub started_mono_ns: u64,
    /// Name on the start line.
    pub start_name: String,
    /// Newest name.
    pub name: String,
    /// Newest UUID.
    pub uuid: String,
    /// Newest tenant.
    pub tenant: String,
    /// Newest labels.
    pub labels: BTreeMap<String, String>,
    /// Whether a line that told name, tenant or labels was somebody's annotation.
    pub annotated: bool,
    /// Newest counters.
    pub usage: Option<Usage>,
    /// Newest coverage.
    pub coverage: Option<Coverage>,
    /// `emitted_at` of the newest line that proves life (start or heartbeat), unix nanoseconds.
    pub last_evidence_at: u64,
    /// Its CLOCK_BOOTTIME, nanoseconds.
    pub last_evidence_mono_ns: u64,
    /// Newest `recorded_at` of any line written in the same boot, unix nanoseconds: the agent was there, the VM may
    /// have been.
    pub last_seen_at: u64,
    /// Newest CLOCK_BOOTTIME of such a line, nanoseconds.
    pub last_seen_mono_ns: u64,
}

/// A stored thing with a start line and no stop line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenStorage {
    /// What it pairs by: `storage_id`, or the snapshot's id where it has none.
    pub subject: Subject,
    /// `vm.storage.start` or `snap.storage.start`.
    pub kind: Kind,
    /// Whose it is; empty for pool images.
    pub vm_id: String,
    /// Empty if it is no snapshot.
    pub snapshot_id: String,
    /// What it was made from; empty if unknown.
    pub source_snapshot_id: String,
    /// VMM family; may be empty.
    pub hypervisor: String,
    /// Newest name of that VM, as far as its lines and this one's tell it.
    pub name: String,
    /// Its newest UUID.
    pub uuid: String,
    /// Its newest tenant.
    pub tenant: String,
    /// Its newest labels.
    pub labels: BTreeMap<String, String>,
    /// Newest size.
    pub shape: Shape,
    /// The files it consisted of on its newest line.
    pub files: Vec<StoredFile>,
    /// The boot of its start line.
    pub boot_id: String,
    /// The start's `emitted_at`, unix nanoseconds.
    pub started_at: u64,
    /// The start's CLOCK_BOOTTIME, nanoseconds.
    pub started_mono_ns: u64,
    /// Sequence number of the start line.
    pub start_seq: u64,
    /// The newest instant of its boot at which an agent wrote a line, and so watched, unix nanoseconds.
    pub last_seen_at: u64,
    /// Its CLOCK_BOOTTIME, nanoseconds.
    pub last_seen_mono_ns: u64,
}

/// The fold over a ledger's lines.
#[derive(Debug, Default)]
pub(super) struct Intervals {
    compute: HashMap<String, OpenInterval>,
    storage: HashMap<Subject, OpenStorage>,
    pub(super) boots: Boots,
}

impl Intervals {
    /// Takes the next line.
    pub(super) fn note(&mut self, line: &Line) {
        self.boots.note(line);
        self.note_whose(line);
        match line.fact.kind {
            Kind::VmComputeStart => self.open_compute(line),
            Kind::VmComputeStop => self.with_incarnation(line, |_, _| false),
            Kind::VmComputeUsage => self.with_incarnation(line, |open, line| {
                open.last_evidence_at = line.fact.emitted_at;
                open.last_evidence_mono_ns = line.fact.mono_ns;
                open.shape = line.fact.shape;
                true
            }),
            Kind::VmComputeResize => self.with_incarnation(line, |open, line| {
                open.shape = line.fact.shape;
                true
            }),
            Kind::VmIdentity => self.with_incarnation(line, learn),
            Kind::VmStorageStart | Kind::SnapStorageStart => self.open_storage(line),
            Kind::VmStorageResize | Kind::SnapStorageResize => {
                if let Some(open) = self.storage.get_mut(&line.fact.subject) {
                    open.shape = line.fact.shape;
                    open.files.clone_from(&line.fact.files);
                    (open.last_seen_at, open.last_seen_mono_ns) = (line.fact.emitted_at, line.fact.mono_ns);
                }
            }
            Kind::VmStorageStop | Kind::SnapStorageStop => {
                self.storage.remove(&line.fact.subject);
            }
            _ => {}
        }
    }

    /// What is open, in the order it began.
    pub(super) fn finish(self) -> (Vec<OpenInterval>, Vec<OpenStorage>) {
        let mut compute: Vec<_> = self.compute.into_values().collect();
        for open in &mut compute {
            if let Some(seen) = self.boots.seen(&open.boot_id) {
                open.last_seen_at = open.last_seen_at.max(seen.unix_ns);
                open.last_seen_mono_ns = open.last_seen_mono_ns.max(seen.mono_ns);
            }
        }
        compute.sort_by_key(|open| open.start_seq);
        let mut storage: Vec<_> = self.storage.into_values().collect();
        for open in &mut storage {
            if let Some(seen) = self.boots.seen(&open.boot_id) {
                open.last_seen_at = open.last_seen_at.max(seen.unix_ns);
                open.last_seen_mono_ns = open.last_seen_mono_ns.max(seen.mono_ns);
            }
        }
        storage.sort_by_key(|open| open.start_seq);
        (compute, storage)
    }

    /// What lines about a VM say of whose it is holds for what is stored for it.
    fn note_whose(&mut self, line: &Line) {
        let fact = &line.fact;
        let says =
            matches!(fact.kind, Kind::VmComputeStart | Kind::VmComputeStop | Kind::VmIdentity | Kind::Correction);
        if !says || self.storage.is_empty() {
            return;
        }
        if let Some(open) = self.storage.get_mut(&Subject::Storage(fact.vm_id.clone()))
            && open.vm_id == fact.vm_id
        {
            keep(&mut open.name, &fact.name);
            keep(&mut open.uuid, &fact.uuid);
            keep(&mut open.tenant, &fact.tenant);
            if !fact.labels.is_empty() {
                open.labels.clone_from(&fact.labels);
            }
        }
    }

    /// Runs `change` on the line's open interval; `false` closes it. Every line's counters are taken.
    fn with_incarnation(&mut self, line: &Line, change: impl FnOnce(&mut OpenInterval, &Line) -> bool) {
        let Subject::Incarnation(incarnation) = &line.fact.subject else {
            return;
        };
        let Some(open) = self.compute.get_mut(incarnation) else {
            return;
        };
        if line.fact.usage.is_some() {
            open.usage.clone_from(&line.fact.usage);
        }
        open.coverage = line.fact.coverage.or(open.coverage);
        if !change(open, line) {
            self.compute.remove(incarnation);
        }
    }

    fn open_compute(&mut self, line: &Line) {
        let Subject::Incarnation(incarnation) = &line.fact.subject else {
            return;
        };
        let fact = line.fact.clone();
        let open = OpenInterval {
            incarnation: incarnation.clone(),
            vm_id: fact.vm_id,
            hypervisor: fact.hypervisor,
            shape: fact.shape,
            boot_id: fact.boot_id,
            start_seq: line.seq,
            start_id: line.id.clone(),
            started_at: fact.emitted_at,
            started_mono_ns: fact.mono_ns,
            start_name: fact.name.clone(),
            name: fact.name,
            uuid: fact.uuid,
            tenant: fact.tenant,
            labels: fact.labels,
            annotated: fact.evidence.annotated_by.is_some(),
            usage: fact.usage,
            coverage: fact.coverage,
            last_evidence_at: fact.emitted_at,
            last_evidence_mono_ns: fact.mono_ns,
            last_seen_at: fact.emitted_at,
            last_seen_mono_ns: fact.mono_ns,
        };
        self.compute.insert(incarnation.clone(), open);
    }

    fn open_storage(&mut self, line: &Line) {
        let fact = line.fact.clone();
        let open = OpenStorage {
            subject: fact.subject.clone(),
            kind: fact.kind,
            vm_id: fact.vm_id,
            snapshot_id: fact.snapshot_id,
            source_snapshot_id: fact.source_snapshot_id,
            hypervisor: fact.hypervisor,
            name: fact.name,
            uuid: fact.uuid,
            tenant: fact.tenant,
            labels: fact.labels,
            shape: fact.shape,
            files: fact.files,
            boot_id: fact.boot_id,
            started_at: fact.emitted_at,
            started_mono_ns: fact.mono_ns,
            start_seq: line.seq,
            last_seen_at: fact.emitted_at,
            last_seen_mono_ns: fact.mono_ns,
        };
        self.storage.insert(fact.subject, open);
    }
}

/// What is left out stands.
fn keep(old: &mut String, new: &String) {
    if !new.is_empty() {
        old.clone_from(new);
    }
}

/// A `vm.identity` line says what was learned; what it leaves out stands.
fn learn(open: &mut OpenInterval, line: &Line) -> bool {
    keep(&mut open.name, &line.fact.name);
    keep(&mut open.uuid, &line.fact.uuid);
    keep(&mut open.tenant, &line.fact.tenant);
    if !line.fact.labels.is_empty() {
        open.labels.clone_from(&line.fact.labels);
    }
    open.annotated |= line.fact.evidence.annotated_by.is_some();
    true
}
