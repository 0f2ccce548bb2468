//! Building a metric family where kvmeter is built without metrics: nothing is written, and prometheus is not compiled.

use kvmeter_common::limits::BUCKETS;

use super::{catalog::Metric, known::Known};
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
    #[must_use]
    pub const fn done(self) -> MetricFamily {
        MetricFamily
    }
}

/// The same about VMs.
pub struct Column;

impl Column {
    /// Nothing.
    #[must_use]
    pub const fn new(_: &'static Metric) -> Self {
        Self
    }

    /// Nothing.
    pub const fn vm(&mut self, _: u32) {}

    /// Nothing.
    pub const fn reserve(&mut self, _: usize) {}

    /// Nothing.
    pub const fn push(&mut self, _: u64) {}

    /// Nothing.
    pub const fn push_real(&mut self, _: f64) {}

    /// Nothing.
    pub const fn push_known(&mut self) {}

    /// Nothing.
    pub const fn push_ns(&mut self, _: u64) {}

    /// Nothing.
    pub const fn push_word(&mut self, _: &'static str, _: u64) {}

    /// Nothing.
    pub const fn push_word_ns(&mut self, _: &'static str, _: u64) {}

    /// Nothing.
    pub const fn push_of(&mut self, _: &[&str], _: u64) {}

    /// Nothing.
    pub const fn push_ns_of(&mut self, _: &[&str], _: u64) {}

    /// Nothing.
    pub const fn push_histogram(&mut self, _: &[u64; BUCKETS - 1], _: &[u64; BUCKETS], _: u64) {}

    /// Nothing.
    #[must_use]
    pub const fn write(&self, _: usize, _: usize, _: &Known, _: &mut Vec<u8>) -> Option<usize> {
        None
    }
}

/// The two labels that every series of a VM begins with.
pub const OF_VM: usize = 2;

/// No labels.
pub fn end<'a>(_: &mut Vec<u8>, _: impl Iterator<Item = (&'a str, &'a str)>) {}

/// No texts.
#[derive(Debug, Default)]
pub struct Texts;

impl Texts {
    /// Nothing.
    pub fn push(&mut self, _: impl FnOnce(&mut Vec<u8>)) {}

    /// Nothing.
    pub const fn push_vm(&mut self, _: &str, _: &str) {}
}

/// Nanoseconds as seconds.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
