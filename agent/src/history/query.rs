//! Questions to a line: buckets aligned to the epoch, each with mean, least, most, last and count. Pure.

use super::{column::value, series::Row};
use crate::account::past::{COLUMNS, Point, Range, Stat};

/// A bucket being added up.
#[derive(Clone, Copy, Default)]
struct Sum {
    count: u64,
    latest_ms: u64,
    values: [Option<(Stat, u64)>; COLUMNS],
}

/// Adds up rows in any order; rows outside the range count for nothing. All buckets of the range, the empty ones too.
pub fn points(range: &Range, rows: impl IntoIterator<Item = Row>) -> Vec<Point> {
    let first = range.since_ms / range.resolution_ms;
    let mut sums = vec![Sum::default(); usize::try_from(range.count()).unwrap_or(0)];
    for row in rows {
        if row.at_ms < range.since_ms || row.at_ms >= range.until_ms {
            continue;
        }
        let place = usize::try_from(row.at_ms / range.resolution_ms - first).ok();
        if let Some(sum) = place.and_then(|place| sums.get_mut(place)) {
            sum.add(&row);
        }
    }
    let point = |(place, sum): (usize, Sum)| Point {
        at_ms: (first + place as u64) * range.resolution_ms,
        count: sum.count,
        values: sum.values.map(|value| {
            value.map(|(stat, count)| Stat { mean: (stat.mean / count as f64).clamp(stat.min, stat.max), ..stat })
        }),
    };
    sums.into_iter().enumerate().map(point).collect()
}

impl Sum {
    fn add(&mut self, row: &Row) {
        let newer = self.count == 0 || row.at_ms >= self.latest_ms;
        self.count += 1;
        self.latest_ms = self.latest_ms.max(row.at_ms);
        for (column, (sum, code)) in self.values.iter_mut().zip(row.codes).enumerate() {
            let Some(value) = value(column, code) else { continue };
            let Some((stat, count)) = sum else {
                *sum = Some((Stat { mean: value, min: value, max: value, last: value }, 1));
                continue;
            };
            stat.mean += value;
            stat.min = stat.min.min(value);
            stat.max = stat.max.max(value);
            if newer {
                stat.last = value;
            }
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    #[test]
    fn a_gap_has_no_values_and_a_value_nobody_measured_is_absent() {
        let row = |at_ms, code| Row { at_ms, codes: [code, 0, 1 + 4096, 0, 0, 0, 0, 0, 0, 0] };
        let range = Range::new(0, 30_000, Some(10_000), 1).unwrap();
        let points = points(&range, [row(1_000, 0), row(2_000, 1), row(29_999, 1), row(30_000, 1)]);
        assert_eq!(points.iter().map(|p| (p.at_ms, p.count)).collect::<Vec<_>>(), [(0, 2), (10_000, 0), (20_000, 1)]);
        assert_eq!(points[1].values, [None; COLUMNS]);
        assert_eq!(points[0].values[0], Some(Stat { mean: 0.0, min: 0.0, max: 0.0, last: 0.0 }));
        assert_eq!(points[0].values[1], None);
        assert_eq!(points[0].values[2].unwrap().mean, 4096.0);
    }

    proptest! {
        #[test]
        fn every_sample_of_the_range_is_in_one_bucket_and_no_other_is(
            times in vec(0u64..100_000, 0..200), since in 0u64..50_000, span in 1u64..50_000, resolution in 1u64..20,
        ) {
            let range = Range::new(since, since + span, Some(resolution * 1_000), 1).unwrap();
            let rows = times.iter().map(|at| Row { at_ms: *at, codes: [0, 0, *at + 1, 0, 0, 0, 0, 0, 0, 0] });
            let points = points(&range, rows);
            prop_assert_eq!(points.len() as u64, range.count());
            for point in points {
                prop_assert_eq!(point.at_ms % range.resolution_ms, 0);
                let within = |at: &&u64| {
                    **at >= since && **at < since + span && **at / range.resolution_ms * range.resolution_ms == point.at_ms
                };
                let due: Vec<u64> = times.iter().filter(within).copied().collect();
                prop_assert_eq!(point.count, due.len() as u64);
                let told = point.values[2];
                prop_assert_eq!(told.map(|s| s.min), due.iter().min().map(|at| *at as f64));
                prop_assert_eq!(told.map(|s| s.max), due.iter().max().map(|at| *at as f64));
                prop_assert_eq!(told.map(|s| s.last), due.iter().max().map(|at| *at as f64));
                if let Some(stat) = told {
                    let mean = due.iter().sum::<u64>() as f64 / due.len() as f64;
                    prop_assert!((stat.mean - mean).abs() < 1e-6);
                }
            }
        }
    }
}
