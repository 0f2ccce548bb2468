//! The StatsD backend: one datagram a count, from a thread of its own behind a bounded queue.
//!
//! Gauges are told as they stand, so a datagram that is lost puts nothing off for good.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::RefUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cadence::{Counted as _, Gauged as _, MetricError, QueuingMetricSink, StatsdClient, Timed as _, UdpMetricSink};

use super::{MetricsCollector, Outcome, VmState};

/// Counts that may wait for the thread.
const QUEUE: usize = 1_024;

/// Called for each count that is not sent.
type Lost = Arc<dyn Fn() + RefUnwindSafe + Send + Sync>;

/// Sends to a StatsD server. Clones share the queue.
#[derive(Clone)]
pub struct StatsdMetrics {
    client: Arc<StatsdClient>,
    states: Arc<[AtomicU64; VmState::ALL.len()]>,
    lost: Lost,
}

impl StatsdMetrics {
    /// Sends to `server`; `lost` is called for each count that is not sent.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(server: SocketAddr, lost: impl Fn() + RefUnwindSafe + Send + Sync + 'static) -> io::Result<Self> {
        let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        let sink = UdpMetricSink::from(server, socket).map_err(io::Error::other)?;
        let lost: Lost = Arc::new(lost);
        let unsent = Arc::clone(&lost);
        let queue = QueuingMetricSink::builder().with_capacity(QUEUE).with_error_handler(move |_| unsent()).build(sink);
        let client = Arc::new(StatsdClient::builder("kvmeter", queue).build());
        Ok(Self { client, states: Arc::default(), lost })
    }

    fn count(&self, name: &str) {
        self.told(self.client.count(name, 1u64));
    }

    fn time(&self, name: &str, seconds: f64) {
        let length = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        // Whole milliseconds are all that plain StatsD has; what is shorter than one is one.
        let ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1);
        self.told(self.client.time(name, ms));
    }

    fn state(&self, state: VmState, now: u64) {
        self.told(self.client.gauge(&format!("vms.{}", state.as_str()), now));
    }

    fn told<T>(&self, sent: Result<T, MetricError>) {
        if sent.is_err() {
            (self.lost)();
        }
    }
}

impl MetricsCollector for StatsdMetrics {
    fn record_vm_boot(&self, duration_secs: f64) {
        self.time("vm.boot", duration_secs);
    }
    fn inc_vm_state(&self, state: VmState) {
        let now = self.states[state as usize].fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.state(state, now);
    }
    fn dec_vm_state(&self, state: VmState) {
        let less = |now: u64| Some(now.saturating_sub(1));
        let before = self.states[state as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.state(state, before.unwrap_or_default().saturating_sub(1));
    }
    fn inc_vm_created(&self) {
        self.count("vms.created");
    }
    fn inc_vm_destroyed(&self) {
        self.count("vms.destroyed");
    }
    fn record_exec(&self, duration_secs: f64, success: bool) {
        self.record_run(duration_secs, if success { Outcome::Success } else { Outcome::Failure });
    }
    fn inc_cache_hit(&self) {
        self.count("identity_cache.hit");
    }
    fn inc_cache_miss(&self) {
        self.count("identity_cache.miss");
    }
    fn record_run(&self, duration_secs: f64, outcome: Outcome) {
        self.count(&format!("hook.runs.{}", outcome.as_label()));
        self.time(&format!("hook.duration.{}", outcome.as_label()), duration_secs);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::metrics::tests::everything;

    #[test]
    fn a_real_socket_gets_every_count() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        let metrics = StatsdMetrics::new(server.local_addr().unwrap(), count).unwrap();
        everything(&metrics.clone());
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for _ in 0..15 {
            let mut bytes = [0; 512];
            let length = server.recv(&mut bytes).unwrap();
            let text = std::str::from_utf8(&bytes[..length]).unwrap();
            let (name, value) = text.split_once(':').unwrap();
            told.entry(name.to_owned()).or_default().push(value.to_owned());
        }
        let expected = [
            ("kvmeter.hook.duration.failure", vec!["500|ms"]),
            ("kvmeter.hook.duration.success", vec!["500|ms"]),
            ("kvmeter.hook.duration.timeout", vec!["1500|ms"]),
            ("kvmeter.hook.runs.failure", vec!["1|c"]),
            ("kvmeter.hook.runs.success", vec!["1|c"]),
            ("kvmeter.hook.runs.timeout", vec!["1|c"]),
            ("kvmeter.identity_cache.hit", vec!["1|c"]),
            ("kvmeter.identity_cache.miss", vec!["1|c"]),
            ("kvmeter.vm.boot", vec!["250|ms"]),
            ("kvmeter.vms.created", vec!["1|c"]),
            ("kvmeter.vms.destroyed", vec!["1|c"]),
            ("kvmeter.vms.running", vec!["1|g", "2|g", "1|g"]),
            ("kvmeter.vms.stopped", vec!["1|g"]),
        ];
        let told: Vec<(&str, Vec<&str>)> =
            told.iter().map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect())).collect();
        assert_eq!(told, expected);
        assert_eq!(lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_flood_waits_for_nobody() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let metrics = StatsdMetrics::new(server.local_addr().unwrap(), || ()).unwrap();
        let began = std::time::Instant::now();
        (0..100_000).for_each(|_| metrics.inc_cache_hit());
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }
}
