//! A block of samples, compressed column by column with pco; a column whose numbers are all one costs nothing.

use pco::{ChunkConfig, DeltaSpec, ModeSpec, standalone};

use super::series::Row;
use crate::account::past::COLUMNS;

/// Samples of a full block. Longer ones compress better and cost more to open; at 512 both are near their best.
pub const BLOCK: usize = 512;

/// pco's effort, 0 to 12.
const LEVEL: usize = 4;

/// Times, and the columns of a sample.
const PARTS: usize = COLUMNS + 1;
/// Bytes in front of the numbers of a block that is written down.
const HEAD: usize = 4 + 8 + 8 + 2 + 4 * PARTS;

/// Beside a block in memory, bytes: what the allocator keeps for it and its numbers, the counts of its `Arc`, and its
/// places in its line, in the order of all blocks and among those that are on a disk.
const BESIDE: usize = 2 * 16 + 16 + 16 + 16 + 24;

/// Samples in the order they were taken. All numbers lie in one piece of memory, in the form they have on a disk too.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    count: u32,
    first_ms: u64,
    last_ms: u64,
    /// A bit a part, times first: set where all its numbers are one, which stands there in 8 bytes, or in none if it is 0.
    constant: u16,
    /// Where each part ends.
    ends: [u32; PARTS],
    data: Box<[u8]>,
}

impl Block {
    /// Packs rows; `None` if there is none.
    #[must_use]
    pub fn pack(rows: &[Row]) -> Option<Self> {
        let times: Vec<u64> = rows.iter().map(|row| row.at_ms).collect();
        let (first_ms, last_ms) = (*times.iter().min()?, *times.iter().max()?);
        let (mut data, mut constant, mut ends) = (Vec::new(), 0, [0; PARTS]);
        for (part, end) in ends.iter_mut().enumerate() {
            let one = |row: &Row| part.checked_sub(1).map_or(row.at_ms, |column| code(row, column));
            let numbers: Vec<u64> = rows.iter().map(one).collect();
            constant |= u16::from(pack(&numbers, &mut data)) << part;
            *end = u32::try_from(data.len()).ok()?;
        }
        let count = u32::try_from(rows.len()).ok()?;
        Some(Self { count, first_ms, last_ms, constant, ends, data: data.into_boxed_slice() })
    }

    /// Its rows; `None` if a column does not give as many numbers as there are rows.
    #[must_use]
    pub fn rows(&self) -> Option<Vec<Row>> {
        let row = |at_ms| Row { at_ms, codes: [0; COLUMNS] };
        let mut rows: Vec<Row> = self.open(0)?.into_iter().map(row).collect();
        for column in 0..COLUMNS {
            if self.is_constant(column + 1) && self.part(column + 1)?.is_empty() {
                continue;
            }
            for (row, code) in rows.iter_mut().zip(self.open(column + 1)?) {
                if let Some(place) = row.codes.get_mut(column) {
                    *place = code;
                }
            }
        }
        Some(rows)
    }

    fn is_constant(&self, part: usize) -> bool {
        self.constant >> part & 1 == 1
    }

    fn part(&self, part: usize) -> Option<&[u8]> {
        let end = |part: usize| self.ends.get(part).and_then(|end| usize::try_from(*end).ok());
        let begin = part.checked_sub(1).map_or(Some(0), end)?;
        self.data.get(begin..end(part)?)
    }

    fn open(&self, part: usize) -> Option<Vec<u64>> {
        let bytes = self.part(part)?;
        if self.is_constant(part) {
            let number = if bytes.is_empty() { 0 } else { u64::from_le_bytes(bytes.try_into().ok()?) };
            return Some(vec![number; self.len()]);
        }
        standalone::simple_decompress(bytes).ok().filter(|numbers| numbers.len() == self.len())
    }

