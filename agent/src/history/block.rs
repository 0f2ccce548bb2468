//! A block of samples, compressed column by column with pco; a column whose numbers are all one costs nothing.

use pco::{ChunkConfig, DeltaSpec, ModeSpec, standalone};

use super::series::Row;
use crate::account::past::COLUMNS;

/// Samples of a full block. Longer ones compress better and cost more to open; at 512 both are near their best.
pub const BLOCK: usize = 512;

/// pco's effort, 0 to 12.
const LEVEL: usize = 4;

/// The numbers of one column.
#[derive(Debug)]
enum Packed {
    /// All are this one.
    Constant(u64),
    /// As pco writes them.
    Coded(Box<[u8]>),
}

/// Samples in the order they were taken.
#[derive(Debug)]
pub struct Block {
    count: usize,
    first_ms: u64,
    last_ms: u64,
    at: Packed,
    columns: [Packed; COLUMNS],
}

impl Block {
    /// Packs rows; `None` if there is none.
    #[must_use]
    pub fn pack(rows: &[Row]) -> Option<Self> {
        let times: Vec<u64> = rows.iter().map(|row| row.at_ms).collect();
        let (first_ms, last_ms) = (*times.iter().min()?, *times.iter().max()?);
        let columns = std::array::from_fn(|column| {
            let numbers: Vec<u64> = rows.iter().map(|row| row.codes.get(column).copied().unwrap_or(0)).collect();
            pack(&numbers)
        });
        Some(Self { count: rows.len(), first_ms, last_ms, at: pack(&times), columns })
    }

    /// Its rows; `None` if a column does not give as many numbers as there are rows.
    #[must_use]
    pub fn rows(&self) -> Option<Vec<Row>> {
        let mut rows: Vec<Row> =
            self.at.open(self.count)?.into_iter().map(|at_ms| Row { at_ms, codes: [0; COLUMNS] }).collect();
        for (column, packed) in self.columns.iter().enumerate() {
            if let Packed::Constant(0) = packed {
                continue;
            }
            for (row, code) in rows.iter_mut().zip(packed.open(self.count)?) {
                if let Some(place) = row.codes.get_mut(column) {
                    *place = code;
                }
            }
        }
        Some(rows)
    }

    /// When its first sample was taken, Unix milliseconds.
    #[must_use]
    pub const fn first_ms(&self) -> u64 {
        self.first_ms
    }

    /// How many samples are in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether it may have samples of `[since_ms, until_ms)`.
    #[must_use]
    pub const fn overlaps(&self, since_ms: u64, until_ms: u64) -> bool {
        self.first_ms < until_ms && self.last_ms >= since_ms
    }

    /// Memory it takes, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.at.bytes() + self.columns.iter().map(Packed::bytes).sum::<usize>()
    }
}

impl Packed {
    fn open(&self, count: usize) -> Option<Vec<u64>> {
        match self {
            Self::Constant(number) => Some(vec![*number; count]),
            Self::Coded(bytes) => standalone::simple_decompress(bytes).ok().filter(|numbers| numbers.len() == count),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Constant(_) => 0,
            // And what the allocator keeps beside it.
            Self::Coded(bytes) => bytes.len() + 16,
        }
    }
}

fn pack(numbers: &[u64]) -> Packed {
    if let Some(first) = numbers.first()
        && numbers.iter().all(|number| number == first)
    {
        return Packed::Constant(*first);
    }
    // Neighbours are alike or they are not: the shorter is kept. Trying pco's whole search costs ten times as much.
    let coded = [DeltaSpec::NoOp, DeltaSpec::TryConsecutive(1)].into_iter().filter_map(|delta| {
        let config = ChunkConfig::default()
            .with_compression_level(LEVEL)
            .with_mode_spec(ModeSpec::Classic)
            .with_delta_spec(delta);
        standalone::simple_compress(numbers, &config).ok()
    });
    Packed::Coded(coded.min_by_key(Vec::len).unwrap_or_default().into_boxed_slice())
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
            for row in &rows {
                prop_assert!(block.overlaps(row.at_ms, row.at_ms.saturating_add(1)) || row.at_ms == u64::MAX);
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
