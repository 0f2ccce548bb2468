//! Questions to a line: buckets aligned to the epoch, each with mean, least, most, last and count. Pure.

use super::{
    column::{COLUMNS, value},
    series::Row,
};

/// Points of one answer.
pub const MAX_POINTS: u64 = 11_000;
/// What `auto` aims at.
const AUTO_POINTS: u64 = 120;

/// What is asked for, Unix milliseconds: samples of `[since, until)`, in buckets of whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first instant.
    pub since_ms: u64,
    /// The first instant after it.
    pub until_ms: u64,
    /// The length of a bucket.
    pub resolution_ms: u64,
}

/// Why a range cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Nothing can lie in it.
    #[error("since must be before until")]
    Empty,
    /// Too long for its resolution.
    #[error("{points} points are asked for, {MAX_POINTS} are the most: take a longer resolution or a shorter range")]
    TooMany {
        /// How many it would be.
        points: u64,
    },
    /// A bucket of no length.
    #[error("resolution must be one second or more")]
    Resolution,
}

impl Range {
    /// Checks a range. Without a resolution it is chosen so that there are about 120 points, in whole seconds and no
    /// shorter than `interval_ms`, the time between two samples.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(since_ms: u64, until_ms: u64, resolution_ms: Option<u64>, interval_ms: u64) -> Result<Self, RangeError> {
        if since_ms >= until_ms {
            return Err(RangeError::Empty);
        }
        let auto = (until_ms - since_ms).div_ceil(AUTO_POINTS).max(interval_ms).max(1).div_ceil(1_000) * 1_000;
        let resolution_ms = resolution_ms.unwrap_or(auto);
        if resolution_ms < 1_000 {
            return Err(RangeError::Resolution);
        }
        let range = Self { since_ms, until_ms, resolution_ms };
        let points = range.count();
        if points > MAX_POINTS { Err(RangeError::TooMany { points }) } else { Ok(range) }
    }

    /// How many buckets it has.
    #[must_use]
    pub const fn count(&self) -> u64 {
        (self.until_ms - 1) / self.resolution_ms - self.since_ms / self.resolution_ms + 1
    }
}

/// One value over a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    /// The mean of the samples that have it.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// That of the latest sample.
    pub last: f64,
}

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where it begins, Unix milliseconds.
    pub at_ms: u64,
    /// Samples in it.
    pub count: u64,
    /// Each value; absent where no sample of the bucket has it.
    pub values: [Option<Stat>; COLUMNS],
}

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

    const HOUR: u64 = 3_600_000;

    #[test]
    fn auto_gives_about_120_points_in_whole_seconds() {
        for (span, due) in [(HOUR, 30_000), (168 * HOUR, 5_040_000), (60_000, 10_000), (7_777_777, 65_000)] {
            let range = Range::new(1_000_000_000, 1_000_000_000 + span, None, 10_000).unwrap();
            assert_eq!(range.resolution_ms, due, "{span}");
            assert!(range.count() <= 121);
        }
    }

    #[test]
    fn what_cannot_be_answered_is_refused_by_name() {
        assert_eq!(Range::new(5, 5, None, 1), Err(RangeError::Empty));
        assert_eq!(Range::new(0, 10_000, Some(999), 1), Err(RangeError::Resolution));
        assert_eq!(Range::new(0, 11_000_000, Some(1_000), 1).map(|r| r.count()), Ok(MAX_POINTS));
        assert_eq!(Range::new(0, 11_000_001, Some(1_000), 1), Err(RangeError::TooMany { points: 11_001 }));
    }

    #[test]
    fn a_gap_has_no_values_and_a_value_nobody_measured_is_absent() {
        let row = |at_ms, code| Row { at_ms, codes: [code, 0, 1 + 4096, 0, 0, 0, 0, 0] };
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
            let rows = times.iter().map(|at| Row { at_ms: *at, codes: [0, 0, *at + 1, 0, 0, 0, 0, 0] });
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
