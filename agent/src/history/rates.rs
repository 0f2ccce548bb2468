//! A sample is a rate between two readings: the first reading gives none, and what was not measured is absent.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    account::{CpuUsage, usage::percent},
    workload::Signal,
};

/// One point of a VM's line.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// RFC 3339.
    pub at: String,
    /// CPU use, 100 = one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Time runnable but not running, 100 = one thread waiting all the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_delay_percent: Option<f64>,
    /// Resident memory, hugetlb included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// Configured memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Bytes into the guest, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_in_bytes_per_sec: Option<f64>,
    /// Bytes out of the guest, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_out_bytes_per_sec: Option<f64>,
    /// Bytes read from storage, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_read_bytes_per_sec: Option<f64>,
    /// Bytes written to storage, a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_write_bytes_per_sec: Option<f64>,
    /// Requests a second, as the workload says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_sec: Option<f64>,
    /// The 95th percentile of their latency in milliseconds, as the workload says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p95_ms: Option<f64>,
}

/// What a sample is made from: cumulative numbers and levels of one instant. What was not measured is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// CPU time so far.
    pub cpu: Option<CpuUsage>,
    /// Bytes read from and written to storage so far.
    pub disk: Option<(u64, u64)>,
    /// Bytes into and out of the guest so far, of what was seen passing.
    pub network: Option<(u64, u64)>,
    /// Resident memory in bytes, hugetlb included.
    pub memory_used: Option<u64>,
    /// Configured memory in bytes.
    pub memory_limit: Option<u64>,
    /// What the workload says, of the time between two answers.
    pub workload: Option<Signal>,
}

/// What the next sample of a VM is made against, and the newest one.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// CLOCK_BOOTTIME nanoseconds of a reading, and the reading.
    last: Option<(u64, Reading)>,
    latest: Option<Arc<Sample>>,
}

impl Rates {
    /// Whether a reading at `boot_ns` (CLOCK_BOOTTIME) would be taken.
    #[must_use]
    pub fn is_due(&self, boot_ns: u64, spacing_ns: u64) -> bool {
        self.last.is_none_or(|(since, _)| boot_ns.saturating_sub(since) >= spacing_ns)
    }

    /// Takes a reading at `boot_ns` (CLOCK_BOOTTIME); makes a sample when at least `spacing_ns` have passed since the
    /// last one. `at` is the same instant for people.
    pub fn offer(&mut self, boot_ns: u64, spacing_ns: u64, at: &str, now: Reading) -> Option<&Arc<Sample>> {
        let Some((since, before)) = self.last else {
            self.last = Some((boot_ns, now));
            return None;
        };
        let elapsed = boot_ns.saturating_sub(since);
        if elapsed < spacing_ns {
            return None;
        }
        let share = |of: fn(&CpuUsage) -> u64| {
            let (now, before) = (now.cpu.as_ref().map(of)?, before.cpu.as_ref().map(of)?);
            percent(now.checked_sub(before)?, elapsed)
        };
        let rate = |now: Option<u64>, before: Option<u64>| {
            (elapsed > 0).then_some(now?.checked_sub(before?)? as f64 * 1e9 / elapsed as f64)
        };
        let first = |pair: Option<(u64, u64)>| pair.map(|(first, _)| first);
        let second = |pair: Option<(u64, u64)>| pair.map(|(_, second)| second);
        self.last = Some((boot_ns, now));
        Some(self.latest.insert(Arc::new(Sample {
            at: at.to_owned(),
            cpu_percent: share(CpuUsage::runtime_ns),
            cpu_delay_percent: share(CpuUsage::run_delay_ns),
            memory_used_bytes: now.memory_used,
            memory_limit_bytes: now.memory_limit,
            network_in_bytes_per_sec: rate(first(now.network), first(before.network)),
            network_out_bytes_per_sec: rate(second(now.network), second(before.network)),
            disk_read_bytes_per_sec: rate(first(now.disk), first(before.disk)),
            disk_write_bytes_per_sec: rate(second(now.disk), second(before.disk)),
            requests_per_sec: now.workload.and_then(|signal| signal.requests_per_sec),
            latency_p95_ms: now.workload.and_then(|signal| signal.latency_p95_ms),
        })))
    }

    /// The newest sample.
    #[must_use]
    pub fn latest(&self) -> Option<&Arc<Sample>> {
        self.latest.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Role;
    use kvmeter_common::vm::RoleTime;

    fn cpu(runtime_ns: u64) -> Reading {
        let mut usage = CpuUsage::default();
        *usage.of_mut(Role::Vcpu) = RoleTime { runtime_ns, run_delay_ns: 0 };
        Reading { cpu: Some(usage), ..Reading::default() }
    }

    #[test]
    fn the_first_reading_gives_no_rate() {
        let mut rates = Rates::default();
        assert!(rates.offer(0, 10, "a", cpu(5)).is_none());
        assert!(rates.latest().is_none());
        assert!(rates.offer(9, 10, "b", cpu(9)).is_none(), "too soon");
        assert_eq!(rates.offer(10, 10, "b", cpu(10)).unwrap().cpu_percent, Some(50.0));
        assert_eq!(rates.latest().unwrap().cpu_percent, Some(50.0));
    }

    #[test]
    fn bytes_are_told_by_the_second_and_only_between_two_readings() {
        let mut rates = Rates::default();
        let mut offer = |at, both| {
            rates.offer(at, 10, "x", Reading { disk: both, network: both, ..Reading::default() });
            let told = |s: &Arc<Sample>| (s.disk_read_bytes_per_sec, s.network_out_bytes_per_sec);
            rates.latest().map(told)
        };
        assert_eq!(offer(0, None), None);
        assert_eq!(offer(1_000_000_000, Some((500, 9))), Some((None, None)));
        assert_eq!(offer(3_000_000_000, Some((2_500, 9))), Some((Some(1_000.0), Some(0.0))));
    }

    #[test]
    fn what_was_not_measured_is_absent_and_never_zero() {
        let mut rates = Rates::default();
        rates.offer(0, 10, "a", Reading::default());
        rates.offer(10, 10, "b", cpu(10));
        let text = serde_json::to_string(rates.latest().unwrap().as_ref()).unwrap();
        assert_eq!(text, r#"{"at":"b"}"#);
    }
}
