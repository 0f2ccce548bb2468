//! Kernel arrays mapped into our memory: read without a system call.
//!
//! Owns the mapping and the only raw memory accesses of the agent. The element types are integers all through
//! (`kvmeter-common`), so a torn read is a wrong number at worst; readers bracket what must be whole.

use std::{
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsFd as _,
    ptr::NonNull,
    sync::{
        OnceLock,
        atomic::{Ordering, fence},
    },
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
impl Shared for kvmeter_common::header::Header {}
impl Shared for kvmeter_common::vm::VmSlot {}
impl Shared for kvmeter_common::vm::VmArgs {}
impl Shared for kvmeter_common::signal::VmSignals {}
impl Shared for kvmeter_common::network::Block {}

/// Elements mapped at once. Strides are multiples of 8, so that many of any of them fill whole pages.
const CHUNK: u32 = 512;

/// An array map, mapped piece by piece as it is used: the kernel charges us for every page of a mapping at once
/// (`remap_vmalloc_range`), and most hosts use a small part of the room.
pub struct Mapped<T: Shared> {
    chunks: Vec<OnceLock<Option<Chunk>>>,
    stride: usize,
    len: u32,
    map: MapData,
    _type: PhantomData<T>,
}

struct Chunk {
    start: NonNull<u8>,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping is process-wide memory; all accesses are volatile and of types valid for any bits.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: a mapping made in `Mapped::chunk`, not used after this.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}

impl<T: Shared> Mapped<T> {
    /// Maps the beginning of a map taken from a loaded object.
    ///
    /// # Errors
    /// When it is not an array, or the kernel refuses the mapping.
    pub fn new(map: Option<Map>, name: &'static str, len: u32) -> Result<Self, MapError> {
        let Some(Map::Array(map)) = map else { return Err(MapError::NotThere(name)) };
        // The kernel pads each element of a mmapable array to 8 bytes (kernel/bpf/arraymap.c, `array_map_alloc`).
        let stride = size_of::<T>().next_multiple_of(8);
        let chunks = std::iter::repeat_with(OnceLock::new).take(len.div_ceil(CHUNK) as usize).collect();
        let mapped = Self { chunks, stride, len, map, _type: PhantomData };
        let first =
            mapped.map_chunk(0).map_err(|source| MapError::Refused { name, bytes: stride * CHUNK as usize, source })?;
        // Nobody else has it yet.
        let _ = mapped.chunks.first().map(|chunk| chunk.set(Some(first)));
        Ok(mapped)
    }

    fn map_chunk(&self, number: usize) -> Result<Chunk, nix::Error> {
        let begin = number * CHUNK as usize;
        let elements = (self.len as usize).saturating_sub(begin).min(CHUNK as usize);
        let bytes = NonZeroUsize::new(self.stride * elements).ok_or(nix::Error::EINVAL)?;
        let offset = offset_of_byte(self.stride * begin)?;
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping of a map's descriptor; no address is asked for, none is replaced.
        let start = unsafe { mmap(None, bytes, flags, MapFlags::MAP_SHARED, self.map.fd().as_fd(), offset) }?;
        Ok(Chunk { start: start.cast(), bytes })
    }

    /// How many elements there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.len
    }

    /// Where an element lies; `None` beyond the end, or where the kernel has no room for another mapping.
    fn element(&self, index: u32) -> Option<NonNull<T>> {
        if index >= self.len {
            return None;
        }
        let (number, place) = ((index / CHUNK) as usize, (index % CHUNK) as usize);
        let chunk = self.chunks.get(number)?.get_or_init(|| self.map_chunk(number).ok()).as_ref()?;
        // SAFETY: the place is inside the chunk: its length is `stride` × elements, and the index is below the map's.
        Some(unsafe { chunk.start.byte_add(self.stride * place) }.cast())
    }

    /// A copy of an element; `None` beyond the end.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<T> {
        // SAFETY: mapped, aligned to 8 by the stride and to its own alignment by the kernel's page-aligned start.
        self.element(index).map(|at| unsafe { at.read_volatile() })
    }

    /// An element whose fields are to be read one by one; `None` beyond the end.
    #[must_use]
    #[inline]
    pub fn at(&self, index: u32) -> Option<Element<'_, T>> {
        self.element(index).map(|at| Element { at, _map: PhantomData })
    }

    /// A copy of one 64-bit field, `offset` bytes into the element; `None` outside it.
    #[must_use]
    pub fn u64_at(&self, index: u32, offset: usize) -> Option<u64> {
        self.at(index)?.u64(offset)
    }

    /// A copy of one 32-bit field, `offset` bytes into the element; `None` outside it.
    #[must_use]
    pub fn u32_at(&self, index: u32, offset: usize) -> Option<u32> {
        self.at(index)?.u32(offset)
    }

    /// Overwrites one 16-bit field and nothing beside it, as [`Self::put_u32`].
    pub fn put_u16(&mut self, index: u32, offset: usize, value: u16) {
        if offset + size_of::<u16>() <= size_of::<T>()
            && let Some(at) = self.element(index)
        {
            // SAFETY: inside the element by the check above; layout assertions keep 16-bit fields aligned.
            unsafe { at.byte_add(offset).cast::<u16>().write_volatile(value) };
            fence(Ordering::SeqCst);
        }
    }

    /// Lets go of what is mapped from this element on; it is mapped again when it is used.
    pub fn unmap_from(&mut self, index: u32) {
        self.chunks.iter_mut().skip(index.div_ceil(CHUNK) as usize).for_each(|chunk| drop(chunk.take()));
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

    /// Overwrites one 64-bit field and nothing beside it.
    pub fn put_u64(&mut self, index: u32, offset: usize, value: u64) {
        if offset + size_of::<u64>() <= size_of::<T>()
            && let Some(at) = self.element(index)
        {
            // SAFETY: inside the element by the check above; layout assertions keep 64-bit fields aligned.
            unsafe { at.byte_add(offset).cast::<u64>().write_volatile(value) };
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

/// An element of a mapped array, found once: its fields are read one by one, without a copy of the rest.
pub struct Element<'a, T: Shared> {
    at: NonNull<T>,
    _map: PhantomData<&'a Mapped<T>>,
}

impl<T: Shared> Element<'_, T> {
    /// A copy of one 64-bit field, `offset` bytes into the element; `None` outside it.
    #[must_use]
    #[inline]
    pub fn u64(&self, offset: usize) -> Option<u64> {
        if offset + size_of::<u64>() > size_of::<T>() {
            return None;
        }
        // SAFETY: inside the element by the check above; layout assertions keep 64-bit fields aligned.
        Some(unsafe { self.at.byte_add(offset).cast::<u64>().read_volatile() })
    }

    /// A copy of one 32-bit field, `offset` bytes into the element; `None` outside it.
    #[must_use]
    #[inline]
    pub fn u32(&self, offset: usize) -> Option<u32> {
        if offset + size_of::<u32>() > size_of::<T>() {
            return None;
        }
        // SAFETY: inside the element by the check above; layout assertions keep 32-bit fields aligned.
        Some(unsafe { self.at.byte_add(offset).cast::<u32>().read_volatile() })
    }
}

fn offset_of_byte(bytes: usize) -> Result<i64, nix::Error> {
    i64::try_from(bytes).map_err(|_| nix::Error::EOVERFLOW)
}
