//! The rows of a block that is not full: each as what it differs by from the one before, in a few bits to two bytes a value.
//!
//! Half of all blocks' rows stand in such ones; a `Row` has ten times as many bytes.

use super::{
    series::Row,
    varint::{self, folded, unfolded},
};
use crate::account::past::COLUMNS;

/// A row takes this at most: which of its numbers are others than expected, a bit each, and by how much they are.
const MOST: usize = varint::MOST * (2 + COLUMNS);
/// The bit of the time: the last, because it seldom is another.
const AT: u64 = 1 << COLUMNS;
/// What is asked of the allocator at once, at least.
const PIECE: usize = 1024;

/// Rows in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Open {
    bytes: Vec<u8>,
    len: usize,
    first_ms: u64,
    before: Before,
}

/// What the next row is told against.
#[derive(Clone, Debug)]
struct Before {
    row: Row,
    /// From the row before it, milliseconds.
    step: u64,
}

impl Default for Before {
    fn default() -> Self {
        Self { row: Row { at_ms: 0, codes: [0; COLUMNS] }, step: 0 }
    }
}

impl Before {
    fn next_ms(&self) -> u64 {
        self.row.at_ms.wrapping_add(self.step)
    }

    fn is(&mut self, row: Row) {
        *self = Self { step: row.at_ms.wrapping_sub(self.row.at_ms), row };
    }

    /// Becomes the next row, which stands in front of these bytes; `None` if none does. In its place: a copy of numbers
    /// that were written one by one just now has to wait for them.
    fn advance(&mut self, rest: &mut &[u8]) -> Option<()> {
        let mut others = varint::take(rest)?;
        let mut at_ms = self.next_ms();
        while others != 0 {
            let by = unfolded(varint::take(rest)?);
            let number = self.row.codes.get_mut(others.trailing_zeros() as usize).unwrap_or(&mut at_ms);
            *number = number.wrapping_add(by);
            others &= others - 1;
        }
        self.step = at_ms.wrapping_sub(self.row.at_ms);
        self.row.at_ms = at_ms;
        Some(())
    }
}

impl Open {
    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        if self.bytes.capacity() - self.bytes.len() < MOST {
            // Twice as much each time would leave a third of it unused, and a piece at a time copies what is there often.
            self.bytes.reserve_exact(PIECE.max(self.bytes.len() / 4));
        }
        let mut others = if row.at_ms == self.before.next_ms() { 0 } else { AT };
        for (place, (code, before)) in row.codes.iter().zip(&self.before.row.codes).enumerate() {
            others |= u64::from(code != before) << place;
        }
        varint::put(&mut self.bytes, others);
        for (code, before) in row.codes.iter().zip(&self.before.row.codes).filter(|(code, before)| code != before) {
            varint::put(&mut self.bytes, folded(code.wrapping_sub(*before)));
        }
        if others & AT != 0 {
            varint::put(&mut self.bytes, folded(row.at_ms.wrapping_sub(self.before.next_ms())));
        }
        if self.len == 0 {
            self.first_ms = row.at_ms;
        }
        self.len += 1;
        self.before.is(row);
    }

    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let (mut rest, mut row) = (self.bytes.as_slice(), Before::default());
        (0..self.len).map_while(move |_| row.advance(&mut rest).map(|()| row.row))
    }

    /// Gives each row to `take`.
    pub fn each(&self, mut take: impl FnMut(&Row)) {
        let (mut rest, mut row) = (self.bytes.as_slice(), Before::default());
        for _ in 0..self.len {
            if row.advance(&mut rest).is_none() {
                return;
            }
            take(&row.row);
        }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// When the first was taken, Unix milliseconds.
    pub fn first_ms(&self) -> Option<u64> {
        (self.len > 0).then_some(self.first_ms)
    }

    /// When the last was taken, Unix milliseconds.
    pub fn last_ms(&self) -> Option<u64> {
        (self.len > 0).then_some(self.before.row.at_ms)
    }

    /// Memory it takes, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl FromIterator<Row> for Open {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        let mut open = Self::default();
        rows.into_iter().for_each(|row| open.push(row));
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn rows_are_given_back_as_they_were_added(
            rows in vec((any::<u64>(), vec(prop_oneof![Just(0u64), 0u64..50, any::<u64>()], COLUMNS)), 0..80),
        ) {
            let row = |(at_ms, codes): (u64, Vec<u64>)| Row { at_ms, codes: codes.try_into().unwrap() };
            let rows: Vec<Row> = rows.into_iter().map(row).collect();
            let open: Open = rows.iter().copied().collect();
            prop_assert!(open.rows().eq(rows.iter().copied()));
            let mut each = Vec::new();
            open.each(|row| each.push(*row));
            prop_assert_eq!(&each, &rows);
            prop_assert_eq!(open.len(), rows.len());
            prop_assert_eq!(open.first_ms(), rows.first().map(|row| row.at_ms));
            prop_assert_eq!(open.last_ms(), rows.last().map(|row| row.at_ms));
            prop_assert!(open.bytes() <= rows.len() * MOST * 5 / 4 + PIECE + MOST);
        }
    }

    #[test]
    fn what_stays_as_it_is_takes_a_byte_a_row() {
        let row = |n: u64| Row { at_ms: n * 10_000, codes: [1, 2, 3, 1 << 40, 5, 6, 7, 8, 0, 0] };
        let open: Open = (0..1_000).map(row).collect();
        assert!(open.bytes() < 1_000 + 2 * PIECE, "{} bytes", open.bytes());
    }
}
