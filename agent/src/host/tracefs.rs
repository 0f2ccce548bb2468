//! tracefs: what a tracepoint's record looks like.

use std::path::Path;

/// Where tracefs is mounted; the second is where old set-ups have it.
const MOUNTS: [&str; 2] = ["sys/kernel/tracing", "sys/kernel/debug/tracing"];

/// The `format` file of a tracepoint, named `system/event`.
///
/// # Errors
/// One sentence, about the first place looked at.
pub fn format(root: &Path, event: &str) -> Result<String, String> {
    let mut first = None;
    for mount in MOUNTS {
        let path = root.join(mount).join("events").join(event).join("format");
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(text),
            Err(error) => {
                first.get_or_insert(format!("{} cannot be read: {error}", path.display()));
            }
        }
    }
    Err(first.unwrap_or_default())
}
