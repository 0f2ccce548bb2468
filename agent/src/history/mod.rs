//! The recent past of each VM: a bounded ring of samples. A sample is a rate between two readings; the first reading
//! gives none, and what was not measured is absent.

use std::{collections::VecDeque, sync::Arc};

use serde::Serialize;

use crate::account::{CpuUsage, usage::percent};

/// Samples a VM keeps in this version: one hour at the default interval.
pub const RING: usize = 360;

/// One point of a VM's line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// RFC 3339.
    pub at: String,
    /// CPU use, 100 = one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Time runnable but not running, 100 = one thread waiting all the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_delay_percent: Option<f64>,
    /// Bytes read from storage, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_read_bytes_per_sec: Option<f64>,
    /// Bytes written to storage, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_write_bytes_per_sec: Option<f64>,
    /// Resident memory, hugetlb included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// Configured memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
}

/// A reading the next sample is made against.
#[derive(Clone, Copy, Debug)]
struct Mark {
    boot_ns: u64,
    cpu: Option<CpuUsage>,
    /// Bytes read and written.
    disk: Option<(u64, u64)>,
}

/// One VM's ring.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    samples: VecDeque<Arc<Sample>>,
    last: Option<Mark>,
    disk: Option<(u64, u64)>,
}

impl Ring {
    /// Takes the bytes read from and written to storage so far, for the next [`Self::offer`].
    pub fn note_disk(&mut self, disk: Option<(u64, u64)>) {
        self.disk = disk;
    }

    /// Takes a reading at `boot_ns` (CLOCK_BOOTTIME); makes a sample when at least `spacing_ns` have passed since the
    /// last one, and says whether it did. `at` is the same instant for people.
    pub fn offer(
        &mut self,
        boot_ns: u64,
        spacing_ns: u64,
        at: &str,
        cpu: Option<CpuUsage>,
        used_bytes: Option<u64>,
        mem_bytes: u64,
    ) -> bool {
        let mark = Mark { boot_ns, cpu, disk: self.disk };
        let Some(last) = self.last else {
            self.last = Some(mark);
            return false;
        };
        let elapsed = boot_ns.saturating_sub(last.boot_ns);
        if elapsed < spacing_ns {
            return false;
        }
        let rate = |of: fn(&CpuUsage) -> u64| {
            let (now, before) = (cpu.as_ref().map(of)?, last.cpu.as_ref().map(of)?);
            percent(now.checked_sub(before)?, elapsed)
        };
        let per_second = |of: fn(&(u64, u64)) -> u64| {
            let (now, before) = (mark.disk.as_ref().map(of)?, last.disk.as_ref().map(of)?);
            (elapsed > 0).then_some(now.checked_sub(before)? as f64 * 1e9 / elapsed as f64)
        };
        self.samples.push_back(Arc::new(Sample {
            at: at.to_owned(),
            cpu_percent: rate(CpuUsage::runtime_ns),
            cpu_delay_percent: rate(CpuUsage::run_delay_ns),
            disk_read_bytes_per_sec: per_second(|(read, _)| *read),
            disk_write_bytes_per_sec: per_second(|(_, written)| *written),
            memory_used_bytes: used_bytes,
            memory_limit_bytes: (mem_bytes > 0).then_some(mem_bytes),
        }));
        if self.samples.len() > RING {
            self.samples.pop_front();
        }
        self.last = Some(mark);
        true
    }

    /// The newest sample.
    #[must_use]
    pub fn latest(&self) -> Option<&Arc<Sample>> {
        self.samples.back()
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Role;
    use kvmeter_common::vm::RoleTime;

    fn cpu(runtime_ns: u64) -> Option<CpuUsage> {
        let mut usage = CpuUsage::default();
        *usage.of_mut(Role::Vcpu) = RoleTime { runtime_ns, run_delay_ns: 0 };
        Some(usage)
    }

    #[test]
    fn the_first_reading_gives_no_rate() {
        let mut ring = Ring::default();
        ring.offer(0, 10, "a", cpu(5), None, 0);
        assert!(ring.is_empty());
        ring.offer(10, 10, "b", cpu(10), None, 0);
        assert_eq!(ring.latest().unwrap().cpu_percent, Some(50.0));
    }

    #[test]
    fn bytes_are_told_by_the_second_and_only_between_two_readings() {
        let mut ring = Ring::default();
        let mut offer = |at, disk| {
            ring.note_disk(disk);
            ring.offer(at, 10, "x", None, None, 0);
            ring.latest().map(|s| (s.disk_read_bytes_per_sec, s.disk_write_bytes_per_sec))
        };
        assert_eq!(offer(0, None), None);
        assert_eq!(offer(1_000_000_000, Some((500, 9))), Some((None, None)));
        assert_eq!(offer(3_000_000_000, Some((2_500, 9))), Some((Some(1_000.0), Some(0.0))));
    }

    #[test]
    fn what_was_not_measured_is_absent_and_never_zero() {
        let mut ring = Ring::default();
        ring.offer(0, 10, "a", None, None, 0);
        ring.offer(10, 10, "b", cpu(10), None, 0);
        let text = serde_json::to_string(ring.latest().unwrap().as_ref()).unwrap();
        assert_eq!(text, r#"{"at":"b"}"#);
    }

    #[test]
    fn the_ring_is_bounded() {
        let mut ring = Ring::default();
        for i in 0..10_000 {
            ring.offer(i * 10, 10, "x", cpu(i), None, 0);
        }
        assert_eq!(ring.len(), RING);
    }
}
