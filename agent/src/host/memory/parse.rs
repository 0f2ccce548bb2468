//! The texts of `status`, `stat` and `smaps_rollup`. A line counts only if it is ended: a cut number is a wrong one.

use super::MemoryReading;

/// Resident memory by type, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Private pages that no file holds.
    pub anon_bytes: u64,
    /// Pages of files.
    pub file_bytes: u64,
    /// Shared memory: tmpfs, memfd, shared anonymous mappings.
    pub shmem_bytes: u64,
}

impl Resident {
    /// All of it.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.anon_bytes.saturating_add(self.file_bytes).saturating_add(self.shmem_bytes)
    }
}

/// Page faults, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// That needed no device.
    pub minor: u64,
    /// That had to wait for one.
    pub major: u64,
}

/// Lines that end, without their newline.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').and_then(|end| text.get(..end)).unwrap_or_default();
    whole.split(|byte| *byte == b'\n')
}

/// `   123 kB`, in bytes.
fn kilobytes(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim().strip_suffix(" kB")?;
    text.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// The memory lines of `status` (`task_mem`, fs/proc/task_mmu.c; `hugetlb_report_usage`, mm/hugetlb.c); `None` for a
/// task without memory of its own.
pub(super) fn status(text: &[u8]) -> Option<MemoryReading> {
    let (mut anon, mut file, mut shmem) = (None, None, None);
    let mut reading = MemoryReading::default();
    for line in lines(text) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (key, value) = line.split_at(colon);
        let place = match key {
            b"RssAnon" => &mut anon,
            b"RssFile" => &mut file,
            b"RssShmem" => &mut shmem,
            b"VmSwap" => &mut reading.swap_bytes,
            b"VmHWM" => &mut reading.peak_bytes,
            b"HugetlbPages" => &mut reading.hugetlb_bytes,
            _ => continue,
        };
        *place = kilobytes(value.get(1..).unwrap_or_default());
    }
    if let (Some(anon_bytes), Some(file_bytes), Some(shmem_bytes)) = (anon, file, shmem) {
        reading.resident = Some(Resident { anon_bytes, file_bytes, shmem_bytes });
    }
    (reading != MemoryReading::default()).then_some(reading)
}

/// A field of `stat`, counted from 1; the name before them ends at the last parenthesis, whatever it contains.
fn field(text: &[u8], number: usize) -> Option<u64> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let rest = lines(text.get(close + 1..)?).next()?;
    std::str::from_utf8(rest).ok()?.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// `min_flt` and `maj_flt` of the whole process.
pub(super) fn faults(text: &[u8]) -> Option<Faults> {
    Some(Faults { minor: field(text, 10)?, major: field(text, 12)? })
}

/// The start in clock ticks.
pub(super) fn start_ticks(text: &[u8]) -> Option<u64> {
    field(text, 22)
}

/// `Pss:` of `smaps_rollup`, bytes.
pub(super) fn pss(text: &[u8]) -> Option<u64> {
    lines(text).find_map(|line| kilobytes(line.strip_prefix(b"Pss:")?))
}
