//! A block of samples, compressed column by column (`part`).

use std::sync::Arc;

use super::{
    open::Open,
    part::{self, Parts},
    series::Row,
};
use crate::account::past::COLUMNS;

/// Samples of a full block. Longer ones compress better, and cost more while they are open and when one is damaged.
pub const BLOCK: usize = 1536;

/// Numbers between two columns, a line of a CPU's cache: columns of a full block would else lie in the same places of it,
/// where there is room for fewer of them.
const APART: usize = 8;

/// Bytes in front of the numbers: how many rows (u32), when the first and the last were taken (u64, milliseconds).
const HEAD: usize = 4 + 8 + 8;

/// Beside a block in memory, bytes: what the allocator keeps for it, the counts of its `Arc`, and its places in its
/// line, in the order of all blocks and among those that are on a disk, of which a quarter is room for more.
const BESIDE: usize = 16 + 16 + (24 + 16 + 24) * 4 / 3;

/// Samples in the order they were taken: in one piece of memory, in the form they have on a disk too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block(Arc<[u8]>);

impl Block {
    /// Packs rows; `None` if there is none.
    #[must_use]
    pub fn pack(rows: &Open) -> Option<Self> {
        // All columns in one piece of memory.
        let stride = rows.len() + APART;
        let mut numbers = vec![0; (1 + COLUMNS) * stride];
        let mut count = 0;
        rows.each(|row| {
            numbers[count] = row.at_ms;
            for (column, code) in (1..).zip(&row.codes) {
                numbers[column * stride + count] = *code;
            }
            count += 1;
        });
        let parts = || numbers.chunks(stride).filter_map(|part| part.get(..count));
        let times = parts().next()?;
        let mut bytes = Vec::from(u32::try_from(times.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&times.iter().min()?.to_le_bytes());
        bytes.extend_from_slice(&times.iter().max()?.to_le_bytes());
        part::begin(&mut bytes).ok()?;
        for numbers in parts() {
            part::pack(numbers, &mut bytes).ok()?;
        }
        Some(Self(bytes.into()))
    }

    /// Its rows; `None` if a column does not give as many numbers as there are rows.
    #[must_use]
    pub fn rows(&self) -> Option<Vec<Row>> {
        let mut rows = vec![Row { at_ms: 0, codes: [0; COLUMNS] }; self.len()];
        let mut parts = Parts::of(self.0.get(HEAD..)?, rows.len())?;
        let mut places = rows.iter_mut();
        parts.next(|at_ms| places.by_ref().next().into_iter().for_each(|row| row.at_ms = at_ms))?;
        for column in 0..COLUMNS {
            let mut places = rows.iter_mut().filter_map(|row| row.codes.get_mut(column));
            parts.next(|code| places.by_ref().next().into_iter().for_each(|place| *place = code))?;
        }
        parts.is_done().then_some(rows)
    }

    /// As it is written down, for `read`.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.0
    }

    /// One that was written down: all of `bytes`. Its numbers are not opened. `None` if it cannot be one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (count, first_ms, last_ms) = head(bytes)?;
        ((1..=BLOCK).contains(&count) && first_ms <= last_ms).then(|| Self(bytes.into()))
    }

    /// When its first sample was taken, Unix milliseconds.
    #[must_use]
    pub fn first_ms(&self) -> u64 {
        head(&self.0).map_or(0, |(_, first_ms, _)| first_ms)
    }

    /// When its last sample was taken, Unix milliseconds.
    #[must_use]
    pub fn last_ms(&self) -> u64 {
        head(&self.0).map_or(0, |(_, _, last_ms)| last_ms)
    }

    /// How many samples are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        head(&self.0).map_or(0, |(count, _, _)| count)
    }

    /// Whether it may have samples of `[since_ms, until_ms)`.
    #[must_use]
    pub fn overlaps(&self, since_ms: u64, until_ms: u64) -> bool {
        self.first_ms() < until_ms && self.last_ms() >= since_ms
    }

    /// Memory it takes, bytes, with what stands beside it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len() + BESIDE
    }
}

/// How many rows, and when the first and the last were taken.
fn head(bytes: &[u8]) -> Option<(usize, u64, u64)> {
    let (count, rest) = bytes.split_first_chunk()?;
    let (first_ms, rest) = rest.split_first_chunk()?;
    let (last_ms, _) = rest.split_first_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    Some((count, u64::from_le_bytes(*first_ms), u64::from_le_bytes(*last_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let code = prop_oneof![Just(0u64), 0u64..50, any::<u64>()];
        let row = (any::<u64>(), vec(code, COLUMNS)).prop_map(|(at_ms, codes)| {
            let mut row = Row { at_ms, codes: [0; COLUMNS] };
            row.codes.copy_from_slice(&codes);
            row
        });
        vec(row, 1..80)
    }

    proptest! {
        #[test]
        fn a_block_gives_back_the_rows_it_was_packed_from(rows in rows()) {
            let block = Block::pack(&rows.iter().copied().collect()).unwrap();
            prop_assert_eq!(block.rows().unwrap(), rows.clone());
            prop_assert_eq!(block.len(), rows.len());
            prop_assert_eq!(&Block::read(block.written()).unwrap(), &block);
            for row in &rows {
                prop_assert!(block.overlaps(row.at_ms, row.at_ms.saturating_add(1)) || row.at_ms == u64::MAX);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_no_block_is_refused_and_panics_nowhere(bytes in vec(any::<u8>(), 0..200)) {
            if let Some(block) = Block::read(&bytes) {
                let _ = block.rows();
            }
        }
    }

    proptest! {
        #[test]
        fn a_block_that_is_cut_off_or_has_more_behind_it_gives_no_rows(rows in rows(), by in 1usize..20) {
            let whole = Block::pack(&rows.into_iter().collect()).unwrap().written().to_vec();
            let cut = Block::read(&whole[..whole.len().saturating_sub(by)]);
            prop_assert!(cut.is_none_or(|block| block.rows().is_none()));
            let more = [whole, vec![0; by]].concat();
            prop_assert_eq!(Block::read(&more).unwrap().rows(), None);
        }
    }

    #[test]
    fn no_rows_are_no_block() {
        assert!(Block::pack(&Open::default()).is_none());
    }

    #[test]
    fn an_idle_vm_costs_next_to_nothing() {
        let row = |n: u64| Row { at_ms: n * 10_000, codes: [1, 1, 77_000_001, 99_000_001, 1, 1, 1, 1, 0, 0] };
        let block = Block::pack(&(0..BLOCK as u64).map(row).collect()).unwrap();
        assert!(block.bytes() < 192, "{} bytes", block.bytes());
    }
}
