//! A fact before the journal placed it ([`Draft`]) and the way onto a line ([`encode`]).
//! Pure: no clock, no file. Guarantees one JSON object a line, at most 16 KiB, whose `sum` and `id` can be recomputed.

use std::collections::BTreeMap;

use super::digest;
use super::error::LineError;
use super::fit;
use super::scan::LINE_MAX_BYTES;
use super::wire::{Dec, Quality, When, Wire};
use super::{Coverage, Evidence, Kind, Mark, Reason, Shape, StoredFile, Subject, TimeQuality, Usage};

/// The version of the line format.
pub(super) const VERSION: u32 = 1;

/// Everything about a fact except what the journal assigns (`v ledger seq id host recorded_at prev sum`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What happened.
    pub kind: Kind,
    /// Whom it happened to.
    pub subject: Subject,
    /// Fixed by the start line; empty where the fact is about no VM.
    pub vm_id: String,
    /// Snapshot the fact is about; empty if none.
    pub snapshot_id: String,
    /// Snapshot a VM or snapshot was made from; empty if none.
    pub source_snapshot_id: String,
    /// Why, where there is evidence.
    pub reason: Option<Reason>,
    /// VMM family; empty becomes `unknown` on VM lines and stays off others.
    pub hypervisor: String,
    /// Size at this moment.
    pub shape: Shape,
    /// When it happened, unix nanoseconds.
    pub emitted_at: u64,
    /// The boot `mono_ns` counts in.
    pub boot_id: String,
    /// CLOCK_BOOTTIME of the fact, nanoseconds.
    pub mono_ns: u64,
    /// How sure the two instants are.
    pub time_quality: TimeQuality,
    /// `exit`, `signal`, `oom` …; empty if nothing is said.
    pub cause: String,
    /// Why we say so.
    pub evidence: Evidence,
    /// Human name of the VM.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Whom it belongs to.
    pub tenant: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Counters, cumulative.
    pub usage: Option<Usage>,
    /// How much of the age was watched.
    pub coverage: Option<Coverage>,
    /// What a stored thing consists of.
    pub files: Vec<StoredFile>,
    /// On a correction: the `id` it replaces; else empty.
    pub corrects: String,
    /// On `agent.up`: the last line kept.
    pub resumed_after: Option<Mark>,
    /// On `agent.up`: whether the one before left in order.
    pub clean: Option<bool>,
    /// On `ledger.recovered`: bytes of torn tail that were cut.
    pub cut_bytes: Option<u64>,
    /// On `clock.step`: what the wall clock would have shown at `mono_ns` had nobody set it, unix nanoseconds.
    pub stepped_from: Option<u64>,
    /// On `host.suspend`: for how long, nanoseconds; on `agent.up`: since the host booted, as far as lines have told it.
    pub suspended_ns: Option<u64>,
    /// On a heartbeat: the slot's Unix second, its ordinal; `emitted_at`'s second if unset. Not on the line.
    pub slot: Option<u64>,
}

impl Draft {
    /// A fact with nothing but who, what and when; `emitted_at` in unix, `mono_ns` in boot nanoseconds.
    #[must_use]
    pub fn new(kind: Kind, subject: Subject, boot_id: &str, emitted_at: u64, mono_ns: u64) -> Self {
        Self {
            kind,
            subject,
            vm_id: String::new(),
            snapshot_id: String::new(),
            source_snapshot_id: String::new(),
            reason: None,
            hypervisor: String::new(),
            shape: Shape::default(),
            emitted_at,
            boot_id: boot_id.to_owned(),
            mono_ns,
            time_quality: TimeQuality::Exact,
            cause: String::new(),
            evidence: Evidence::default(),
            name: String::new(),
            uuid: String::new(),
            tenant: String::new(),
            labels: BTreeMap::new(),
            usage: None,
            coverage: None,
            files: Vec::new(),
            corrects: String::new(),
            resumed_after: None,
            clean: None,
            cut_bytes: None,
            stepped_from: None,
            suspended_ns: None,
            slot: None,
        }
    }

    /// The `id` its line has if it is the first of its subject and kind, as a start and a stop of a VM are. Not for facts
    /// of the ledger itself.
    #[must_use]
    pub fn sole_id(&self) -> String {
        let (settled, _) = fit::settle(self);
        digest::fact_id(&settled.boot_id, settled.subject.text(""), settled.kind, 0)
    }

