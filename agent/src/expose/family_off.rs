//! Building a metric family where kvmeter is built without metrics: nothing is written, and prometheus is not compiled.

use super::catalog::Metric;
use crate::account::Histogram;

/// A family that does not exist.
pub struct MetricFamily(pub(super) Vec<u8>);

/// Takes what a family would, and keeps none of it.
pub struct Family(Vec<u8>);

impl Family {
    /// Nothing.
    #[must_use]
    pub const fn new(_: &'static Metric) -> Self {
        Self(Vec::new())
    }

    /// Nothing behind this text.
    #[must_use]
    pub const fn of_vms(_: &'static Metric, text: Vec<u8>) -> Self {
        Self(text)
    }

    /// Nothing.
    #[must_use]
    pub const fn written(&self) -> usize {
        0
    }

    /// Nothing.
    #[must_use]
    pub const fn take(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Nothing.
    #[must_use]
    pub fn on(self, text: Vec<u8>) -> Self {
        Self(text)
    }

    /// Nothing.
    pub const fn vm(&mut self, _: &[u8]) {}

    /// Nothing.
    pub const fn push(&mut self, _: &[&str], _: f64) {}

    /// Nothing.
    pub const fn push_ns(&mut self, _: &[&str], _: u64) {}

    /// Nothing.
    pub const fn push_histogram(&mut self, _: &[&str], _: &Histogram) {}

    /// Nothing.
    #[must_use]
    pub fn done(self) -> MetricFamily {
        MetricFamily(self.0)
    }
}

/// Nothing.
#[must_use]
pub const fn vm_labels(_: &str, _: &str) -> Vec<u8> {
    Vec::new()
}

/// Nanoseconds as seconds.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
