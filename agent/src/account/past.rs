//! What is asked of the recent past of a VM, and what is answered: the words that the views share. Pure.

/// Values of a sample.
pub const COLUMNS: usize = 10;

/// Their names in the API, in the order of columns.
pub const NAMES: [&str; COLUMNS] = [
    "cpu_percent",
    "cpu_delay_percent",
    "memory_used_bytes",
    "memory_limit_bytes",
    "network_in_bytes_per_sec",
    "network_out_bytes_per_sec",
    "disk_read_bytes_per_sec",
    "disk_write_bytes_per_sec",
    "requests_per_sec",
    "latency_p95_ms",
];

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

    /// Its buckets, with nothing in them.
    #[must_use]
    pub fn empty(&self) -> Vec<Point> {
        let first = self.since_ms / self.resolution_ms;
        let at = |place| (first + place) * self.resolution_ms;
        (0..self.count()).map(|place| Point { at_ms: at(place), count: 0, values: [None; COLUMNS] }).collect()
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

/// One sample as it is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// When it was taken, Unix milliseconds.
    pub at_ms: u64,
    /// Each value; absent where it was not measured.
    pub values: [Option<f64>; COLUMNS],
}

/// How much is kept of all VMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Bytes of all lines.
    pub bytes: u64,
    /// Samples let go for the bound of memory, since the start.
    pub evicted: u64,
    /// Lines.
    pub lines: usize,
}

/// How it stands with the files that the past is kept in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saving {
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes written since the start.
    pub written: u64,
    /// When it was saved last, Unix nanoseconds; 0 if it never was.
    pub saved_unix_ns: u64,
    /// Saves that failed since the start.
    pub failures: u64,
    /// Parts of the files that were not as they had been written, at the start.
    pub damaged: u64,
    /// Why it is not saved now.
    pub trouble: Option<String>,
}

/// Who knows the past.
pub trait Past: Send + Sync {
    /// What is known of a VM in a range, all its buckets; `None` where nothing is kept of it.
    fn range(&self, vm_id: &str, range: &Range) -> Option<Vec<Point>>;
    /// The first samples behind an instant, Unix milliseconds; `most` of them.
    fn after(&self, vm_id: &str, after_ms: u64, most: usize) -> Vec<Taken>;
    /// The last samples between two instants, neither included; `most` of them, and how many more there are.
    fn between(&self, vm_id: &str, after_ms: u64, before_ms: u64, most: usize) -> (usize, Vec<Taken>);
    /// When the oldest sample that is left was taken, Unix milliseconds.
    fn oldest_ms(&self, vm_id: &str) -> Option<u64>;
    /// How many samples are kept of a VM.
    fn len(&self, vm_id: &str) -> usize;
    /// How much is kept.
    fn kept(&self) -> Kept;
    /// How it stands with the files; `None` where it is kept in memory alone.
    fn saving(&self) -> Option<Saving>;
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
