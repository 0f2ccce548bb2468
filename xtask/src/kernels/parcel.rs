//! What a machine left on its raw disk: `NAME SIZE\n` and that many bytes, one file after the other, until zeros.
//!
//! `tests/src/kernelcheck/parcel.rs` writes it.

use std::collections::BTreeMap;

/// Contents by file name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// As far as files are whole.
pub(crate) fn read(disk: &[u8]) -> Files {
    let (mut files, mut rest) = (Files::new(), disk);
    while let Some((name, contents, after)) = first(rest) {
        files.insert(name, contents.to_vec());
        rest = after;
    }
    files
}

fn first(disk: &[u8]) -> Option<(String, &[u8], &[u8])> {
    let end = disk.iter().take(4096).position(|byte| *byte == b'\n')?;
    let (name, size) = std::str::from_utf8(&disk[..end]).ok()?.rsplit_once(' ')?;
    let (contents, after) = disk[end + 1..].split_at_checked(size.parse().ok()?)?;
    Some((name.to_owned(), contents, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_end_where_the_zeros_begin_and_a_cut_one_is_none() {
        let files = read(b"a 3\nx\nyempty 0\nb 1\nz\0\0\0\0");
        assert_eq!(files.len(), 3);
        assert_eq!(files["a"], b"x\ny");
        assert_eq!(files["b"], b"z");
        assert!(read(b"a 9\nshort").is_empty());
        assert!(read(&[0; 8192]).is_empty());
    }
}
