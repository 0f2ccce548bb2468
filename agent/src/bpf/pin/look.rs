//! What is pinned on this host, for `doctor`, and letting go of it, for `kvmeter release`.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData};
use kvmeter_common::header::Header;

use super::{HEADER, PinError, tree};

/// Tables of one ledger that are counted into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The ledger's id.
    pub ledger: String,
    /// Where they lie.
    pub dir: PathBuf,
    /// Since when, CLOCK_BOOTTIME nanoseconds; `None` where that cannot be read.
    pub since_ns: Option<u64>,
}

/// What was let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Ledgers whose programs and tables were pinned.
    pub ledgers: usize,
    /// Pins removed.
    pub pins: u64,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct HeaderValue(Header);

// SAFETY: integers only, no padding (asserted beside the type), any bits are valid.
unsafe impl aya::Pod for HeaderValue {}

/// Whether pins could lie in this directory.
///
/// # Errors
/// Why not.
pub fn possible(pin_dir: &Path) -> Result<(), PinError> {
    match tree::is_bpffs(pin_dir) {
        Ok(true) => Ok(()),
        Ok(false) => Err(PinError::NoBpffs(pin_dir.to_owned())),
        Err(source) => Err(PinError::Path { path: pin_dir.to_owned(), source }),
    }
}

/// Everything that agents have pinned below this directory.
///
/// # Errors
/// When a directory cannot be listed; one that is not there holds nothing.
pub fn look(pin_dir: &Path) -> io::Result<Vec<Pinned>> {
    let mut all = Vec::new();
    for ledger in tree::ledgers(pin_dir)? {
        for dir in tree::layouts(&ledger)? {
            let since_ns = header(&dir.join(HEADER)).map(|header| header.since_ns);
            all.push(Pinned { ledger: tree::name(&ledger).to_owned(), dir, since_ns });
        }
    }
    Ok(all)
}

fn header(path: &Path) -> Option<Header> {
    let map = Map::from_map_data(MapData::from_pin(path).ok()?).ok()?;
    let array: Array<MapData, HeaderValue> = Array::try_from(map).ok()?;
    array.get(&0, 0).ok().map(|value| value.0)
}

/// Removes every pin of one ledger; how many there were.
///
/// # Errors
/// As [`release`].
pub fn release_ledger(pin_dir: &Path, ledger: &str) -> io::Result<u64> {
    tree::remove(&pin_dir.join(ledger))
}

/// Removes every pin of every ledger below this directory, and the directory if nothing else is in it.
///
/// # Errors
/// When something cannot be removed; what was removed before that stays so.
pub fn release(pin_dir: &Path) -> io::Result<Released> {
    let mut released = Released::default();
    for ledger in tree::ledgers(pin_dir)? {
        released.pins += tree::remove(&ledger)?;
        released.ledgers += 1;
    }
    // Something of others may be in it, or nothing was there at all.
    let _ = std::fs::remove_dir(pin_dir);
    Ok(released)
}
