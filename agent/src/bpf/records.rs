//! Where the running kernel keeps the fields of a tracepoint's record, read from the `format` file beside it.
//!
//! Raw arguments of `kvm_exit` lost the reason in 5.16; the record kept it, at places that moved since.

use std::path::{Path, PathBuf};

use super::{format::RecordLayout, offsets::Offsets};

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

/// Where tracefs is mounted; the second is where old set-ups have it.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Looks every field up and adds it to the offsets.
pub fn resolve(offsets: &mut Offsets) {
    for row in FIELDS {
        offsets.insert(row.global, locate(row));
    }
}

fn locate(row: &RecordField) -> Result<u32, String> {
    let paths = TRACEFS.map(|root| Path::new(root).join("events").join(row.event).join("format"));
    let (path, text) = read_first(&paths)?;
    let layout = RecordLayout::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    layout.offset(row.field, row.size).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_first(paths: &[PathBuf]) -> Result<(&PathBuf, String), String> {
    let mut first = None;
    for path in paths {
        match std::fs::read_to_string(path) {
            Ok(text) => return Ok((path, text)),
            Err(error) => {
                first.get_or_insert(format!("{} cannot be read: {error}", path.display()));
            }
        }
    }
    Err(first.unwrap_or_default())
}
