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
mod tests {
    use prometheus::{TextEncoder, proto};
    use proptest::prelude::*;

    use super::*;
    use crate::expose::catalog;

    /// The same series by the prometheus crate's own encoder.
    fn theirs(metric: &Metric, values: &[&str], value: f64) -> String {
        let pairs = metric.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut series = proto::Metric::from_label(pairs.collect());
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        series.set_gauge(gauge);
        let mut family = proto::MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(proto::MetricType::GAUGE);
        family.set_metric(vec![series]);
        TextEncoder::new().encode_to_string(&[family]).unwrap()
    }

    fn text(family: Family) -> String {
        String::from_utf8(family.done().0).unwrap()
    }

    proptest! {
        #[test]
        fn a_series_is_what_the_prometheus_crate_writes_but_for_the_form_of_a_number(
            vm_id in any::<String>(), name in "[\\\\\"\n a-z]{0,8}", kind in any::<String>(), value in any::<f64>(),
        ) {
            let metric = &catalog::VM_NETWORK_INTERFACES;
            let mut family = Family::of_vms(metric, Vec::new());
            family.vm(&vm_labels(&vm_id, &name));
            family.push(&[&kind, "true"], value);
            let (ours, theirs) = (text(family), theirs(metric, &[&vm_id, &name, &kind, "true"], value));
            let ((ours, our_value), (theirs, their_value)) =
                (ours.trim_end().rsplit_once(' ').unwrap(), theirs.trim_end().rsplit_once(' ').unwrap());
            prop_assert_eq!(ours, theirs);
            let (ours, theirs): (f64, f64) = (our_value.parse().unwrap(), their_value.parse().unwrap());
            prop_assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{} {}", our_value, their_value);
        }
    }

    proptest! {
        #[test]
        fn a_time_is_written_to_the_nanosecond_and_reads_as_the_nearest_number(ns in any::<u64>()) {
            let text = of_ns(ns);
            let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
            let told = whole.parse::<u64>().unwrap() * 1_000_000_000 + format!("{rest:0<9}").parse::<u64>().unwrap();
            prop_assert_eq!(told, ns);
            // So many are an `f64` each.
            let small = ns >> 11;
            prop_assert_eq!(of_ns(small).parse::<f64>().unwrap(), seconds(small));
        }
    }

    fn of_ns(ns: u64) -> String {
        let mut text = Vec::new();
        write_ns(&mut text, ns);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn numbers_that_are_whole_have_no_point_and_others_are_told_to_their_last_bit() {
        let all = [0.0, -0.0, 7.0, 9_007_199_254_740_991.0, 0.1, 1.5e-9, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        let all = all.map(shown);
        assert_eq!(all, ["0", "0", "7", "9007199254740991", "0.1", "1.5e-9", "+Inf", "-Inf", "NaN"]);
        assert_eq!(shown(1e300).parse::<f64>().unwrap(), 1e300);
    }

    #[test]
    fn a_histogram_has_its_buckets_the_one_without_bound_sum_and_count_and_no_series_is_no_family() {
        assert_eq!(text(Family::new(&catalog::SAMPLE_DURATION)), "");
        let mut histogram = Histogram::new(&[0.001, 1.0]);
        histogram.observe(0.5);
        let mut family = Family::new(&catalog::SAMPLE_DURATION);
        family.push_histogram(&[], &histogram);
        let text = text(family);
        let name = catalog::SAMPLE_DURATION.name;
        let lines: Vec<&str> = text.lines().skip(2).map(|line| line.strip_prefix(name).unwrap()).collect();
        assert_eq!(
            lines,
            ["_bucket{le=\"0.001\"} 0", "_bucket{le=\"1\"} 1", "_bucket{le=\"+Inf\"} 1", "_sum 0.5", "_count 1"]
        );
        let mut of_a_vm = Family::of_vms(&catalog::VM_RUN_DELAY, Vec::new());
        of_a_vm.vm(&vm_labels("a", ""));
        of_a_vm.push_histogram(&[], &histogram);
        assert!(
            String::from_utf8(of_a_vm.done().0).unwrap().contains("_bucket{vm_id=\"a\",name=\"\",le=\"0.001\"} 0\n")
        );
    }
}
