//! Building one metric family: a catalogue row and its series, written as text at once.
//!
//! The prometheus crate would take each series as an object with an owned string for every name and value; making those
//! was most of a scrape's cost. What it checks, the catalogue's tests see to.

use std::ops::Range;

use super::catalog::Metric;
use crate::account::Histogram;

/// The two labels that every series of a VM begins with.
const OF_VM: usize = 2;
/// Below this a whole number is an `f64` without rounding.
const WHOLE: u64 = 1 << 53;

/// What a series' name ends with.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Whole,
    Bucket,
    Sum,
    Count,
}

impl Part {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Bucket => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
        }
    }
}

/// A family in the text format; empty if it has no series.
pub struct MetricFamily(pub(super) Vec<u8>);

/// A family under construction.
pub struct Family {
    metric: &'static Metric,
    text: Vec<u8>,
    begun: bool,
    /// Where the last line's name and the VM's labels stand: the next line often begins with them.
    head: Option<(Part, Range<usize>)>,
    /// `vm_id` and `name` of the VM whose series come, as they are written; empty in a family of no VM.
    common: Vec<u8>,
    /// What stands before each of the other labels' values.
    keys: Vec<String>,
    /// Bounds of a histogram's buckets as they are written: all series have the same.
    bounds: Vec<String>,
}

impl Family {
    /// An empty family of a catalogue row.
    #[must_use]
    pub fn new(metric: &'static Metric) -> Self {
        let before = |place: usize| if place == 0 { "" } else { "," };
        let keys =
            metric.labels.iter().enumerate().map(|(place, name)| format!("{}{name}=\"", before(place))).collect();
        Self { metric, text: Vec::new(), begun: false, head: None, common: Vec::new(), keys, bounds: Vec::new() }
    }

    /// An empty family of a row about VMs, written behind this text. Before the first series a VM has to be told.
    #[must_use]
    pub fn of_vms(metric: &'static Metric, text: Vec<u8>) -> Self {
        let mut family = Self { text, ..Self::new(metric) };
        family.keys.drain(..OF_VM.min(metric.labels.len()));
        family
    }

    /// How much text there is.
    #[must_use]
    pub const fn written(&self) -> usize {
        self.text.len()
    }

    /// Takes the text so far. Before the next series a VM has to be told, and what is to be written behind.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.head = None;
        std::mem::take(&mut self.text)
    }

    /// The same family, going on behind this text.
    #[must_use]
    pub fn on(self, text: Vec<u8>) -> Self {
        Self { text, head: None, ..self }
    }

    /// The VM whose series come now, by its labels from [`vm_labels`].
    pub fn vm(&mut self, labels: &[u8]) {
        self.head = None;
        self.common.clear();
        self.common.extend_from_slice(labels);
    }

    /// Adds a series; `values` in the order of the row's labels, those of the VM left out.
    pub fn push(&mut self, values: &[&str], value: f64) {
        self.line(Part::Whole, values, None, value);
    }

    /// Adds a series of time, nanoseconds, which Prometheus wants as seconds: written to the last of them.
    pub fn push_ns(&mut self, values: &[&str], ns: u64) {
        self.labels(Part::Whole, values, None);
        write_ns(&mut self.text, ns);
        self.text.push(b'\n');
    }

    /// Adds a histogram, with the same bounds as others of this family; `values` as for [`Self::push`].
    pub fn push_histogram(&mut self, values: &[&str], histogram: &Histogram) {
        if self.bounds.is_empty() {
            let before = if self.metric.labels.is_empty() { "" } else { "," };
            let bounds = histogram.buckets.iter().map(|(bound, _)| shown(*bound)).chain(["+Inf".to_owned()]);
            self.bounds = bounds.map(|bound| format!("{before}le=\"{bound}\"")).collect();
        }
        let counts = histogram.buckets.iter().map(|(_, count)| *count).chain([histogram.count]);
        for (place, count) in counts.enumerate() {
            self.line(Part::Bucket, values, Some(place), count as f64);
        }
        self.line(Part::Sum, values, None, histogram.sum);
        self.line(Part::Count, values, None, histogram.count as f64);
    }

    fn line(&mut self, part: Part, values: &[&str], bound: Option<usize>, value: f64) {
        self.labels(part, values, bound);
        write(&mut self.text, value);
        self.text.push(b'\n');
    }

    /// All of a line but its value.
    fn labels(&mut self, part: Part, values: &[&str], bound: Option<usize>) {
        let bare = self.common.is_empty() && values.is_empty() && bound.is_none();
        self.begin(part, bare);
        let Self { text, keys, bounds, .. } = self;
        for (key, value) in keys.iter().zip(values) {
            text.extend_from_slice(key.as_bytes());
            escape(text, value);
            text.push(b'"');
        }
        if let Some(bound) = bound.and_then(|place| bounds.get(place)) {
            text.extend_from_slice(bound.as_bytes());
        }
        text.extend_from_slice(if bare { b" " } else { b"} " });
    }

    /// The line's name and the VM's labels.
    fn begin(&mut self, part: Part, bare: bool) {
        let Self { metric, text, begun, common, head, .. } = self;
        match head {
            Some((known, range)) if *known == part => text.extend_from_within(range.clone()),
            _ => {
                if !std::mem::replace(begun, true) {
                    let kind = metric.kind.as_str();
                    let told = ["# HELP ", metric.name, " ", metric.help, "\n# TYPE ", metric.name, " ", kind, "\n"];
                    told.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
                }
                let from = text.len();
                text.extend_from_slice(metric.name.as_bytes());
                text.extend_from_slice(part.as_str().as_bytes());
                if !bare {
                    text.push(b'{');
                    text.extend_from_slice(common);
                }
                *head = Some((part, from..text.len()));
            }
        }
    }

    /// The family.
    #[must_use]
    pub fn done(self) -> MetricFamily {
        MetricFamily(self.text)
    }
}

/// The labels of a VM as they are written, once for all its series.
#[must_use]
pub fn vm_labels(vm_id: &str, name: &str) -> Vec<u8> {
    let mut text = b"vm_id=\"".to_vec();
    escape(&mut text, vm_id);
    text.extend_from_slice(b"\",name=\"");
    escape(&mut text, name);
    text.push(b'"');
    text
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

#[inline]
fn write(text: &mut Vec<u8>, value: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared with what it was")]
    let whole = value as u64;
    if whole < WHOLE && whole as f64 == value {
        text.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else if value.is_finite() {
        text.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        let word = if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        };
        text.extend_from_slice(word.as_bytes());
    }
}

/// Seconds to the nanosecond, without zeros at the end.
#[inline]
fn write_ns(text: &mut Vec<u8>, ns: u64) {
    const SECOND: u64 = 1_000_000_000;
    text.extend_from_slice(itoa::Buffer::new().format(ns / SECOND).as_bytes());
    let rest = ns % SECOND;
    if rest > 0 {
        // With a one before it, it has its zeros.
        let mut digits = itoa::Buffer::new();
        let nine = digits.format(SECOND + rest)[1..].trim_end_matches('0');
        text.push(b'.');
        text.extend_from_slice(nine.as_bytes());
    }
}

fn shown(value: f64) -> String {
    let mut text = Vec::new();
    write(&mut text, value);
    text.into_iter().map(char::from).collect()
}

/// Nanoseconds as a number of seconds. Exact to the nanosecond up to 104 days, then to the next `f64`.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests;
