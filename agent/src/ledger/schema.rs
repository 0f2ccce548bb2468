//! The JSON Schema of a line, read off the types that read lines: a deserializer that has no input answers each
//! question serde asks, and notes what was asked. So the schema cannot say anything else than the code.
//! What types cannot say (patterns of ids, what belongs together, what a key means) stands here as data.

mod probe;
mod write;

use serde_json::{Map, Value, json};

use super::wire::Wire;
use probe::Shape;

/// What keys mean, by their path.
const MEANINGS: &[(&str, &str)] = &[
    ("kind", "What happened."),
    ("vm_id", "Whose line it is; fixed by the start line. Omitted when empty."),
    ("snapshot_id", "The snapshot it is about. Omitted when empty."),
    ("source_snapshot_id", "What a VM or snapshot was made from. Omitted when empty."),
    ("reason", "Why a life began or ended; omitted when there is no evidence."),
    ("hypervisor", "The VMM's family."),
    ("shape", "Size at that moment; a part that is 0 or unknown is omitted."),
    ("emitted_at", "When the fact happened."),
    ("v", "The version of the format."),
    ("ledger", "The ledger's id, drawn once."),
    ("seq", "1, 2, 3 …; a hole is a loss."),
    ("id", "The same fact has the same id, for ever."),
    ("host", "machine-id."),
    ("boot_id", "The boot in which mono_ns counts."),
    ("incarnation", "One life of a VM: pair start and stop by it."),
    ("storage_id", "One stored thing: pair start and stop by it."),
    ("recorded_at", "When the line was written."),
    ("mono_ns", "CLOCK_BOOTTIME of the fact: lengths are differences of it."),
    ("time_quality", "Whether the instant was seen, or lies between not_before and not_after."),
    ("not_before", "Lower bound of the instant."),
    ("not_after", "Upper bound of the instant."),
    ("cause", "Why we say so, in a word."),
    ("evidence", "Why we say so: only what was seen."),
    ("name", "The VM's name."),
    ("uuid", "The VM's UUID."),
    ("tenant", "Whom the VM belongs to."),
    ("labels", "The VM's labels."),
    ("usage", "Running totals over the whole life; a key that was not measured is absent, never 0."),
    ("usage.net", "By interface and class, as the guest sees it."),
    ("usage.net_unobserved", "Interfaces that nobody counts."),
    ("coverage", "How much of the age was watched; observed_ns + unobserved_ns is the age."),
    ("files", "The files a stored thing consists of."),
    ("corrects", "The id of the line that this one replaces."),
    ("resumed_after", "The last line before this agent."),
    ("clean", "Whether the agent before ended in order."),
    ("cut_bytes", "Bytes of a torn tail that was cut."),
    ("stepped_from", "What the wall clock would have shown at mono_ns had nobody set it; emitted_at is what it shows."),
    (
        "suspended_ns",
        "For how long the host was suspended; on agent.up: since it booted, as far as lines have told it.",
    ),
    ("trimmed", "Keys that were shortened or left out so that the line stays within 16 KiB."),
    ("prev", "SHA-256 of the line before, without its newline; zeros at the beginning."),
    ("sum", "First 16 hex of SHA-256 of the line's bytes before `,\"sum\"`; the last key."),
];

/// What texts look like where their type says only that they are texts.
const PATTERNS: &[(&str, &str)] =
    &[("ledger", "^[0-9a-f]{16}$"), ("id", "^[0-9a-f]{32}$"), ("prev", "^[0-9a-f]{64}$"), ("sum", "^[0-9a-f]{16}$")];

/// The schema of a line, as `docs/ledger.schema.json` has it.
///
/// # Errors
/// Text that says which of the types could not be read.
pub fn schema() -> Result<Value, String> {
    let shape = probe::shape_of::<Wire>()?;
    let Shape::Object(keys) = &shape else { return Err("a line is no object".to_owned()) };
    let mut schema = write::object("", keys);
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut).ok_or("a line has no keys")?;
    properties.insert("v".to_owned(), json!({ "const": super::record::VERSION }));
    properties.insert("sum".to_owned(), json!({ "type": "string" }));
    for (key, pattern) in PATTERNS {
        set(properties, key, "pattern", pattern);
    }
    for (path, meaning) in MEANINGS {
        set(properties, path, "description", meaning);
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.push("sum".into());
    }
    let mut whole = Map::new();
    whole.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    whole.insert("title".to_owned(), "A line of kvmeter's ledger".into());
    whole.insert(
        "description".to_owned(),
        "Written by `cargo xtask docs` from the agent's types. Readers skip keys and kinds they do not know.".into(),
    );
    whole.append(&mut schema);
    whole.insert("if".to_owned(), json!({ "properties": { "time_quality": { "const": "bounded" } } }));
    whole.insert("then".to_owned(), json!({ "required": ["not_before", "not_after"] }));
    whole.insert("else".to_owned(), json!({ "properties": { "not_before": false, "not_after": false } }));
    Ok(Value::Object(whole))
}

/// Says more about a key, if there is such a key.
fn set(properties: &mut Map<String, Value>, path: &str, what: &str, text: &str) {
    let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    let Some(node) = properties.get_mut(key).and_then(Value::as_object_mut) else { return };
    match rest {
        None => drop(node.insert(what.to_owned(), text.into())),
        Some(rest) => {
            if let Some(inner) = node.get_mut("properties").and_then(Value::as_object_mut) {
                set(inner, rest, what, text);
            }
        }
    }
}
