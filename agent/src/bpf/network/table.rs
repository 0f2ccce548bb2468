//! The classes' table as a map of one element that programs only read.

use std::os::fd::OwnedFd;

use aya_obj::generated::bpf_map_type;

use super::{Error, syscall};
use crate::account::class::ClassTable;

/// A table that programs may use.
pub(super) struct Table {
    pub fd: OwnedFd,
    /// Keeps an entry's offset inside.
    pub mask: u32,
}

impl Table {
    pub(super) fn new(table: &ClassTable) -> Result<Self, Error> {
        const NAME: &str = "NETWORK_CLASSES";
        let refused = |source| Error::Map(NAME, source);
        let bytes = table.bytes();
        let length = u32::try_from(bytes.len()).map_err(|error| refused(std::io::Error::other(error)))?;
        let fd = syscall::create_map(&syscall::MapShape {
            name: NAME,
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
            key_bytes: 4,
            value_bytes: length,
            entries: 1,
            // `BPF_F_RDONLY_PROG`
            flags: 1 << 7,
            inner: None,
        })
        .map_err(refused)?;
        syscall::insert(&fd, &0_u32, bytes.as_slice(), 0).map_err(refused)?;
        // The length is a power of two, an entry two bytes.
        Ok(Self { fd, mask: length - 2 })
    }
}
