//! Where the hours of the wall clock lie on the boot clock, and how a number that grew over a stretch of time is shared
//! out between them. Pure integers; what is shared out sums to the whole, always.
//!
//! A stretch runs by the wall clock of the line it begins with; where another line of the same boot shows in between
//! that the clock was set by a second or more, by that line's from there on. Lengths are the boot clock's alone.

/// A clock that moved less was slewed, not set.
const SET_NS: u64 = 1_000_000_000;
/// Remembered settings of the clock in one boot.
const STEPS: usize = 4096;
/// A stretch over more hours or days than this is no measurement.
const PARTS: usize = 200_000;

/// One instant on both clocks, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Point {
    /// Since 1970-01-01 UTC.
    pub unix_ns: u64,
    /// Since the boot.
    pub mono_ns: u64,
}

/// The length of a bucket; buckets begin at whole hours or days of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Period {
    /// 3,600 s.
    Hour,
    /// 86,400 s.
    Day,
}

impl Period {
    /// Its length in nanoseconds.
    #[must_use]
    pub const fn ns(self) -> u64 {
        match self {
            Self::Hour => 3_600_000_000_000,
            Self::Day => 86_400_000_000_000,
        }
    }
}

/// The part of a stretch that lies in one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where the bucket begins, Unix nanoseconds.
    pub bucket: u64,
    /// Where the part begins, Unix nanoseconds.
    pub begins: u64,
    /// Where it begins and ends on the boot clock.
    pub mono_ns: (u64, u64),
}

impl Part {
    /// How long it is.
    #[must_use]
    pub const fn len_ns(&self) -> u64 {
        self.mono_ns.1 - self.mono_ns.0
    }
}

/// What is known of one boot's wall clock.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Wall {
    newest: Point,
    steps: Vec<Point>,
}

impl Wall {
    /// Takes an instant that a line tells; one older than the newest is computed, not read.
    pub(super) fn note(&mut self, at: Point) {
        if at.mono_ns < self.newest.mono_ns {
            return;
        }
        let offset = |p: &Point| p.unix_ns.wrapping_sub(p.mono_ns);
        let moved = self.steps.last().is_none_or(|known| {
            let by = offset(&at).wrapping_sub(offset(known));
            by.min(by.wrapping_neg()) >= SET_NS
        });
        if moved && self.steps.len() < STEPS {
            self.steps.push(at);
        }
        self.newest = at;
    }

    /// The newest instant any line told.
    pub(super) const fn newest(&self) -> Point {
        self.newest
    }

    /// Cuts the stretch from `from` to `to` (boot clock) at the beginnings of buckets. One without length is one part.
    pub(super) fn parts(&self, from: Point, to: u64, period: Period) -> Vec<Part> {
        let after = self.steps.partition_point(|step| step.mono_ns <= from.mono_ns);
        let steps = self.steps[after..].iter().take_while(|step| step.mono_ns < to).copied();
        let to = to.max(from.mono_ns);
        let mut parts = Vec::with_capacity(1);
        let (mut here, mut steps) = (from, steps.peekable());
        loop {
            let limit = steps.peek().map_or(to, |step| step.mono_ns);
            let bucket = here.unix_ns - here.unix_ns % period.ns();
            let left = bucket.saturating_add(period.ns()) - here.unix_ns;
            let full = left == 0 || parts.len() + 1 >= PARTS;
            let next = if full { to } else { here.mono_ns.saturating_add(left).min(limit) };
            if next > here.mono_ns || parts.is_empty() {
                parts.push(Part { bucket, begins: here.unix_ns, mono_ns: (here.mono_ns, next) });
            }
            here = Point { unix_ns: here.unix_ns.saturating_add(next - here.mono_ns), mono_ns: next };
            if next >= to {
                return parts;
            }
            if next == limit
                && let Some(step) = steps.next()
            {
                here = step;
            }
        }
    }
}

