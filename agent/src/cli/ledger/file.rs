//! A file that is there whole or not at all: written beside its place, synced, and put there.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Writes what `fill` writes and puts it in place of `path`.
pub(super) fn replace<T>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut name = path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_owned();
    name.push(".part");
    let part: PathBuf = path.with_file_name(name);
    let written = || -> anyhow::Result<T> {
        let file = File::create(&part).with_context(|| format!("{} cannot be made", part.display()))?;
        let mut out = BufWriter::new(file);
        let made = fill(&mut out)?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all().with_context(|| format!("{} cannot be synced", part.display()))?;
        fs::rename(&part, path).with_context(|| format!("{} cannot be replaced", path.display()))?;
        Ok(made)
    };
    written().inspect_err(|_| {
        // What is half written helps nobody; that it could not be written is what is told.
        let _ = fs::remove_file(&part);
    })
}
