//! The line of one vm_id: sealed blocks and an open one, at most so many samples; the oldest go first.

use std::{collections::VecDeque, sync::Arc};

use super::block::{BLOCK, Block};
use crate::account::past::COLUMNS;

/// One sample as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// Its values, as `column` writes them.
    pub codes: [u64; COLUMNS],
}

/// A line.
#[derive(Debug)]
pub struct Series {
    sealed: VecDeque<Arc<Block>>,
    open: Vec<Row>,
    /// Where the open block is full.
    target: usize,
    /// Sealed blocks that were let go so far: the number of the first one that is left.
    gone: u64,
}

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Bytes the line has grown by; negative where old blocks went.
    pub grown: i64,
    /// The number of the block that was sealed.
    pub sealed: Option<u64>,
}

impl Series {
    /// An empty one. `spread` is any number: lines that begin together do not all seal at the same sample.
    #[must_use]
    pub fn new(spread: u64) -> Self {
        let extra = usize::try_from(spread % (BLOCK as u64 / 2)).unwrap_or(0);
        Self { sealed: VecDeque::new(), open: Vec::new(), target: BLOCK / 2 + extra, gone: 0 }
    }

    /// Adds a sample; keeps `most` at least, and a block more at most.
    pub fn push(&mut self, row: Row, most: usize) -> Pushed {
        let before = self.open.capacity();
        self.open.push(row);
        let mut pushed = Pushed { grown: rows_bytes(self.open.capacity()) - rows_bytes(before), sealed: None };
        if self.open.len() < self.target {
            return pushed;
        }
        if let Some(block) = Block::pack(&self.open) {
            pushed.grown += signed(block.bytes());
            self.sealed.push_back(Arc::new(block));
            pushed.sealed = Some(self.gone + self.sealed.len() as u64 - 1);
        }
        self.open.clear();
        self.target = BLOCK;
        let mut kept: usize = self.sealed.iter().map(|block| block.len()).sum();
        while let Some(first) = self.sealed.front()
            && kept - first.len() >= most
        {
            kept -= first.len();
            pushed.grown -= self.drop_first().map_or(0, |(bytes, _)| bytes);
        }
        pushed
    }

    /// Lets a sealed block go, if it is the oldest that is left: its bytes and samples.
    pub fn evict(&mut self, number: u64) -> Option<(i64, usize)> {
        if self.gone == number { self.drop_first() } else { None }
    }

    /// The number of the oldest sealed block that is left.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.gone
    }

    fn drop_first(&mut self) -> Option<(i64, usize)> {
        let block = self.sealed.pop_front()?;
        self.gone += 1;
        Some((signed(block.bytes()), block.len()))
    }

    /// What may have samples of `[since_ms, until_ms)`: cheap to take, to be opened elsewhere.
    #[must_use]
    pub fn parts(&self, since_ms: u64, until_ms: u64) -> (Vec<Arc<Block>>, Vec<Row>) {
        let blocks = self.sealed.iter().filter(|block| block.overlaps(since_ms, until_ms)).cloned().collect();
        (blocks, self.open.clone())
    }

    /// When the oldest sample was taken, Unix milliseconds.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.sealed.front().map(|block| block.first_ms()).or_else(|| self.open.first().map(|row| row.at_ms))
    }

    /// How many samples are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sealed.iter().map(|block| block.len()).sum::<usize>() + self.open.len()
    }

    /// Memory it takes, bytes.
    #[must_use]
    pub fn bytes(&self) -> i64 {
        rows_bytes(self.open.capacity()) + self.sealed.iter().map(|block| signed(block.bytes())).sum::<i64>()
    }
}

fn rows_bytes(rows: usize) -> i64 {
    signed(rows * size_of::<Row>())
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(n: u64) -> Row {
        Row { at_ms: n * 1_000, codes: [n % 7; COLUMNS] }
    }

    fn all(series: &Series) -> Vec<Row> {
        let (blocks, open) = series.parts(0, u64::MAX);
        blocks.iter().flat_map(|block| block.rows().unwrap()).chain(open).collect()
    }

    proptest! {
        #[test]
        fn the_newest_samples_are_kept_and_what_it_takes_is_what_it_grew_by(
            pushes in 0u64..4_000, most in 1usize..2_000, spread in any::<u64>(),
        ) {
            let mut series = Series::new(spread);
            let mut bytes = 0;
            for n in 0..pushes {
                bytes += series.push(row(n), most).grown;
            }
            prop_assert_eq!(bytes, series.bytes());
            let kept = all(&series);
            prop_assert_eq!(kept.len(), series.len());
            prop_assert!(kept.len() >= most.min(usize::try_from(pushes).unwrap()));
            prop_assert!(kept.len() < most + 2 * BLOCK);
            let first = pushes - kept.len() as u64;
            prop_assert!(kept.into_iter().eq((first..pushes).map(row)), "the newest, in order");
        }
    }

    #[test]
    fn only_the_oldest_block_can_be_evicted_and_once() {
        let mut series = Series::new(0);
        let sealed: Vec<u64> = (0..2_000).filter_map(|n| series.push(row(n), 10_000).sealed).collect();
        assert_eq!(sealed, [0, 1, 2, 3]);
        let before = series.bytes();
        assert!(series.evict(1).is_none());
        let (bytes, samples) = series.evict(0).unwrap();
        assert_eq!((series.bytes(), samples), (before - bytes, BLOCK / 2));
        assert!(series.evict(0).is_none());
        assert!(series.evict(1).is_some());
    }
}