    /// The heartbeat's ordinal: its slot's Unix second.
    #[must_use]
    pub fn slot_second(&self) -> u64 {
        self.slot.unwrap_or(self.emitted_at / 1_000_000_000)
    }
}

/// Where the journal puts a fact.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The ledger's id, 16 hex.
    pub ledger: &'a str,
    /// machine-id.
    pub host: &'a str,
    /// 1, 2, 3 …
    pub seq: u64,
    /// Earlier lines of the subject and kind (see the contract for heartbeats and the ledger itself).
    pub ordinal: u64,
    /// SHA-256 of the line before, 64 hex.
    pub prev: &'a str,
    /// When it is written, unix nanoseconds.
    pub recorded_at: u64,
}

/// A line ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The line with its newline.
    pub bytes: Vec<u8>,
    /// Its `id`.
    pub id: String,
    /// `prev` of the line after it.
    pub chain: String,
    /// Keys that were dropped or shortened to keep within 16 KiB; also on the line as `trimmed`.
    pub trimmed: Vec<String>,
}

/// Puts a fact on a line; one that would be longer than 16 KiB loses labels, then its name's end, then more.
///
/// # Errors
/// [`LineError::TooLong`] and [`LineError::Json`] stand for what the bounds above rule out.
pub fn encode(draft: &Draft, place: &Place<'_>) -> Result<Encoded, LineError> {
    let (mut draft, mut trimmed) = fit::settle(draft);
    let id = digest::fact_id(&draft.boot_id, draft.subject.text(place.ledger), draft.kind, place.ordinal);
    for step in fit::STEPS {
        step.apply(&mut draft, &mut trimmed);
        let wire = wire(&draft, place, &id, &trimmed);
        let mut bytes = serde_json::to_vec(&wire).map_err(LineError::Json)?;
        bytes.pop();
        let sum = digest::sum(&bytes);
        bytes.extend_from_slice(format!(",\"sum\":\"{sum}\"}}").as_bytes());
        if bytes.len() < LINE_MAX_BYTES {
            let chain = digest::chain(&bytes);
            bytes.push(b'\n');
            return Ok(Encoded { bytes, id, chain, trimmed });
        }
    }
    Err(LineError::TooLong)
}

fn wire(d: &Draft, place: &Place<'_>, id: &str, trimmed: &[String]) -> Wire {
    let (incarnation, storage_id) = match &d.subject {
        Subject::Incarnation(text) => (text.clone(), String::new()),
        Subject::Storage(text) => (String::new(), text.clone()),
        Subject::Snapshot(_) | Subject::Ledger => Default::default(),
    };
    let (time_quality, not_before, not_after) = match d.time_quality {
        TimeQuality::Exact => (Quality::Exact, None, None),
        TimeQuality::Bounded { not_before, not_after } => {
            (Quality::Bounded, Some(When(not_before)), Some(When(not_after)))
        }
    };
    Wire {
        kind: d.kind,
        vm_id: d.vm_id.clone(),
        snapshot_id: d.snapshot_id.clone(),
        source_snapshot_id: d.source_snapshot_id.clone(),
        reason: d.reason,
        hypervisor: d.hypervisor.clone(),
        shape: d.shape,
        emitted_at: When(d.emitted_at),
        v: VERSION,
        ledger: place.ledger.to_owned(),
        seq: place.seq,
        id: id.to_owned(),
        host: place.host.to_owned(),
        boot_id: d.boot_id.clone(),
        incarnation,
        storage_id,
        recorded_at: When(place.recorded_at),
        mono_ns: Dec(d.mono_ns),
        time_quality,
        not_before,
        not_after,
        cause: d.cause.clone(),
        evidence: d.evidence.clone(),
        name: d.name.clone(),
        uuid: d.uuid.clone(),
        tenant: d.tenant.clone(),
        labels: d.labels.clone(),
        usage: d.usage.clone(),
        coverage: d.coverage,
        files: d.files.clone(),
        corrects: d.corrects.clone(),
        resumed_after: d.resumed_after.clone(),
        clean: d.clean,
        cut_bytes: d.cut_bytes.map(Dec),
        stepped_from: d.stepped_from.map(When),
        suspended_ns: d.suspended_ns.map(Dec),
        trimmed: trimmed.to_vec(),
        prev: place.prev.to_owned(),
    }
}
