//! Files on a raw disk, one after the other: `NAME SIZE\n` and that many bytes; zeros end it.
//!
//! No file system and no archiver, for neither is in the machine; `xtask/src/kernels/parcel.rs` reads it.

use std::{
    fs,
    io::{Read as _, Write},
    path::Path,
};

use anyhow::{Context as _, Result};

/// Appends a file under its own name.
pub fn write(disk: &mut impl Write, path: &Path) -> Result<()> {
    let name = path.file_name().context("no file name")?.to_string_lossy();
    let mut bytes = Vec::new();
    // Files of sysfs do not tell their size.
    fs::File::open(path)?.read_to_end(&mut bytes)?;
    disk.write_all(format!("{name} {}\n", bytes.len()).as_bytes())?;
    Ok(disk.write_all(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_name_its_size_and_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, "x\ny").unwrap();
        let mut disk = Vec::new();
        write(&mut disk, &path).unwrap();
        assert_eq!(disk, b"a.txt 3\nx\ny");
    }
}
