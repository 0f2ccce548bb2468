//! An image's format and virtual size by its header.
//!
//! Headers are written by guests and strangers: reads are bounded, every number is checked, nothing is allocated by a
//! length that the header gives, and what does not fit is an error that says which field. Sources: qemu's
//! docs/interop/qcow2.txt, VMware's "Virtual Disk Format 1.1", [MS-VHDX], qemu's block/vdi.c.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::vhdx;

/// What is read of the beginning: qcow2's header extensions and a VMDK descriptor are in it.
pub const HEAD_BYTES: usize = 64 * 1024;
/// The longest name of another file that is believed (qcow2's own bound is 1023).
const MAX_NAME: usize = 1_023;
/// Files that one image may consist of.
const MAX_PARTS: usize = 256;
const SECTOR: u64 = 512;

/// How a disk's contents are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Sector by sector.
    Raw,
    /// QEMU's first.
    Qcow,
    /// QEMU's.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
    /// VirtualBox's.
    Vdi,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Raw, Self::Qcow, Self::Qcow2, Self::Vmdk, Self::Vhdx, Self::Vdi];

    /// Its name, also to `qemu-img`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
        }
    }

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format.
    pub format: Format,
    /// Bytes the guest sees; the reason where the header does not say.
    pub capacity_bytes: Result<u64, &'static str>,
    /// The file this one is a change to, as the header spells it.
    pub backing: Option<String>,
    /// Files that hold this one's data, as the header spells them.
    pub parts: Vec<String>,
}

impl Header {
    pub(super) fn of(format: Format, capacity_bytes: Result<u64, &'static str>) -> Self {
        Self { format, capacity_bytes, backing: None, parts: Vec::new() }
    }
}

/// Something that can be read at a place: a file, or a test's bytes.
pub trait ReadAt {
    /// As `pread`: what is there, possibly less.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills the buffer as far as there is something.
    ///
    /// # Errors
    /// The system's.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset.saturating_add(done as u64))? {
                0 => break,
                more => done += more,
            }
        }
        Ok(done)
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Ok(length)
    }
}

/// The header of an image; `None` where no known format's magic is, which is what a raw image looks like.
///
/// # Errors
/// If it cannot be read.
pub fn read(image: &impl ReadAt) -> io::Result<Option<Header>> {
    let mut head = vec![0; HEAD_BYTES];
    let length = image.fill(&mut head, 0)?;
    head.truncate(length);
    if head.starts_with(b"QFI\xfb") {
        return Ok(Some(qcow(&head)));
    }
    if head.starts_with(b"KDMV") {
        let sectors = le64(&head, 12).and_then(|sectors| sectors.checked_mul(SECTOR));
        return Ok(Some(Header::of(Format::Vmdk, sectors.ok_or("its header has no usable capacity"))));
    }
    if head.starts_with(b"COWD") {
        let sectors = le32(&head, 12).map(|sectors| u64::from(sectors) * SECTOR);
        return Ok(Some(Header::of(Format::Vmdk, sectors.ok_or("its header has no usable capacity"))));
    }
    if head.starts_with(b"# Disk DescriptorFile") {
        return Ok(Some(descriptor(&head)));
    }
    if head.starts_with(b"vhdxfile") {
        return vhdx::capacity(image).map(|capacity| Some(Header::of(Format::Vhdx, capacity)));
    }
    // Virtual size at 0x170 since version 1.1; older ones have it elsewhere.
    if le32(&head, 64) == Some(0xbeda_107f) {
        let size = le32(&head, 68).filter(|version| *version == 0x0001_0001).and_then(|_| le64(&head, 0x170));
        return Ok(Some(Header::of(Format::Vdi, size.ok_or("it is of a version other than 1.1"))));
    }
    Ok(None)
}

fn qcow(head: &[u8]) -> Header {
    let version = be32(head, 4);
    let size = be64(head, 24).ok_or("its header is cut");
    let mut header = match version {
        Some(1) => Header::of(Format::Qcow, size),
        Some(2 | 3) => Header::of(Format::Qcow2, size),
        _ => return Header::of(Format::Qcow2, Err("it is of a version other than 1 to 3")),
    };
    let (at, length) = (be64(head, 8).unwrap_or(0), be32(head, 16).unwrap_or(0));
    if at != 0 && length != 0 {
        header.backing = text(head, at, length as usize);
    }
    // Bit 2 of the incompatible features: the data lies in another file, which an extension of the header names.
    if version == Some(3) && be64(head, 72).is_some_and(|features| features & 4 != 0) {
        header.parts.extend(data_file(head));
    }
    header
}

/// The header extension that names an external data file.
fn data_file(head: &[u8]) -> Option<String> {
    let mut at = u64::from(be32(head, 100)?);
    for _ in 0..64 {
        let place = usize::try_from(at).ok()?;
        let (kind, length) = (be32(head, place)?, be32(head, place.checked_add(4)?)?);
        match kind {
            0 => return None,
            0x4441_5441 => return text(head, at + 8, length as usize),
            _ => at = at.checked_add(8)?.checked_add(u64::from(length).next_multiple_of(8))?,
        }
    }
    None
}

/// A VMDK's description in words: its extents, in sectors, with the files that hold them.
fn descriptor(head: &[u8]) -> Header {
    let mut header = Header::of(Format::Vmdk, Err("it names no extents"));
    let mut sectors: Option<u64> = Some(0);
    for line in String::from_utf8_lossy(head).lines() {
        let mut words = line.split_ascii_whitespace();
        if !matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS")) {
            continue;
        }
        let more = words.next().and_then(|number| number.parse().ok());
        sectors = sectors.zip(more).and_then(|(sum, more): (u64, u64)| sum.checked_add(more));
        let name = line.split('"').nth(1).filter(|name| name.len() <= MAX_NAME);
        if header.parts.len() < MAX_PARTS {
            header.parts.extend(name.map(str::to_owned));
        }
        header.capacity_bytes =
            sectors.and_then(|sectors| sectors.checked_mul(SECTOR)).ok_or("its extents have no usable size");
    }
    header
}

fn text(head: &[u8], at: u64, length: usize) -> Option<String> {
    let at = usize::try_from(at).ok()?;
    let bytes = head.get(at..at.checked_add(length.min(MAX_NAME))?)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn bytes<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn be32(head: &[u8], at: usize) -> Option<u32> {
    bytes(head, at).map(u32::from_be_bytes)
}

fn be64(head: &[u8], at: usize) -> Option<u64> {
    bytes(head, at).map(u64::from_be_bytes)
}

pub(super) fn le32(head: &[u8], at: usize) -> Option<u32> {
    bytes(head, at).map(u32::from_le_bytes)
}

pub(super) fn le64(head: &[u8], at: usize) -> Option<u64> {
    bytes(head, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
