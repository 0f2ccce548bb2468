//! Kernel arrays mapped into our memory: read without a system call.
//!
//! Owns the mapping and the only raw memory accesses of the agent. The element types are integers all through
//! (`kvmeter-common`), so a torn read is a wrong number at worst; readers bracket what must be whole.

use std::{
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsFd as _,
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

use aya::maps::{Map, MapData};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Why a map cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The object has no such map, or of another type.
    #[error("the kernel programs have no array named {0}")]
    NotThere(&'static str),
    /// The kernel refused.
    #[error("array {name} of {bytes} bytes cannot be mapped")]
    Refused {
        /// The map's name.
        name: &'static str,
        /// The mapping's length.
        bytes: usize,
        /// The kernel's answer.
        source: nix::Error,
    },
}

/// Types that may be read from kernel memory: integers only, every bit pattern valid.
pub trait Shared: Copy {}
impl Shared for u64 {}
impl Shared for kvmeter_common::index::TidWord {}
impl Shared for kvmeter_common::thread::ThreadSlot {}
impl Shared for kvmeter_common::vcpu::VcpuSlot {}
impl Shared for kvmeter_common::vm::VmSlot {}
impl Shared for kvmeter_common::vm::VmArgs {}

/// An array map, mapped.
pub struct Mapped<T: Shared> {
    start: NonNull<u8>,
    stride: usize,
    len: u32,
    _map: MapData,
    _type: PhantomData<T>,
}

// SAFETY: the mapping is process-wide memory; all accesses are volatile and of types valid for any bits.
unsafe impl<T: Shared> Send for Mapped<T> {}

impl<T: Shared> Mapped<T> {
    /// Maps a map taken from a loaded object.
    ///
    /// # Errors
    /// When it is not an array, or the kernel refuses the mapping.
    pub fn new(map: Option<Map>, name: &'static str, len: u32) -> Result<Self, MapError> {
        let Some(Map::Array(map)) = map else { return Err(MapError::NotThere(name)) };
        // The kernel pads each element of a mmapable array to 8 bytes (kernel/bpf/arraymap.c, `array_map_alloc`).
        let stride = size_of::<T>().next_multiple_of(8);
        let bytes = stride * len as usize;
        let length = NonZeroUsize::new(bytes).ok_or(MapError::NotThere(name))?;
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping of a map's descriptor; no address is asked for, none is replaced.
        let start = unsafe { mmap(None, length, flags, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }
            .map_err(|source| MapError::Refused { name, bytes, source })?;
        Ok(Self { start: start.cast(), stride, len, _map: map, _type: PhantomData })
    }

    /// How many elements there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.len
    }

    fn element(&self, index: u32) -> Option<NonNull<T>> {
        if index >= self.len {
            return None;
        }
        // SAFETY: the index is inside the mapping, whose length is `stride * len`.
        Some(unsafe { self.start.byte_add(self.stride * index as usize) }.cast())
    }

    /// A copy of an element; `None` beyond the end.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<T> {
        // SAFETY: mapped, aligned to 8 by the stride and to its own alignment by the kernel's page-aligned start.
        self.element(index).map(|at| unsafe { at.read_volatile() })
    }

    /// A copy of one 64-bit field, `offset` bytes into the element; `None` outside it.
    #[must_use]
    pub fn u64_at(&self, index: u32, offset: usize) -> Option<u64> {
        if offset + size_of::<u64>() > size_of::<T>() {
            return None;
        }
        let at = self.element(index)?;
        // SAFETY: inside the element by the check above; layout assertions keep 64-bit fields aligned.
        Some(unsafe { at.byte_add(offset).cast::<u64>().read_volatile() })
    }

    /// A copy of one 32-bit field, `offset` bytes into the element; `None` outside it.
    #[must_use]
    pub fn u32_at(&self, index: u32, offset: usize) -> Option<u32> {
        if offset + size_of::<u32>() > size_of::<T>() {
            return None;
        }
        let at = self.element(index)?;
        // SAFETY: inside the element by the check above; layout assertions keep 32-bit fields aligned.
        Some(unsafe { at.byte_add(offset).cast::<u32>().read_volatile() })
    }

    /// Overwrites one 32-bit field and nothing beside it: neighbours may be the kernel's.
    pub fn put_u32(&mut self, index: u32, offset: usize, value: u32) {
        if offset + size_of::<u32>() <= size_of::<T>()
            && let Some(at) = self.element(index)
        {
            // SAFETY: inside the element by the check above; layout assertions keep 32-bit fields aligned.
            unsafe { at.byte_add(offset).cast::<u32>().write_volatile(value) };
            fence(Ordering::SeqCst);
        }
    }

    /// Overwrites an element.
    pub fn set(&mut self, index: u32, value: T) {
        if let Some(at) = self.element(index) {
            // SAFETY: as in `get`; only slots that the kernel programs have let go are written.
            unsafe { at.write_volatile(value) };
            fence(Ordering::SeqCst);
        }
    }
}

impl<T: Shared> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, not used after this.
        let _ = unsafe { munmap(self.start.cast(), self.stride * self.len as usize) };
    }
}
