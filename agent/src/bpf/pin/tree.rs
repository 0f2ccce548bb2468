//! The directories that pins lie in: `<pin_dir>/<ledger>/v<ABI>/<layout>/`, maps beside one directory of links a
//! generation. Removing a link's pin is what takes its program off its hook, once nobody else holds it.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Digits of a ledger's id and of a layout's.
const ID_DIGITS: usize = 16;

/// Where a layout lies until it is whole.
pub(super) const MAKING: &str = "making";

/// The directory of what counts at interfaces, beside those of generations.
const NETWORK: &str = "net";

/// Whether pins could lie at this path: of its nearest directory that exists.
pub(super) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let existing = path.ancestors().find(|at| at.is_dir()).unwrap_or(Path::new("/"));
    Ok(statfs(existing).map_err(io::Error::from)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Makes a directory that only its owner may look into.
pub(in crate::bpf) fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// What lies in a directory; nothing where it is not there.
pub(in crate::bpf) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut all = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    all.sort();
    Ok(all)
}

/// Removes a directory with all pins in it, links first; how many pins there were.
pub(in crate::bpf) fn remove(dir: &Path) -> io::Result<u64> {
    let (below, pins): (Vec<_>, Vec<_>) = list(dir)?.into_iter().partition(|path| path.is_dir());
    let mut removed = 0;
    for dir in below {
        removed += remove(&dir)?;
    }
    for pin in pins {
        fs::remove_file(pin)?;
        removed += 1;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(removed),
        Err(error) => Err(error),
        Ok(()) => Ok(removed),
    }
}

/// The last part of a path as text.
pub(in crate::bpf) fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Directories of ledgers: nothing else below `pin_dir` is ours.
pub(super) fn ledgers(pin_dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(list(pin_dir)?.into_iter().filter(|path| path.is_dir() && is_id(name(path))).collect())
}

/// The layouts of one ledger that are whole, whatever their version.
pub(super) fn layouts(ledger: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for version in list(ledger)?.into_iter().filter(|path| path.is_dir()) {
        all.extend(list(&version)?.into_iter().filter(|path| path.is_dir() && is_id(name(path))));
    }
    Ok(all)
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The directory of a generation's links.
pub(super) fn generation_dir(layout: &Path, generation: u16) -> PathBuf {
    layout.join(format!("g{generation}"))
}

/// Where what counts at interfaces lies (`bpf/network/pins`).
pub(super) fn network_dir(layout: &Path) -> PathBuf {
    layout.join(NETWORK)
}

/// Directories of links that are of another generation than this one.
pub(super) fn other_generations(layout: &Path, generation: u16) -> io::Result<Vec<PathBuf>> {
    let own = generation_dir(layout, generation);
    let other = |path: &PathBuf| path.is_dir() && *path != own && name(path) != NETWORK;
    Ok(list(layout)?.into_iter().filter(other).collect())
}
