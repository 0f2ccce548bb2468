//! Building one metric family: a catalogue row and its series, written as text at once.
//!
//! The prometheus crate would take each series as an object with an owned string for every name and value; making those
//! was most of a scrape's cost. What it checks, the catalogue's tests see to.

use super::catalog::Metric;
use crate::account::Histogram;

mod column;
mod number;
mod texts;

pub use column::{Column, OF_VM, end};
pub use texts::Texts;

/// What a series is of its family.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// All of it, and a whole number.
    Whole,
    /// Likewise, one that may have a fraction.
    Real,
    /// Likewise, a time.
    Time,
    /// Likewise, whose labels are what a VM is known by.
    Known,
    Bucket,
    Sum,
    Count,
}

impl Part {
    const ALL: [Self; 7] = [Self::Whole, Self::Real, Self::Time, Self::Known, Self::Bucket, Self::Sum, Self::Count];

    /// What its name ends with.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Whole | Self::Real | Self::Time | Self::Known => "",
            Self::Bucket => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
        }
    }
}

/// A family in the text format; empty if it has no series.
pub struct MetricFamily(pub(super) Vec<u8>);

impl Metric {
    /// What stands before a family's series.
    fn begin(&self, text: &mut Vec<u8>) {
        let kind = self.kind.as_str();
        let told = ["# HELP ", self.name, " ", self.help, "\n# TYPE ", self.name, " ", kind, "\n"];
        told.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
    }
}

/// A family under construction that is about no VM.
pub struct Family {
    metric: &'static Metric,
    text: Vec<u8>,
}

impl Family {
    /// An empty family of a catalogue row.
    #[must_use]
    pub const fn new(metric: &'static Metric) -> Self {
        Self { metric, text: Vec::new() }
    }

    /// Adds a series; `values` in the order of the row's labels.
    pub fn push(&mut self, values: &[&str], value: f64) {
        self.line(Part::Whole, values, None, value);
    }

    /// Adds a histogram; `values` as for [`Self::push`].
    pub fn push_histogram(&mut self, values: &[&str], histogram: &Histogram) {
        for (bound, count) in &histogram.buckets {
            self.line(Part::Bucket, values, Some(&shown(*bound)), *count as f64);
        }
        self.line(Part::Bucket, values, Some("+Inf"), histogram.count as f64);
        self.line(Part::Sum, values, None, histogram.sum);
        self.line(Part::Count, values, None, histogram.count as f64);
    }

    fn line(&mut self, part: Part, values: &[&str], bound: Option<&str>, value: f64) {
        let Self { metric, text } = self;
        if text.is_empty() {
            metric.begin(text);
        }
        text.extend_from_slice(metric.name.as_bytes());
        text.extend_from_slice(part.as_str().as_bytes());
        let labels = metric.labels.iter().copied().zip(values.iter().copied());
        let mut before = b'{';
        for (name, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            text.push(std::mem::replace(&mut before, b','));
            label(text, name, value);
        }
        text.extend_from_slice(if before == b'{' { b" " } else { b"} " });
        number::real(text, value);
        text.push(b'\n');
    }

    /// The family.
    #[must_use]
    pub fn done(self) -> MetricFamily {
        MetricFamily(self.text)
    }
}

/// A label.
#[inline]
pub fn label(text: &mut Vec<u8>, name: &str, value: &str) {
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"=\"");
    escape(text, value);
    text.push(b'"');
}

/// A label's value: a backslash, a quote and a new line are escaped.
#[inline]
fn escape(text: &mut Vec<u8>, value: &str) {
    // No early end: most values are short, and have none of them.
    if !value.bytes().fold(false, |any, byte| any | matches!(byte, b'\\' | b'"' | b'\n')) {
        return text.extend_from_slice(value.as_bytes());
    }
    for byte in value.bytes() {
        match byte {
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\\' | b'"' => text.extend_from_slice(&[b'\\', byte]),
            other => text.push(other),
        }
    }
}

fn shown(value: f64) -> String {
    let mut text = Vec::new();
    number::real(&mut text, value);
    text.into_iter().map(char::from).collect()
}

/// Nanoseconds as a number of seconds. Exact to the nanosecond up to 104 days, then to the next `f64`.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests;
