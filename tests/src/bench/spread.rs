//! What repeated measurements say together: the median, and what nine of ten lie above and below; and their order.
//!
//! No mean and no deviation: a neighbour's burst on the same machine must not move the figure.

/// The median of some measurements, their 10th and 90th percentile, and how many there were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half lie below.
    pub median: f64,
    /// One in ten lies below.
    pub p10: f64,
    /// One in ten lies above.
    pub p90: f64,
    /// The true median lies this far from the one found at most, with 95 % of confidence, however it is spread.
    pub error: f64,
    /// How many.
    pub count: usize,
}

impl Spread {
    /// Of these; `None` of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |tenths: usize| of_sorted(&sorted, tenths * 10);
        let median = at(5)?;
        // Half of them lie below it, give or take what a binomial distribution allows: ranks n/2 ± 0.98·√n.
        let (middle, reach) = (sorted.len() / 2, sorted.len().isqrt());
        let (low, high) = (middle.saturating_sub(reach), (middle + reach).min(sorted.len() - 1));
        let error = (median - sorted[low]).max(sorted[high] - median);
        Some(Self { median, p10: at(1)?, p90: at(9)?, error, count: sorted.len() })
    }

    /// Each figure multiplied, to change the unit.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        let [median, p10, p90, error] = [self.median, self.p10, self.p90, self.error].map(|value| value * factor);
        Self { median, p10, p90, error, ..self }
    }
}

/// So many hundredths of the values lie below it; `None` of none.
#[must_use]
pub fn percentile(values: &[f64], hundredths: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    of_sorted(&sorted, hundredths)
}

fn of_sorted(sorted: &[f64], hundredths: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    // Between two neighbours, as far as it is on the way from one to the other.
    let (whole, part) = (last * hundredths / 100, (last * hundredths % 100) as f64 / 100.0);
    let (low, high) = (sorted[whole], sorted[(whole + 1).min(last)]);
    Some(low + (high - low) * part)
}

/// A number with as many places as tell something: three digits, or none behind the point.
#[must_use]
pub fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        size if size >= 0.01 => 3,
        _tiny => 5,
    };
    format!("{value:.places$}")
}

/// Numbers without a pattern, the same in each run that begins with the same seed (xorshift, Marsaglia 2003).
#[derive(Debug)]
pub struct Order(u64);

impl Order {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number of [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Puts these in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let below = u64::try_from(last + 1).unwrap_or(u64::MAX);
            let other = usize::try_from(self.next() % below).unwrap_or(0);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_a_burst_is_not_moved() {
        let spread = Spread::of(&[3.0, 1.0, 2.0, 1_000.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.count), (2.0, 5));
        let spread = Spread::of(&(0..=100).map(f64::from).collect::<Vec<_>>()).unwrap();
        assert_eq!((spread.p10, spread.median, spread.p90, spread.error), (10.0, 50.0, 90.0, 10.0));
        assert_eq!(Spread::of(&[1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of(&[f64::NAN]), None);
        let upwards: Vec<f64> = (0..=200).rev().map(f64::from).collect();
        assert_eq!((percentile(&upwards, 99), percentile(&[], 99)), (Some(198.0), None));
    }

    #[test]
    fn a_shuffle_keeps_all_and_each_place_is_taken_by_each() {
        let (mut order, mut firsts) = (Order::new(7), [0; 4]);
        for _ in 0..1_000 {
            let mut items = [0, 1, 2, 3];
            order.shuffle(&mut items);
            firsts[items[0]] += 1;
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3]);
        }
        assert!(firsts.iter().all(|count| (150..350).contains(count)), "{firsts:?}");
    }

    #[test]
    fn three_digits_are_shown() {
        assert_eq!(
            [digits(1234.5), digits(12.34), digits(1.234), digits(0.1234), digits(0.0)],
            ["1234", "12.3", "1.23", "0.123", "0.00"]
        );
    }
}
