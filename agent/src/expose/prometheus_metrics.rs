//! The Prometheus backend of [`MetricsCollector`]: a few metrics in a registry that its maker owns and may share.
//!
//! Names, labels and help are the catalogue's. What is told of each VM is no part of it: that is built from the snapshot
//! at a scrape, so that nothing of it has to be unregistered.

use std::sync::Arc;

use prometheus::{
    Counter, CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Registry, proto::MetricFamily,
};

use super::catalog::{self, Metric};
use crate::metrics::{MetricsCollector, Outcome, VmState};

/// Bounds of `kvmeter_vm_boot_seconds`.
const BOOT_BOUNDS: [f64; 8] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Bounds of `kvmeter_hook_duration_seconds`.
const RUN_BOUNDS: [f64; 11] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];

/// Counts into a Prometheus registry. Clones count into the same.
#[derive(Clone)]
pub struct PrometheusMetrics {
    registry: Arc<Registry>,
    boot: Histogram,
    states: GaugeVec,
    created: Counter,
    destroyed: Counter,
    runs: CounterVec,
    run_seconds: HistogramVec,
    cache: CounterVec,
}

fn opts(metric: &Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

fn histogram(metric: &Metric, bounds: &[f64]) -> HistogramOpts {
    HistogramOpts::new(metric.name, metric.help).buckets(bounds.to_vec())
}

impl PrometheusMetrics {
    /// Registers its metrics in a registry that others may use as well. Every label value is there from the start.
    ///
    /// # Errors
    /// When the registry has one of these names already.
    pub fn new(registry: Arc<Registry>) -> prometheus::Result<Self> {
        let metrics = Self {
            boot: Histogram::with_opts(histogram(&catalog::VM_BOOT, &BOOT_BOUNDS))?,
            states: GaugeVec::new(opts(&catalog::VMS), catalog::VMS.labels)?,
            created: Counter::with_opts(opts(&catalog::VMS_CREATED))?,
            destroyed: Counter::with_opts(opts(&catalog::VMS_DESTROYED))?,
            runs: CounterVec::new(opts(&catalog::HOOK_RUNS), catalog::HOOK_RUNS.labels)?,
            run_seconds: HistogramVec::new(
                histogram(&catalog::HOOK_DURATION, &RUN_BOUNDS),
                catalog::HOOK_DURATION.labels,
            )?,
            cache: CounterVec::new(opts(&catalog::IDENTITY_CACHE), catalog::IDENTITY_CACHE.labels)?,
            registry,
        };
        metrics.register()?;
        VmState::ALL.iter().for_each(|state| metrics.states.with_label_values(&[state.as_str()]).set(0.0));
        for outcome in Outcome::ALL.map(Outcome::as_label) {
            metrics.runs.with_label_values(&[outcome]);
            metrics.run_seconds.with_label_values(&[outcome]);
        }
        ["hit", "miss"].iter().for_each(|outcome| drop(metrics.cache.with_label_values(&[outcome])));
        Ok(metrics)
    }

    /// The same in a registry of its own.
    ///
    /// # Errors
    /// None that can happen; the registry's own.
    pub fn new_isolated() -> prometheus::Result<Self> {
        Self::new(Arc::new(Registry::new()))
    }

    fn register(&self) -> prometheus::Result<()> {
        self.registry.register(Box::new(self.boot.clone()))?;
        self.registry.register(Box::new(self.states.clone()))?;
        self.registry.register(Box::new(self.created.clone()))?;
        self.registry.register(Box::new(self.destroyed.clone()))?;
        self.registry.register(Box::new(self.runs.clone()))?;
        self.registry.register(Box::new(self.run_seconds.clone()))?;
        self.registry.register(Box::new(self.cache.clone()))
    }

    /// Everything in the registry, as a scrape shows it.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The registry.
    #[must_use]
    pub const fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

impl MetricsCollector for PrometheusMetrics {
    fn record_vm_boot(&self, duration_secs: f64) {
        self.boot.observe(duration_secs);
    }
    fn inc_vm_state(&self, state: VmState) {
        self.states.with_label_values(&[state.as_str()]).inc();
    }
    fn dec_vm_state(&self, state: VmState) {
        self.states.with_label_values(&[state.as_str()]).dec();
    }
    fn inc_vm_created(&self) {
        self.created.inc();
    }
    fn inc_vm_destroyed(&self) {
        self.destroyed.inc();
    }
    fn record_exec(&self, duration_secs: f64, success: bool) {
        self.record_run(duration_secs, if success { Outcome::Success } else { Outcome::Failure });
    }
    fn inc_cache_hit(&self) {
        self.cache.with_label_values(&["hit"]).inc();
    }
    fn inc_cache_miss(&self) {
        self.cache.with_label_values(&["miss"]).inc();
    }
    fn record_run(&self, duration_secs: f64, outcome: Outcome) {
        self.runs.with_label_values(&[outcome.as_label()]).inc();
        self.run_seconds.with_label_values(&[outcome.as_label()]).observe(duration_secs);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder as _, TextEncoder};

    use super::*;
    use crate::metrics::tests::everything;

    fn text(metrics: &PrometheusMetrics) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&metrics.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_is_counted_stands_under_the_catalogues_names() {
        let metrics = PrometheusMetrics::new_isolated().unwrap();
        everything(&metrics.clone());
        let text = text(&metrics);
        for line in [
            "kvmeter_vm_boot_seconds_bucket{le=\"0.5\"} 1",
            "kvmeter_vm_boot_seconds_bucket{le=\"0.1\"} 0",
            "kvmeter_vms{state=\"running\"} 1",
            "kvmeter_vms{state=\"paused\"} 0",
            "kvmeter_vms{state=\"stopped\"} 1",
            "kvmeter_vms_created_total 1",
            "kvmeter_vms_destroyed_total 1",
            "kvmeter_hook_runs_total{outcome=\"success\"} 1",
            "kvmeter_hook_runs_total{outcome=\"failure\"} 1",
            "kvmeter_hook_runs_total{outcome=\"canceled\"} 0",
            "kvmeter_hook_runs_total{outcome=\"timeout\"} 1",
            "kvmeter_hook_duration_seconds_sum{outcome=\"timeout\"} 1.5",
            "kvmeter_hook_duration_seconds_count{outcome=\"canceled\"} 0",
            "kvmeter_identity_cache_total{outcome=\"hit\"} 1",
            "kvmeter_identity_cache_total{outcome=\"miss\"} 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in\n{text}");
        }
        for family in metrics.gather() {
            assert!(catalog::all().any(|row| row.name == family.name() && row.help == family.help()));
        }
    }

    #[test]
    fn a_registry_can_be_shared_and_takes_each_name_once() {
        let registry = Arc::new(Registry::new());
        let own = Counter::with_opts(Opts::new("somebody_elses_total", "Not ours.")).unwrap();
        registry.register(Box::new(own)).unwrap();
        let metrics = PrometheusMetrics::new(Arc::clone(&registry)).unwrap();
        assert!(Arc::ptr_eq(metrics.registry(), &registry));
        assert!(text(&metrics).contains("somebody_elses_total"));
        assert!(PrometheusMetrics::new(registry).is_err(), "a second one would count in two places");
        let apart = PrometheusMetrics::new_isolated().unwrap();
        apart.inc_vm_created();
        assert!(text(&metrics).contains("kvmeter_vms_created_total 0"));
    }
}
