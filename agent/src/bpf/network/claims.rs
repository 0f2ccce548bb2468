//! Claims outlive pages: an agent that is killed before its page is pinned takes back none of them.

use std::{collections::BTreeMap, io, os::fd::BorrowedFd};

use aya::maps::{HashMap, Map, MapData, MapInfo};
use kvmeter_common::network::Claim;

use super::syscall;

/// Bytes of a [`Claim`].
type Key = [u8; size_of::<Claim>()];

/// Takes back the claims of pages that are neither among these nor anywhere else any more; how many.
///
/// # Errors
/// When the claims cannot be read.
pub(super) fn sweep(claims: BorrowedFd<'_>, known: &[u32]) -> io::Result<usize> {
    let data = MapData::from_fd(claims.try_clone_to_owned()?).map_err(io::Error::other)?;
    let map: HashMap<_, Key, u32> = Map::HashMap(data).try_into().map_err(io::Error::other)?;
    let keys: Vec<Key> = map.keys().collect::<Result<_, _>>().map_err(io::Error::other)?;
    let mut stays: BTreeMap<u32, bool> = known.iter().map(|claimant| (*claimant, true)).collect();
    let mut swept = 0;
    for key in keys {
        let claimant = u32::from_ne_bytes([key[0], key[1], key[2], key[3]]);
        // A page that filters of a killed agent count to is there, though nobody has it.
        if !*stays.entry(claimant).or_insert_with(|| MapInfo::from_id(claimant).is_ok()) {
            syscall::remove(claims, &key)?;
            swept += 1;
        }
    }
    Ok(swept)
}
