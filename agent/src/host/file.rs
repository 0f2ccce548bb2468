//! Bounded reads of kernel text files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The largest kernel text file that is read whole, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// At most `limit` bytes of a file, and whether it held more.
pub(super) fn bytes(path: &Path, limit: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut out = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut out)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let truncated = out.len() > limit;
    out.truncate(limit);
    Ok((out, truncated))
}

/// A text file without the white space around it; what is not UTF-8 is replaced.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let (raw, _) = bytes(path, MAX_TEXT)?;
    Ok(String::from_utf8_lossy(&raw).trim().to_owned())
}
