//! Families against the prometheus crate's own encoder.

use prometheus::{TextEncoder, proto};
use proptest::prelude::*;

use super::*;
use crate::expose::{catalog, known::Known};

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
        number in 0..number::WHOLE,
    ) {
        let metric = &catalog::VM_NETWORK_INTERFACES;
        let mut known = Known::default();
        known.labels.push_vm(&vm_id, &name);
        let (mut column, mut ours) = (Column::new(metric), Vec::new());
        column.push_of(&[&kind, "true"], number);
        prop_assert_eq!(column.write(0, usize::MAX, &known, &mut ours), None);
        let of = |value| {
            let mut family = Family::new(metric);
            family.push(&[&vm_id, &name, &kind, "true"], value);
            text(family)
        };
        prop_assert_eq!(String::from_utf8(ours).unwrap(), of(number as f64));
        let ours = of(value);
        let theirs = theirs(metric, &[&vm_id, &name, &kind, "true"], value);
        let ((ours, our_value), (theirs, their_value)) =
            (ours.trim_end().rsplit_once(' ').unwrap(), theirs.trim_end().rsplit_once(' ').unwrap());
        prop_assert_eq!(ours, theirs);
        let (ours, theirs): (f64, f64) = (our_value.parse().unwrap(), their_value.parse().unwrap());
        prop_assert!(ours == theirs || (ours.is_nan() && theirs.is_nan()), "{} {}", our_value, their_value);
    }
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
}
