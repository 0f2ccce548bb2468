//! Which files a person means who names files and directories.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::FILE_NAME;
use super::InputError;

/// Directories within directories are looked into this far.
const DEPTH: usize = 16;

/// The files behind paths: a file is itself, a directory stands for every `*.jsonl` in it and below; where an agent
/// writes (`ledger.jsonl` is there), for `ledger*.jsonl`, because exports may lie beside. A file with two names is one.
///
/// # Errors
/// A path that is not there or cannot be read.
pub fn ledger_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, InputError> {
    let (mut files, mut known) = (Vec::new(), BTreeSet::new());
    for path in paths {
        collect(path, DEPTH, true, &mut known, &mut files)?;
    }
    Ok(files)
}

fn collect(
    path: &Path,
    depth: usize,
    named: bool,
    known: &mut BTreeSet<(u64, u64)>,
    files: &mut Vec<PathBuf>,
) -> Result<(), InputError> {
    let io = |source| InputError::Io { path: path.to_owned(), source };
    let about = fs::metadata(path).map_err(io)?;
    if !about.is_dir() {
        let ours = named || path.extension().is_some_and(|extension| extension == "jsonl");
        if ours && known.insert((about.dev(), about.ino())) {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    if depth == 0 || !named && fs::symlink_metadata(path).map_err(io)?.is_symlink() {
        return Ok(());
    }
    let inside: Result<Vec<_>, _> = fs::read_dir(path).map_err(io)?.map(|entry| entry.map(|e| e.path())).collect();
    let mut inside = inside.map_err(io)?;
    inside.sort();
    if path.join(FILE_NAME).is_file() {
        let named =
            |path: &&PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ledger"));
        inside = inside.iter().filter(|path| path.is_dir() || named(path)).cloned().collect();
    }
    inside.iter().try_for_each(|path| collect(path, depth - 1, false, known, files))
}
