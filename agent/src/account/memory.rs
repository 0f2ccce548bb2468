//! What a VM holds of memory, and for how long. Pure.
//!
//! *Used* is what is resident and what it has of hugetlb. The integral over time is taken by trapezoids between two
//! readings, and by holding the last reading for as long as the kernel says that nothing moved, which is exact. Over an
//! interval `Δt` in which the memory's total variation was `v` (each rise and each fall added up) the trapezoid is off
//! by `½·Δt·v` at most, whatever the path: from `a` to `b` by way of a highest `h` it varies by `v ≥ (h−a)+(h−b)`, so
//! that `h` is above the mean `(a+b)/2` by `v/2` at most, and likewise for the lowest. Over a life the error is within
//! `½·Σ Δtᵢ·vᵢ ≤ ½·Δt·V`. Time without readings on both its ends adds nothing.

use crate::host::MemoryReading;
use crate::host::memory::{Faults, Resident};

/// A VM's memory as it was read last. What was not measured is absent. Bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Resident memory by type.
    pub resident: Option<Resident>,
    /// Memory of hugetlb, in none of the others.
    pub hugetlb_bytes: Option<u64>,
    /// Swapped out.
    pub swap_bytes: Option<u64>,
    /// The kernel's own mark of the most that was resident, hugetlb left out.
    pub peak_resident_bytes: Option<u64>,
    /// Resident, shared pages by their share.
    pub pss_bytes: Option<u64>,
    /// What its control group counts; absent where the group is not its own.
    pub cgroup_bytes: Option<u64>,
    /// Page faults of the VMM's threads and vCPUs on the host.
    pub faults: Option<Faults>,
    /// Faults of the guest that KVM handled, since the kernel programs first saw the VM.
    pub guest_faults: Option<u64>,
    /// Integral of used memory over the time that was observed; asked by [`Self::byte_ns`].
    pub integral: Integral,
    /// What was read last has held at every sample since, so its integral is a matter of the instant: nothing has to be
    /// written down, or made anew, for a VM whose memory stands still.
    pub stands: bool,
    /// The most there was used.
    pub peak_bytes: Option<u64>,
    /// Why nothing could be read; absent where it could.
    pub why_not: Option<std::sync::Arc<str>>,
    /// Why the control group is not told.
    pub cgroup_why_not: Option<std::sync::Arc<str>>,
    /// Whether it is read only where the kernel says that it moved.
    pub on_change: bool,
}

impl MemoryUsage {
    /// What it uses: resident and hugetlb.
    #[must_use]
    pub fn used_bytes(&self) -> Option<u64> {
        Some(self.resident?.bytes().saturating_add(self.hugetlb_bytes.unwrap_or(0)))
    }

    /// Byte-nanoseconds at `sampled_ns`, the newest sample's instant; absent if nothing was ever measured.
    #[must_use]
    pub fn byte_ns(&self, sampled_ns: u64) -> Option<u128> {
        if self.stands { self.integral.held(sampled_ns).byte_ns() } else { self.integral.byte_ns() }
    }

    /// Takes over a reading; counters never fall.
    pub fn take(&mut self, reading: &MemoryReading) {
        self.resident = reading.resident;
        self.hugetlb_bytes = reading.hugetlb_bytes;
        self.swap_bytes = reading.swap_bytes;
        self.peak_resident_bytes = self.peak_resident_bytes.max(reading.peak_bytes);
        if let Some(now) = reading.faults {
            let told = self.faults.unwrap_or_default();
            self.faults = Some(Faults { minor: now.minor.max(told.minor), major: now.major.max(told.major) });
        }
        self.peak_bytes = self.peak_bytes.max(reading.peak_bytes).max(self.used_bytes());
    }
}

/// The integral of one VM's used memory. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Integral {
    /// Absent until anything was read or told.
    byte_ns: Option<u128>,
    /// The last reading, or the last instant at which it still stood: nanoseconds and bytes.
    last: Option<(u64, u64)>,
}

impl Integral {
    /// Goes on from what an earlier agent told; the time in between stays out.
    #[must_use]
    pub fn after(told: Option<u128>) -> Self {
        Self { byte_ns: told, last: None }
    }

    /// Byte-nanoseconds so far; `None` if nothing was ever measured.
    #[must_use]
    pub fn byte_ns(&self) -> Option<u128> {
        self.byte_ns
    }

    /// A reading at an instant. One that is older than the last changes nothing.
    pub fn read(&mut self, at_ns: u64, bytes: u64) {
        if let Some((since, before)) = self.last {
            if at_ns < since {
                return;
            }
            // Half a byte-nanosecond is dropped at most, and always downwards.
            self.add((u128::from(before) + u128::from(bytes)).saturating_mul(u128::from(at_ns - since)) / 2);
        }
        self.byte_ns.get_or_insert(0);
        self.last = Some((at_ns, bytes));
    }

    /// Nothing has moved since the last reading, up to this instant.
    pub fn hold(&mut self, at_ns: u64) {
        if let Some((since, bytes)) = self.last
            && at_ns > since
        {
            self.add(u128::from(bytes) * u128::from(at_ns - since));
            self.last = Some((at_ns, bytes));
        }
    }

