//! A histogram with fixed bounds.

use kvmeter_common::limits::BUCKETS;

/// A histogram with fixed bounds, cumulative as Prometheus wants it.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Upper bounds in seconds and how many observations were at or below.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of observations, seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
}

impl Histogram {
    /// An empty one with these bounds, in seconds, ascending.
    #[must_use]
    pub fn new(bounds: &[f64]) -> Self {
        Self { buckets: bounds.iter().map(|b| (*b, 0)).collect(), sum: 0.0, count: 0 }
    }

    /// From counts by bucket, the last one being beyond all bounds.
    #[must_use]
    pub fn of(bounds_ns: &[u64; BUCKETS - 1], counts: &[u64; BUCKETS], sum_ns: u64) -> Self {
        let mut sum = 0;
        let bucket = |(bound, count): (&u64, &u64)| {
            sum += count;
            (*bound as f64 / 1e9, sum)
        };
        let buckets = bounds_ns.iter().zip(counts).map(bucket).collect();
        Self { buckets, sum: sum_ns as f64 / 1e9, count: counts.iter().sum() }
    }

    /// Adds one observation, in seconds.
    pub fn observe(&mut self, seconds: f64) {
        for (bound, count) in &mut self.buckets {
            *count += u64::from(seconds <= *bound);
        }
        self.sum += seconds;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_buckets_are_cumulative() {
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        for seconds in [0.05, 0.5, 5.0] {
            histogram.observe(seconds);
        }
        assert_eq!(histogram.buckets, [(0.1, 1), (1.0, 2)]);
        assert_eq!(histogram.count, 3);
    }
}
