//! Patterns of names in a pool, and names that strangers chose: the first line is a pattern, the rest a path.
#![no_main]

use kvmeter::storage::{Pattern, Use};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, path) = text.split_once('\n').unwrap_or((text, ""));
    let path: Vec<&str> = path.split('/').collect();
    for is in [Use::Image, Use::Snapshot] {
        let Ok(pattern) = Pattern::parse(pattern, is) else { continue };
        let _ = pattern.enters(&path);
        if let Some(name) = pattern.read(&path) {
            assert!(name.vm_id.len() <= 64 && name.snapshot_id.len() <= 128);
            assert!(name.vm_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)));
        }
    }
});