    /// Writes it down, as `read` takes it.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.count.to_le_bytes());
        to.extend_from_slice(&self.first_ms.to_le_bytes());
        to.extend_from_slice(&self.last_ms.to_le_bytes());
        to.extend_from_slice(&self.constant.to_le_bytes());
        self.ends.iter().for_each(|end| to.extend_from_slice(&end.to_le_bytes()));
        to.extend_from_slice(&self.data);
    }

    /// One that was written down: all of `bytes`. Its numbers are not opened. `None` if it cannot be one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (head, data) = bytes.split_at_checked(HEAD)?;
        let (count, head) = head.split_first_chunk()?;
        let (first_ms, head) = head.split_first_chunk()?;
        let (last_ms, head) = head.split_first_chunk()?;
        let (constant, head) = head.split_first_chunk()?;
        let mut ends = [0; PARTS];
        for (end, bytes) in ends.iter_mut().zip(head.chunks_exact(4)) {
            *end = u32::from_le_bytes(bytes.try_into().ok()?);
        }
        let block = Self {
            count: u32::from_le_bytes(*count),
            first_ms: u64::from_le_bytes(*first_ms),
            last_ms: u64::from_le_bytes(*last_ms),
            constant: u16::from_le_bytes(*constant),
            ends,
            data: data.into(),
        };
        let whole = ends.last().and_then(|end| usize::try_from(*end).ok()) == Some(data.len()) && ends.is_sorted();
        (whole && (1..=BLOCK).contains(&block.len()) && block.first_ms <= block.last_ms).then_some(block)
    }

    /// When its first sample was taken, Unix milliseconds.
    #[must_use]
    pub const fn first_ms(&self) -> u64 {
        self.first_ms
    }

    /// When its last sample was taken, Unix milliseconds.
    #[must_use]
    pub const fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// How many samples are in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it may have samples of `[since_ms, until_ms)`.
    #[must_use]
    pub const fn overlaps(&self, since_ms: u64, until_ms: u64) -> bool {
        self.first_ms < until_ms && self.last_ms >= since_ms
    }

    /// Memory it takes, bytes, with what stands beside it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.data.len() + BESIDE
    }

    /// Bytes it takes where it is written down.
    #[must_use]
    pub fn written_bytes(&self) -> usize {
        HEAD + self.data.len()
    }
}

fn code(row: &Row, column: usize) -> u64 {
    row.codes.get(column).copied().unwrap_or(0)
}

/// Adds the numbers of a part; whether all are one.
fn pack(numbers: &[u64], to: &mut Vec<u8>) -> bool {
    if let Some(first) = numbers.first()
        && numbers.iter().all(|number| number == first)
    {
        if *first > 0 {
            to.extend_from_slice(&first.to_le_bytes());
        }
        return true;
    }
    // Neighbours are alike or they are not: the shorter is kept. Trying pco's whole search costs ten times as much.
    let coded = [DeltaSpec::NoOp, DeltaSpec::TryConsecutive(1)].into_iter().filter_map(|delta| {
        let config = ChunkConfig::default()
            .with_compression_level(LEVEL)
            .with_mode_spec(ModeSpec::Classic)
            .with_delta_spec(delta);
        standalone::simple_compress(numbers, &config).ok()
    });
    to.extend(coded.min_by_key(Vec::len).unwrap_or_default());
    false
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
            let block = Block::pack(&rows).unwrap();
            prop_assert_eq!(block.rows().unwrap(), rows.clone());
            prop_assert_eq!(block.len(), rows.len());
            let mut written = Vec::new();
            block.write(&mut written);
            prop_assert_eq!(written.len(), block.written_bytes());
            prop_assert_eq!(&Block::read(&written).unwrap(), &block);
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

    #[test]
    fn no_rows_are_no_block() {
        assert!(Block::pack(&[]).is_none());
    }

    #[test]
    fn an_idle_vm_costs_next_to_nothing() {
        let row = |n: u64| Row { at_ms: n * 10_000, codes: [1, 1, 77_000_001, 99_000_001, 1, 1, 1, 1, 0, 0] };
        let rows: Vec<Row> = (0..BLOCK as u64).map(row).collect();
        let block = Block::pack(&rows).unwrap();
        assert!(block.bytes() < 512, "{} bytes", block.bytes());
    }
}
