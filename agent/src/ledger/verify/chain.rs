//! One line at a time and against the one before: size, `sum`, keys, `seq`, `prev`, `ledger`.

use serde::Deserialize;
use serde_json::Value;

use super::super::digest;
use super::super::error::LineError;
use super::super::line::{Line, check_sum};
use super::super::scan::RawLine;
use super::super::wire::Wire;
use super::super::{Mark, Usage};
use super::Anchor;
use super::strict::Strict;

/// The keys of the existing metering format; those that are there come first and in this order.
const FIRST_KEYS: [&str; 8] =
    ["kind", "vm_id", "snapshot_id", "source_snapshot_id", "reason", "hypervisor", "shape", "emitted_at"];

#[derive(Debug)]
pub(super) struct Chain {
    next_seq: u64,
    prev: String,
    ledger: Option<String>,
    last: Option<Mark>,
}

impl Chain {
    pub(super) fn after(anchor: Anchor) -> Self {
        Self { next_seq: anchor.seq.saturating_add(1), prev: anchor.prev, ledger: None, last: None }
    }

    /// The last line that could be read.
    pub(super) fn head(&self) -> Option<Mark> {
        self.last.clone()
    }

    /// SHA-256 of the line before the next one.
    pub(super) fn prev(&self) -> &str {
        &self.prev
    }

    /// Reads a line and compares it with the one before; goes on behind a fault as if the line were right.
    pub(super) fn accept(&mut self, raw: &RawLine) -> (Option<Line>, Vec<String>) {
        let mut faults = Vec::new();
        let line = match read(raw, &mut faults) {
            Ok(line) => Some(line),
            Err(e) => {
                faults.push(text(&e));
                None
            }
        };
        if let Some(line) = &line {
            self.compare(line, &mut faults);
            self.last = Some(Mark { seq: line.seq, id: line.id.clone() });
        }
        self.next_seq = line.as_ref().map_or(self.next_seq, |l| l.seq).saturating_add(1);
        self.prev = digest::chain(&raw.bytes);
        (line, faults)
    }

    fn compare(&mut self, line: &Line, faults: &mut Vec<String>) {
        if line.seq != self.next_seq {
            faults.push(text(&LineError::Seq { expected: self.next_seq, found: line.seq }));
        }
        if line.prev != self.prev {
            faults.push(text(&LineError::Prev { expected: self.prev.clone(), found: line.prev.clone() }));
        }
        let ledger = self.ledger.get_or_insert_with(|| line.ledger.clone());
        if *ledger != line.ledger {
            faults.push(text(&LineError::Ledger { expected: ledger.clone(), found: line.ledger.clone() }));
        }
    }
}

fn read(raw: &RawLine, faults: &mut Vec<String>) -> Result<Line, LineError> {
    if raw.is_too_long() {
        return Err(LineError::TooLong);
    }
    if let Err(e) = check_sum(&raw.bytes) {
        faults.push(text(&e));
    }
    let Strict(value) = serde_json::from_slice(&raw.bytes).map_err(LineError::Json)?;
    check_keys(&value, faults);
    let stated = value.pointer("/usage/cpu_ns").and_then(Value::as_str).map(str::to_owned);
    let line = Line::from_wire(Wire::deserialize(value).map_err(LineError::Json)?)?;
    let computed = line.fact.usage.as_ref().and_then(Usage::cpu_ns).map(|ns| ns.to_string());
    if stated != computed {
        faults.push(format!("`cpu_ns` is {stated:?}, its parts give {computed:?}"));
    }
    Ok(line)
}

fn check_keys(value: &Value, faults: &mut Vec<String>) {
    let keys: Vec<&str> = value.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str)).collect();
    let due: Vec<&str> = FIRST_KEYS.into_iter().filter(|key| keys.contains(key)).collect();
    if !keys.starts_with(&due) {
        faults.push(format!("the first keys are {:?}, {due:?} are due", &keys[..due.len().min(keys.len())]));
    }
}

/// An error and its causes in one text.
fn text(error: &LineError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
