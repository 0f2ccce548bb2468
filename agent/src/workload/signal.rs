//! What two answers of a workload say together. Pure. The formulas are Prometheus' own: `rate` over the two, series by
//! series, and `histogram_quantile` over the increase of the buckets.

use std::collections::HashMap;

use super::text::{Buckets, Latency, QUANTILE, Scrape};

/// One sample's worth; absent is no signal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signal {
    /// Requests a second.
    pub requests_per_sec: Option<f64>,
    /// The 95th percentile of their latency, milliseconds.
    pub latency_p95_ms: Option<f64>,
}

/// The signal of two answers `seconds` apart; `latency` names the latency metrics, whose unit is in the name.
pub(super) fn between(before: &Scrape, after: &Scrape, seconds: f64, latency: &[String]) -> Signal {
    let requests = after.requests_from().and_then(|place| {
        let sum = increase(before.requests.get(place)?, after.requests.get(place)?)?;
        (seconds > 0.0).then_some(sum / seconds)
    });
    let latency_p95_ms = after.latency_from().and_then(|place| {
        let value = percentile(before.latency.get(place)?, after.latency.get(place)?)?;
        Some(value * milliseconds(latency.get(place)?)?)
    });
    Signal { requests_per_sec: requests, latency_p95_ms }
}

/// How many milliseconds the unit of a metric's name is; `None` if the name has none.
pub fn milliseconds(name: &str) -> Option<f64> {
    [("_seconds", 1e3), ("_milliseconds", 1.0), ("_ms", 1.0), ("_microseconds", 1e-3)]
        .into_iter()
        .find_map(|(unit, factor)| name.ends_with(unit).then_some(factor))
}

/// By how much a counter rose; one that fell began anew at zero.
fn rise(before: f64, after: f64) -> f64 {
    if after >= before { after - before } else { after }
}

/// By how much the series rose that both have: of a new one nobody knows when it began. `None` if they share none.
fn increase(before: &HashMap<String, f64>, after: &HashMap<String, f64>) -> Option<f64> {
    let rises: Vec<f64> = after.iter().filter_map(|(labels, after)| Some(rise(*before.get(labels)?, *after))).collect();
    (!rises.is_empty()).then(|| rises.iter().sum())
}

fn percentile(before: &Latency, after: &Latency) -> Option<f64> {
    if after.buckets.is_empty() {
        // Quantiles of several series cannot be put together.
        return if let [one] = after.quantiles[..] { Some(one) } else { None };
    }
    let mut whole: Option<Buckets> = None;
    for (labels, after) in &after.buckets {
        let Some(risen) = before.buckets.get(labels).and_then(|before| risen(before, after)) else { continue };
        match &mut whole {
            None => whole = Some(risen),
            Some(whole) => {
                // Counts below different bounds do not add up.
                if !same_bounds(whole, &risen) {
                    return None;
                }
                whole.iter_mut().zip(risen).for_each(|(sum, one)| sum.1 += one.1);
            }
        }
    }
    quantile(&whole?, QUANTILE)
}

/// By how much the buckets of one series rose.
fn risen(before: &Buckets, after: &Buckets) -> Option<Buckets> {
    if !same_bounds(before, after) {
        return None;
    }
    let began_anew = before.last()?.1 > after.last()?.1;
    let rise = |(before, after): (&(f64, f64), &(f64, f64))| {
        (after.0, if began_anew { after.1 } else { (after.1 - before.1).max(0.0) })
    };
    Some(before.iter().zip(after).map(rise).collect())
}

fn same_bounds(one: &Buckets, other: &Buckets) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.0.to_bits() == other.0.to_bits())
}

