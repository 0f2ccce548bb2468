//! The smallest programs there are, to run ten thousand of: an ELF file of a page that sleeps, and one that ends at once.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// `pause()`, for ever.
pub const SLEEPS: &[u8] = &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
/// `exit(0)`.
pub const ENDS: &[u8] = &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];

/// Where the file is mapped.
const BASE: u64 = 0x40_0000;
const HEADER: u16 = 64;
const SEGMENT: u16 = 56;

/// Writes a program of this machine code (x86-64) that can be run.
pub fn write(path: &Path, code: &[u8]) -> Result<()> {
    let begin = u64::from(HEADER + SEGMENT);
    let bytes = begin + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // An executable for x86-64, version 1.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + begin, u64::from(HEADER), 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0; 4]);
    for half in [HEADER, SEGMENT, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // One segment, loaded whole, to be read and run.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, bytes, bytes, 0x1000] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(code);
    std::fs::write(path, file).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}
