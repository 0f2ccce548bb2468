//! The virtual size of a VHDX, which stands in a table of a region that another table names ([MS-VHDX] 2.2.3, 2.6).

use std::io;

use super::format::{ReadAt, le32, le64};

/// Where the two copies of the region table lie.
const REGION_TABLES: [u64; 2] = [192 * 1024, 256 * 1024];
/// A table's length, and the most entries in one.
const TABLE_BYTES: usize = 64 * 1024;
const MAX_ENTRIES: u32 = 2_047;
const ENTRY_BYTES: usize = 32;
/// 8B7CA206-4790-4B9A-B8FE-575F050F886E, as a GUID lies on the disk.
const METADATA_REGION: [u8; 16] =
    [0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e];
/// 2FA54224-CD1B-4876-B211-5DBED83BF4B8.
const VIRTUAL_DISK_SIZE: [u8; 16] =
    [0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8];

/// Bytes the guest sees, or what is wrong with the tables.
pub(super) fn capacity(image: &impl ReadAt) -> io::Result<Result<u64, &'static str>> {
    let mut table = vec![0; TABLE_BYTES];
    let mut metadata = None;
    for at in REGION_TABLES {
        read(image, &mut table, at)?;
        if metadata.is_none() && table.starts_with(b"regi") {
            metadata = entry(&table, 16, le32(&table, 8), &METADATA_REGION).and_then(|at| le64(&table, at + 16));
        }
    }
    let Some(metadata) = metadata else { return Ok(Err("it has no table of regions that names its metadata")) };
    read(image, &mut table, metadata)?;
    let count = le32(&table, 8).map(|word| word >> 16);
    if !table.starts_with(b"metadata") {
        return Ok(Err("its metadata table is not where it should be"));
    }
    let Some(place) = entry(&table, 32, count, &VIRTUAL_DISK_SIZE).and_then(|at| le32(&table, at + 16)) else {
        return Ok(Err("its metadata has no virtual size"));
    };
    let mut size = [0; 8];
    let at = metadata.checked_add(u64::from(place)).ok_or(io::ErrorKind::InvalidData)?;
    Ok(if image.fill(&mut size, at)? == size.len() {
        Ok(u64::from_le_bytes(size))
    } else {
        Err("its virtual size lies beyond its end")
    })
}

/// Fills the table, with zeroes where the image ends.
fn read(image: &impl ReadAt, table: &mut [u8], at: u64) -> io::Result<()> {
    // Beyond this no file has anything, and the kernel refuses the place.
    let length = if at > i64::MAX.unsigned_abs() - TABLE_BYTES as u64 { 0 } else { image.fill(table, at)? };
    table.iter_mut().skip(length).for_each(|byte| *byte = 0);
    Ok(())
}

/// The place of the entry with this GUID.
fn entry(table: &[u8], first: usize, count: Option<u32>, guid: &[u8; 16]) -> Option<usize> {
    let count = count.filter(|count| *count <= MAX_ENTRIES)?;
    let places = (0..count as usize).map(|number| first + number * ENTRY_BYTES);
    places.into_iter().find(|at| table.get(*at..*at + guid.len()).is_some_and(|found| found == guid))
}
