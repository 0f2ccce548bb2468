//! Building a metric family where kvmeter is built without metrics: nothing is kept, and prometheus is not compiled.

use super::catalog::Metric;
use crate::account::Histogram;

/// A family that does not exist.
pub struct MetricFamily;

/// Takes what a family would, and keeps none of it.
pub struct Family;

impl Family {
    /// Nothing.
    #[must_use]
    pub const fn new(_: &'static Metric) -> Self {
        Self
    }

    /// Nothing.
    pub const fn push(&mut self, _: &[&str], _: f64) {}

    /// Nothing.
    pub const fn push_histogram(&mut self, _: &[&str], _: &Histogram) {}

    /// Nothing.
    pub const fn done(self) -> MetricFamily {
        MetricFamily
    }
}

/// Nanoseconds as seconds.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
