//! Objects of the kernel by their names in a bpffs, and what a map of one element holds.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::maps::{MapData, MapInfo};
use aya_obj::generated::bpf_cmd;

use super::syscall::{number, owned, request};

#[repr(C)]
#[derive(Default)]
struct Pin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Lookup {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Gives an object a name that is not taken.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = text(path)?;
    let pathname = path.as_ptr().expose_provenance() as u64;
    request(bpf_cmd::BPF_OBJ_PIN, &mut Pin { pathname, bpf_fd: number(object), file_flags: 0 }).map(drop)
}

/// The object of a name.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = text(path)?;
    let pathname = path.as_ptr().expose_provenance() as u64;
    owned(request(bpf_cmd::BPF_OBJ_GET, &mut Pin { pathname, ..Pin::default() })?)
}

/// What the kernel says of a map.
pub(super) fn info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let map = MapData::from_fd(map.try_clone_to_owned()?).map_err(io::Error::other)?;
    map.info().map_err(io::Error::other)
}

/// The first element of an array.
pub(super) fn first(map: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let bytes = info(map)?.value_size() as usize;
    // The kernel writes whole words.
    let (key, mut value) = (0_u32, vec![0_u8; bytes.next_multiple_of(8)]);
    let mut attributes = Lookup {
        map_fd: number(map.as_fd()),
        key: std::ptr::from_ref(&key).expose_provenance() as u64,
        value: value.as_mut_ptr().expose_provenance() as u64,
        ..Lookup::default()
    };
    request(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes)?;
    value.truncate(bytes);
    Ok(value)
}