/// What each part has of `whole`, by its length; the last one takes what rounding leaves. Sums to `whole` exactly.
pub(super) fn share(whole: u128, parts: &[Part]) -> Vec<u128> {
    let Some((first, last)) = parts.first().zip(parts.last()) else { return Vec::new() };
    let (begin, len) = (first.mono_ns.0, last.mono_ns.1 - first.mono_ns.0);
    let mut given = 0;
    let up_to =
        |part: &Part| if part.mono_ns.1 == last.mono_ns.1 { whole } else { scaled(whole, part.mono_ns.1 - begin, len) };
    let shares = parts.iter().map(|part| {
        let upto = up_to(part);
        let share = upto - given;
        given = upto;
        share
    });
    shares.collect()
}

/// `whole` × `part` ÷ `len`, rounded down, for `part` ≤ `len`, without leaving 128 bits.
fn scaled(whole: u128, part: u64, len: u64) -> u128 {
    let (part, len) = (u128::from(part), u128::from(len).max(1));
    whole / len * part + whole % len * part / len
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = Period::Hour.ns();

    proptest! {
        #[test]
        fn parts_are_the_whole_stretch_and_shares_the_whole_number(
            unix in 0..u64::MAX / 4, mono in 0..u64::MAX / 4, len in 0..200 * HOUR, whole in any::<u128>(),
            steps in proptest::collection::vec((0..200 * HOUR, 0..u64::MAX / 4), 0..4),
        ) {
            let mut wall = Wall::default();
            let mut steps = steps;
            steps.sort_unstable();
            for (after, unix_ns) in steps {
                wall.note(Point { unix_ns, mono_ns: mono + after });
            }
            let parts = wall.parts(Point { unix_ns: unix, mono_ns: mono }, mono + len, Period::Hour);
            prop_assert_eq!(parts[0].mono_ns.0, mono);
            prop_assert_eq!(parts[parts.len() - 1].mono_ns.1, mono + len);
            for pair in parts.windows(2) {
                prop_assert_eq!(pair[0].mono_ns.1, pair[1].mono_ns.0);
            }
            for part in &parts {
                prop_assert!(part.bucket % HOUR == 0 && part.begins - part.bucket < HOUR && part.len_ns() <= HOUR);
            }
            prop_assert_eq!(share(whole, &parts).into_iter().sum::<u128>(), whole);
        }
    }

    #[test]
    fn a_stretch_is_cut_where_the_wall_clock_begins_an_hour() {
        let from = Point { unix_ns: 3 * HOUR - 10, mono_ns: 500 };
        let parts = Wall::default().parts(from, 530, Period::Hour);
        let expected = [(2 * HOUR, 3 * HOUR - 10, (500, 510)), (3 * HOUR, 3 * HOUR, (510, 530))];
        assert_eq!(parts, expected.map(|(bucket, begins, mono_ns)| Part { bucket, begins, mono_ns }));
        assert_eq!(share(10, &parts), [3, 7]);
    }

    #[test]
    fn a_clock_that_was_set_counts_from_where_a_line_shows_it() {
        let mut wall = Wall::default();
        wall.note(Point { unix_ns: HOUR, mono_ns: 100 });
        wall.note(Point { unix_ns: HOUR + 50, mono_ns: 150 });
        wall.note(Point { unix_ns: 25 * HOUR, mono_ns: 200 });
        let parts = wall.parts(Point { unix_ns: HOUR, mono_ns: 100 }, 300, Period::Hour);
        assert_eq!(
            parts.iter().map(|p| (p.bucket / HOUR, p.mono_ns)).collect::<Vec<_>>(),
            [(1, (100, 200)), (25, (200, 300))]
        );
    }

    #[test]
    fn an_instant_on_the_hour_belongs_to_the_hour_that_begins() {
        let parts = Wall::default().parts(Point { unix_ns: 2 * HOUR, mono_ns: 7 }, 7, Period::Hour);
        assert_eq!(parts, [Part { bucket: 2 * HOUR, begins: 2 * HOUR, mono_ns: (7, 7) }]);
        let parts = Wall::default().parts(Point { unix_ns: HOUR, mono_ns: 0 }, HOUR, Period::Hour);
        assert_eq!(parts.len(), 1);
    }
}