    /// As it would be had nothing moved up to this instant.
    #[must_use]
    pub fn held(mut self, at_ns: u64) -> Self {
        self.hold(at_ns);
        self
    }

    /// Something was not seen: what comes next begins anew.
    pub fn gap(&mut self) {
        self.last = None;
    }

    fn add(&mut self, byte_ns: u128) {
        self.byte_ns = Some(self.byte_ns.unwrap_or(0).saturating_add(byte_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A path in steps: at each instant (ns) the memory jumps to so many bytes.
    fn path() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((1u64..500, 0u64..1_000_000), 1..60).prop_map(|steps| {
            let mut at = 0;
            let mut path = vec![(0, 0)];
            path.extend(steps.into_iter().map(|(wait, bytes)| {
                at += wait;
                (at, bytes)
            }));
            path
        })
    }

    fn level(path: &[(u64, u64)], at: u64) -> u64 {
        path.iter().rev().find(|(since, _)| *since <= at).map_or(0, |(_, bytes)| *bytes)
    }

    fn truth(path: &[(u64, u64)], end: u64) -> u128 {
        let ends = path.iter().skip(1).map(|(at, _)| *at).chain([end]);
        path.iter()
            .zip(ends)
            .map(|((at, bytes), next)| u128::from(*bytes) * u128::from(next.min(end).saturating_sub(*at)))
            .sum()
    }

    /// Total variation inside `(from, to]`.
    fn variation(path: &[(u64, u64)], from: u64, to: u64) -> u128 {
        let pairs = path.windows(2).filter(|pair| pair[1].0 > from && pair[1].0 <= to);
        pairs.map(|pair| u128::from(pair[0].1.abs_diff(pair[1].1))).sum()
    }

    proptest! {
        #[test]
        fn the_integral_is_within_half_the_interval_times_the_variation(path in path(), every in 1u64..400, hold in any::<bool>()) {
            let end = path.last().unwrap().0 + 100;
            let (mut integral, mut bound, mut before) = (Integral::default(), 0u128, 0);
            integral.read(0, level(&path, 0));
            let mut at = 0;
            while at < end {
                at = (at + every).min(end);
                let v = variation(&path, before, at);
                if hold && v == 0 {
                    integral.hold(at);
                } else {
                    integral.read(at, level(&path, at));
                }
                bound += u128::from(at - before) * v;
                before = at;
                // Each trapezoid drops half a unit at most.
                bound += 1;
            }
            let (told, due) = (integral.byte_ns().unwrap(), truth(&path, end));
            prop_assert!(2 * told.abs_diff(due) <= bound, "told {told}, due {due}, twice the bound {bound}");
        }

        #[test]
        fn the_integral_never_falls_whatever_is_read(
            told in prop::option::of(any::<u64>()), events in prop::collection::vec((0u8..3, any::<u64>(), any::<u64>()), 0..50),
        ) {
            let mut integral = Integral::after(told.map(u128::from));
            let mut last = integral.byte_ns();
            for (kind, at, bytes) in events {
                match kind {
                    0 => integral.read(at, bytes),
                    1 => integral.hold(at),
                    _ => integral.gap(),
                }
                prop_assert!(integral.byte_ns() >= last);
                last = integral.byte_ns();
            }
        }

        #[test]
        fn time_that_was_not_observed_adds_nothing(told in any::<u32>(), at in 1u64..1_000, bytes in any::<u32>(), pause in any::<u32>()) {
            let mut integral = Integral::after(Some(told.into()));
            integral.read(at, bytes.into());
            prop_assert_eq!(integral.byte_ns(), Some(told.into()));
            integral.gap();
            integral.hold(at + u64::from(pause));
            integral.read(at + u64::from(pause), bytes.into());
            prop_assert_eq!(integral.byte_ns(), Some(told.into()));
        }
    }

    #[test]
    fn memory_that_stands_still_is_integrated_exactly() {
        let mut integral = Integral::default();
        assert_eq!(integral.byte_ns(), None, "not measured is absent");
        integral.read(1_000, 7);
        integral.hold(2_001);
        integral.hold(1_500);
        integral.read(3_000, 7);
        assert_eq!(integral.byte_ns(), Some(7 * 2_000));
    }

    #[test]
    fn a_peak_and_a_counter_never_fall_and_hugetlb_counts_as_used() {
        let mut usage = MemoryUsage::default();
        let resident = Some(Resident { anon_bytes: 10, file_bytes: 2, shmem_bytes: 3 });
        let faults = Some(Faults { minor: 9, major: 1 });
        usage.take(&MemoryReading {
            resident,
            hugetlb_bytes: Some(100),
            peak_bytes: Some(20),
            faults,
            swap_bytes: None,
        });
        assert_eq!((usage.used_bytes(), usage.peak_bytes, usage.peak_resident_bytes), (Some(115), Some(115), Some(20)));
        usage.take(&MemoryReading { faults: Some(Faults { minor: 8, major: 2 }), ..MemoryReading::default() });
        assert_eq!((usage.used_bytes(), usage.peak_bytes, usage.peak_resident_bytes), (None, Some(115), Some(20)));
        assert_eq!(usage.faults, Some(Faults { minor: 9, major: 2 }));
    }
}