/// Between the bounds of its bucket a quantile is taken to lie in proportion; above the last finite bound it is that one.
fn quantile(buckets: &Buckets, share: f64) -> Option<f64> {
    let (last, total) = buckets.last().copied()?;
    if last != f64::INFINITY || total <= 0.0 {
        return None;
    }
    let rank = share * total;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (upper, count) = *buckets.get(at)?;
    let (lower, below) = at.checked_sub(1).and_then(|at| buckets.get(at)).copied().unwrap_or((0.0, 0.0));
    if upper == f64::INFINITY {
        // With one bucket alone nothing is known.
        return (at > 0).then_some(lower);
    }
    if upper <= 0.0 || count <= below {
        return Some(upper);
    }
    Some(lower + (upper - lower) * (rank - below) / (count - below))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::text::read, *};

    fn of(text: &str) -> Scrape {
        read(text.as_bytes(), &["r_total".to_owned()], &["l_seconds".to_owned()]).unwrap()
    }

    fn both(before: &str, after: &str) -> Signal {
        between(&of(before), &of(after), 2.0, &["l_seconds".to_owned()])
    }

    #[test]
    fn rates_are_of_the_series_that_both_have() {
        let told = both("r_total{a=\"1\"} 5\n", "r_total{a=\"1\"} 9\nr_total{a=\"2\"} 1000\n");
        assert_eq!(told.requests_per_sec, Some(2.0), "of a new series nobody knows when it began");
        assert_eq!(both("r_total 5\n", "r_total 5\n").requests_per_sec, Some(0.0));
        assert_eq!(both("r_total 500\n", "r_total 6\n").requests_per_sec, Some(3.0), "it began anew");
        assert_eq!(both("r_total{a=\"1\"} 5\n", "r_total{a=\"2\"} 9\n").requests_per_sec, None);
    }

    #[test]
    fn the_percentile_is_of_what_came_between_the_two() {
        let text = |a, b, c| {
            format!(
                "l_seconds_bucket{{le=\"0.1\"}} {a}\nl_seconds_bucket{{le=\"0.5\"}} {b}\nl_seconds_bucket{{le=\"+Inf\"}} {c}\n"
            )
        };
        let told = |before: &str, after: &str| both(before, after).latency_p95_ms;
        // 100 in between, 90 below 0.1 s, all below 0.5 s: the 95th stands in the middle of the second bucket.
        assert!((told(&text(900, 900, 900), &text(990, 1000, 1000)).unwrap() - 300.0).abs() < 1e-9);
        assert_eq!(told(&text(5, 5, 5), &text(5, 5, 5)), None, "nothing came");
        assert_eq!(told(&text(0, 0, 0), &text(0, 0, 9)), Some(500.0), "above the last bound it is that one");
        assert!((told(&text(900, 900, 900), &text(90, 100, 100)).unwrap() - 300.0).abs() < 1e-9, "it began anew");
        let other = "l_seconds_bucket{x=\"1\",le=\"0.2\"} 1\nl_seconds_bucket{x=\"1\",le=\"+Inf\"} 1\n";
        assert_eq!(told(&(text(0, 0, 0) + other), &(text(9, 9, 9) + &other.replace("} 1", "} 7"))), None);
        assert_eq!(told("l_seconds{quantile=\"0.95\"} 0.2\n", "l_seconds{quantile=\"0.95\"} 0.25\n"), Some(250.0));
        let two = "l_seconds{a=\"1\",quantile=\"0.95\"} 1\nl_seconds{a=\"2\",quantile=\"0.95\"} 2\n";
        assert_eq!(told(two, two), None, "quantiles cannot be put together");
    }

    #[test]
    fn the_unit_is_in_the_name() {
        assert_eq!(milliseconds("x_seconds"), Some(1e3));
        assert_eq!(milliseconds("x_ms"), Some(1.0));
        assert_eq!(milliseconds("x"), None);
    }

    proptest! {
        #[test]
        fn the_percentile_lies_in_the_bucket_of_the_true_one(
            bounds in prop::collection::btree_set(1u32..1_000, 1..12),
            mut seen in prop::collection::vec(0u32..1_200, 1..200),
        ) {
            seen.sort_unstable();
            let mut buckets: Buckets = bounds.iter().map(|&bound| {
                (f64::from(bound), seen.iter().filter(|&&one| one <= bound).count() as f64)
            }).collect();
            buckets.push((f64::INFINITY, seen.len() as f64));
            let told = quantile(&buckets, QUANTILE).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place among a few")]
            let rank = (QUANTILE * seen.len() as f64).ceil() as usize;
            let truth = f64::from(seen[rank.max(1) - 1]);
            let at = buckets.iter().position(|(bound, _)| truth <= *bound).unwrap();
            let (lower, upper) = (at.checked_sub(1).map_or(0.0, |at| buckets[at].0), buckets[at].0);
            prop_assert!(lower <= told && told <= upper.min(1e9), "{told} for {truth} in {lower}..{upper}");
        }
    }
}
