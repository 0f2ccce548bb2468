//! Waiting until every network program that runs now has ended.
//!
//! membarrier(2) would do, but refuses on hosts with nohz_full CPUs, which is what KVM hosts have. An update of a map of
//! maps waits likewise (kernel/bpf/syscall.c, `maybe_wait_bpf_programs`, commit 1ae80cf31938 of Linux 4.20).

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya_obj::generated::bpf_map_type;

use super::syscall::{self, MapShape};

/// A map of maps that nobody reads.
pub(super) struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    pub(super) fn new() -> io::Result<Self> {
        let mut shape = MapShape {
            name: "NETWORK_GRACE",
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
            key_bytes: 4,
            value_bytes: 4,
            entries: 1,
            flags: 0,
            inner: None,
        };
        let inner = syscall::create_map(&shape)?;
        shape.kind = bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS;
        shape.inner = Some(inner.as_fd());
        let outer = syscall::create_map(&shape)?;
        Ok(Self { outer, inner })
    }

    /// Returns once no program runs that ran at the call.
    pub(super) fn wait(&self) -> io::Result<()> {
        syscall::insert(&self.outer, &0_u32, &self.inner.as_raw_fd(), 0)
    }
}

/// Returns once no kernel program runs that ran at the call.
///
/// # Errors
/// When the kernel has no memory to wait with.
pub(in crate::bpf) fn wait_for_programs() -> io::Result<()> {
    Grace::new()?.wait()
}
