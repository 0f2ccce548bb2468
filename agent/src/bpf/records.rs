//! Where the running kernel keeps the fields of a tracepoint's record, read from the `format` file beside it.
//!
//! Raw arguments of `kvm_exit` lost the reason in 5.16; the record kept it, at places that moved since.

use std::collections::{BTreeMap, BTreeSet};

use super::{format::RecordLayout, offsets::Offsets};

/// The text of each tracepoint's `format` file, or why it could not be read.
pub type Formats = BTreeMap<&'static str, Result<String, String>>;

/// A global of the kernel programs and the record's field it points to.
pub struct RecordField {
    /// The global's name.
    pub global: &'static str,
    /// The tracepoint, as `system/event`.
    pub event: &'static str,
    /// The field's name.
    pub field: &'static str,
    /// Its size in bytes.
    pub size: u32,
}

/// Every field of a record that any program reads.
pub const FIELDS: &[RecordField] = &[
    RecordField { global: "KVM_EXIT_REASON", event: "kvm/kvm_exit", field: "exit_reason", size: 4 },
    RecordField { global: "KVM_EXIT_ISA", event: "kvm/kvm_exit", field: "isa", size: 4 },
];

/// The tracepoints whose records are looked at, each once.
#[must_use]
pub fn events() -> BTreeSet<&'static str> {
    FIELDS.iter().map(|row| row.event).collect()
}

/// Looks every field up in the `format` files' texts, by tracepoint, and adds it to the offsets.
pub fn resolve(offsets: &mut Offsets, formats: &Formats) {
    for row in FIELDS {
        offsets.insert(row.global, locate(row, formats));
    }
}

fn locate(row: &RecordField, formats: &Formats) -> Result<u32, String> {
    let text = formats.get(row.event).ok_or_else(|| format!("the format of {} was never read", row.event))?;
    let layout = RecordLayout::parse(text.as_ref().map_err(Clone::clone)?);
    let layout = layout.map_err(|error| format!("the format of {}: {error}", row.event))?;
    layout.offset(row.field, row.size).map_err(|error| format!("the format of {}: {error}", row.event))
}
