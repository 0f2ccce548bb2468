//! A line as it is read back, its `sum` checked first. Pure; unknown keys of a later agent are left alone.

use super::digest;
use super::error::LineError;
use super::record::VERSION;
use super::wire::{Quality, Wire};
use super::{Draft, Subject, TimeQuality};

/// Length of `,"sum":"<16 hex>"}`.
const SUM_TAIL_BYTES: usize = 26;

/// A line as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The fact; its `slot` is not on the line and so unset.
    pub fact: Draft,
    /// The ledger's id.
    pub ledger: String,
    /// Its number.
    pub seq: u64,
    /// Its id.
    pub id: String,
    /// machine-id.
    pub host: String,
    /// When it was written, unix nanoseconds.
    pub recorded_at: u64,
    /// SHA-256 of the line before, 64 hex.
    pub prev: String,
    /// Keys that were dropped or shortened.
    pub trimmed: Vec<String>,
}

impl Line {
    /// Reads one line (without newline), its `sum` first.
    ///
    /// # Errors
    /// [`LineError`] names what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        check_sum(bytes)?;
        let wire: Wire = serde_json::from_slice(bytes).map_err(LineError::Json)?;
        Self::from_wire(wire)
    }

    pub(super) fn from_wire(w: Wire) -> Result<Self, LineError> {
        if w.v != VERSION {
            return Err(LineError::Version(w.v));
        }
        let time_quality = match (w.time_quality, w.not_before, w.not_after) {
            (Quality::Exact, None, None) => TimeQuality::Exact,
            (Quality::Bounded, Some(low), Some(high)) => TimeQuality::Bounded { not_before: low.0, not_after: high.0 },
            _ => return Err(LineError::Bounds),
        };
        let subject = if !w.incarnation.is_empty() {
            Subject::Incarnation(w.incarnation)
        } else if !w.storage_id.is_empty() {
            Subject::Storage(w.storage_id)
        } else if !w.snapshot_id.is_empty() {
            Subject::Snapshot(w.snapshot_id.clone())
        } else {
            Subject::Ledger
        };
        let fact = Draft {
            kind: w.kind,
            subject,
            vm_id: w.vm_id,
            snapshot_id: w.snapshot_id,
            source_snapshot_id: w.source_snapshot_id,
            reason: w.reason,
            hypervisor: w.hypervisor,
            shape: w.shape,
            emitted_at: w.emitted_at.0,
            boot_id: w.boot_id,
            mono_ns: w.mono_ns.0,
            time_quality,
            cause: w.cause,
            evidence: w.evidence,
            name: w.name,
            uuid: w.uuid,
            tenant: w.tenant,
            labels: w.labels,
            usage: w.usage,
            coverage: w.coverage,
            files: w.files,
            corrects: w.corrects,
            resumed_after: w.resumed_after,
            clean: w.clean,
            cut_bytes: w.cut_bytes.map(|d| d.0),
            stepped_from: w.stepped_from.map(|when| when.0),
            suspended_ns: w.suspended_ns.map(|d| d.0),
            slot: None,
        };
        let (ledger, seq, id, host) = (w.ledger, w.seq, w.id, w.host);
        Ok(Self { fact, ledger, seq, id, host, recorded_at: w.recorded_at.0, prev: w.prev, trimmed: w.trimmed })
    }
}

/// Compares a line's last key with what its bytes give.
pub(super) fn check_sum(bytes: &[u8]) -> Result<(), LineError> {
    let split = bytes.len().checked_sub(SUM_TAIL_BYTES).and_then(|at| bytes.split_at_checked(at));
    let (body, tail) = split.ok_or(LineError::NoSum)?;
    let stated = tail.strip_prefix(b",\"sum\":\"").and_then(|t| t.strip_suffix(b"\"}")).ok_or(LineError::NoSum)?;
    let computed = digest::sum(body);
    if stated == computed.as_bytes() {
        return Ok(());
    }
    Err(LineError::Sum { stated: String::from_utf8_lossy(stated).into_owned(), computed })
}
