//! Building one metric family: a catalogue row and its series.

use prometheus::proto;
pub use prometheus::proto::MetricFamily;

use super::catalog::{Metric, Type};
use crate::account::Histogram;

/// A family under construction.
pub struct Family {
    metric: &'static Metric,
    series: Vec<proto::Metric>,
}

fn pair(name: &str, value: &str) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

impl Family {
    /// An empty family of a catalogue row.
    #[must_use]
    pub fn new(metric: &'static Metric) -> Self {
        Self { metric, series: Vec::new() }
    }

    fn labelled(&self, values: &[&str]) -> proto::Metric {
        let labels = self.metric.labels.iter().zip(values).map(|(name, value)| pair(name, value)).collect();
        proto::Metric::from_label(labels)
    }

    /// Adds a series; `values` in the order of the row's labels.
    pub fn push(&mut self, values: &[&str], value: f64) {
        let mut series = self.labelled(values);
        if self.metric.kind == Type::Counter {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            series.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            series.set_gauge(gauge);
        }
        self.series.push(series);
    }

    /// Adds a histogram; `values` in the order of the row's labels.
    pub fn push_histogram(&mut self, values: &[&str], histogram: &Histogram) {
        let mut series = self.labelled(values);
        let mut proto_histogram = proto::Histogram::default();
        proto_histogram.set_sample_count(histogram.count);
        proto_histogram.set_sample_sum(histogram.sum);
        let bucket = |(bound, count): &(f64, u64)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        };
        proto_histogram.set_bucket(histogram.buckets.iter().map(bucket).collect());
        series.set_histogram(proto_histogram);
        self.series.push(series);
    }

    /// The family; empty ones are left out by the registry.
    #[must_use]
    pub fn done(self) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.kind {
            Type::Counter => proto::MetricType::COUNTER,
            Type::Gauge => proto::MetricType::GAUGE,
            Type::Histogram => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(self.series);
        family
    }
}

/// Nanoseconds as Prometheus wants time. Exact to the nanosecond up to 104 days, then to the next `f64`.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
