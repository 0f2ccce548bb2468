//! The OTLP backend: counted in memory by OpenTelemetry's SDK, sent as protobuf over HTTP every ten seconds from a
//! thread of its own. What a collector does not take is in the next report, because sums are cumulative.

mod client;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, MeterProvider as _, UpDownCounter};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use tokio::runtime::Handle;

use self::client::Client;
use super::{MetricsCollector, Outcome, VmState};
use crate::config::Url;

/// Between two reports.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long a collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Reports to an OTLP collector. Clones count together.
#[derive(Clone)]
pub struct OtlpMetrics {
    provider: SdkMeterProvider,
    boot: Histogram<f64>,
    states: UpDownCounter<i64>,
    created: Counter<u64>,
    destroyed: Counter<u64>,
    runs: Counter<u64>,
    run_seconds: Histogram<f64>,
    cache: Counter<u64>,
}

impl OtlpMetrics {
    /// Reports to `collector` (its whole address, `/v1/metrics` included), with connections made on `runtime`.
    ///
    /// # Errors
    /// When the exporter cannot be built.
    pub fn new(collector: &Url, runtime: Handle) -> Result<Self, ExporterBuildError> {
        let exporter = MetricExporter::builder()
            .with_http()
            .with_http_client(Client::new(collector.clone(), runtime, TIMEOUT))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("http://{}{}", collector.authority, collector.path))
            .with_timeout(TIMEOUT)
            .build()?;
        let reader = PeriodicReader::builder(exporter).with_interval(INTERVAL).build();
        let resource = Resource::builder().with_service_name("kvmeter").build();
        let provider = SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build();
        let meter = provider.meter("kvmeter");
        let seconds =
            |name, bounds: &[f64]| meter.f64_histogram(name).with_unit("s").with_boundaries(bounds.to_vec()).build();
        Ok(Self {
            boot: seconds("kvmeter.vm.boot.duration", &[0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]),
            states: meter.i64_up_down_counter("kvmeter.vm.count").build(),
            created: meter.u64_counter("kvmeter.vm.created").build(),
            destroyed: meter.u64_counter("kvmeter.vm.destroyed").build(),
            runs: meter.u64_counter("kvmeter.hook.runs").build(),
            run_seconds: seconds("kvmeter.hook.duration", &[0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0]),
            cache: meter.u64_counter("kvmeter.identity_cache.lookups").build(),
            provider,
        })
    }

    /// Sends what there is now and waits for it; not for threads of a runtime.
    ///
    /// # Errors
    /// When the collector does not take it.
    pub fn flush(&self) -> Result<(), opentelemetry_sdk::error::OTelSdkError> {
        self.provider.force_flush()
    }
}

fn state_of(state: VmState) -> [KeyValue; 1] {
    [KeyValue::new("state", state.as_str())]
}

fn outcome_of(outcome: &'static str) -> [KeyValue; 1] {
    [KeyValue::new("outcome", outcome)]
}

impl MetricsCollector for OtlpMetrics {
    fn record_vm_boot(&self, duration_secs: f64) {
        self.boot.record(duration_secs, &[]);
    }
    fn inc_vm_state(&self, state: VmState) {
        self.states.add(1, &state_of(state));
    }
    fn dec_vm_state(&self, state: VmState) {
        self.states.add(-1, &state_of(state));
    }
    fn inc_vm_created(&self) {
        self.created.add(1, &[]);
    }
    fn inc_vm_destroyed(&self) {
        self.destroyed.add(1, &[]);
    }
    fn record_exec(&self, duration_secs: f64, success: bool) {
        self.record_run(duration_secs, if success { Outcome::Success } else { Outcome::Failure });
    }
    fn inc_cache_hit(&self) {
        self.cache.add(1, &outcome_of("hit"));
    }
    fn inc_cache_miss(&self) {
        self.cache.add(1, &outcome_of("miss"));
    }
    fn record_run(&self, duration_secs: f64, outcome: Outcome) {
        self.runs.add(1, &outcome_of(outcome.as_label()));
        self.run_seconds.record(duration_secs, &outcome_of(outcome.as_label()));
    }
}

#[cfg(test)]
mod tests;
