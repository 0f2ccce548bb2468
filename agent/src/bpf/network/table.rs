//! The classes' table as a map of one element that programs only read.

use std::os::fd::OwnedFd;

use aya_obj::generated::bpf_map_type;
use kvmeter_common::network;

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
        Self::of(&table.bytes())
    }

    /// One with the nodes where addresses begin, to try programs out with.
    pub(super) fn least() -> Result<Self, Error> {
        Self::of(&[0; 2 * network::table::NODE_BYTES])
    }

    fn of(bytes: &[u8]) -> Result<Self, Error> {
        const NAME: &str = "NETWORK_CLASSES";
        let refused = |source| Error::Map(NAME, source);
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
        syscall::insert(&fd, &0_u32, bytes, 0).map_err(refused)?;
        // The length is a power of two, an entry two bytes.
        Ok(Self { fd, mask: length - 2 })
    }
}
