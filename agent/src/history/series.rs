//! The line of one vm_id: sealed blocks and an open one, at most so many samples; the oldest go first.

use std::collections::VecDeque;

use super::{
    block::{BLOCK, Block},
    open::Open,
};
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
    sealed: VecDeque<Sealed>,
    open: Open,
    /// Where the open block is full.
    target: usize,
    /// The number that the open block gets when it is sealed. They count up from 0 and none is used again, so two copies
    /// of a block are told to be one; some are missing where a file lost them.
    next: u64,
}

/// A block that is full, and its number in the line.
pub type Sealed = (u64, Block);

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
        let less = usize::try_from(spread % BLOCK as u64).unwrap_or(0);
        Self { sealed: VecDeque::new(), open: Open::default(), target: BLOCK - less, next: 0 }
    }

    /// One of before: its blocks in the order of their numbers, and the rows of block `next`, which was open.
    #[must_use]
    pub fn restored(sealed: Vec<Sealed>, next: u64, open: Vec<Row>, spread: u64) -> Self {
        let fresh = Self::new(spread);
        let target = if next == 0 { fresh.target } else { BLOCK };
        Self { sealed: sealed.into(), open: open.into_iter().collect(), target, next }
    }

    /// Adds a sample; keeps `most` at least, and a block more at most.
    pub fn push(&mut self, row: Row, most: usize) -> Pushed {
        let before = self.open.bytes();
        self.open.push(row);
        let mut pushed = Pushed { grown: signed(self.open.bytes()) - signed(before), sealed: None };
        if self.open.len() < self.target {
            return pushed;
        }
        // What was open is given back: its room is not needed again before the next block is as long.
        let open = std::mem::take(&mut self.open);
        pushed.grown -= signed(open.bytes());
        if let Some(block) = Block::pack(&open) {
            pushed.grown += signed(block.bytes());
            self.sealed.push_back((self.next, block));
            pushed.sealed = Some(self.next);
            self.next += 1;
        }
        self.target = BLOCK;
        pushed.grown -= self.trim(most);
        pushed
    }

    /// Lets the oldest blocks go that are not needed for `most` samples: their bytes.
    pub fn trim(&mut self, most: usize) -> i64 {
        let mut kept: usize = self.sealed.iter().map(|(_, block)| block.len()).sum();
        let mut freed = 0;
        while let Some((_, first)) = self.sealed.front()
            && kept - first.len() >= most
        {
            kept -= first.len();
            freed += self.drop_first().map_or(0, |(bytes, _)| bytes);
        }
        freed
    }

    /// Lets a sealed block go, if it is the oldest that is left: its bytes and samples.
    pub fn evict(&mut self, number: u64) -> Option<(i64, usize)> {
        if self.first() == number { self.drop_first() } else { None }
    }

    /// The number of the oldest block that is left, be it the open one.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.sealed.front().map_or(self.next, |(number, _)| *number)
    }

    /// The number of the open block.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The open block.
    #[must_use]
    pub const fn open(&self) -> &Open {
        &self.open
    }

    /// The sealed blocks with numbers from `first` to `last`.
    pub fn sealed(&self, first: u64, last: u64) -> impl Iterator<Item = &Sealed> {
        let begin = self.sealed.partition_point(|(number, _)| *number < first);
        self.sealed.range(begin..).take_while(move |(number, _)| *number <= last)
    }

    fn drop_first(&mut self) -> Option<(i64, usize)> {
        let (_, block) = self.sealed.pop_front()?;
        Some((signed(block.bytes()), block.len()))
    }

    /// What may have samples of `[since_ms, until_ms)`: cheap to take, to be opened elsewhere.
    #[must_use]
    pub fn parts(&self, since_ms: u64, until_ms: u64) -> (Vec<Block>, Open) {
        let within = self.sealed.iter().filter(|(_, block)| block.overlaps(since_ms, until_ms));
        (within.map(|(_, block)| block.clone()).collect(), self.open.clone())
    }

    /// When the oldest sample was taken, Unix milliseconds.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.sealed.front().map(|(_, block)| block.first_ms()).or_else(|| self.open.first_ms())
    }

    /// How many samples are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sealed.iter().map(|(_, block)| block.len()).sum::<usize>() + self.open.len()
    }

    /// When the newest sample was taken, Unix milliseconds.
    #[must_use]
    pub fn newest_ms(&self) -> Option<u64> {
        let sealed = self.sealed.back().map(|(_, block)| block.last_ms());
        self.open.last_ms().or(sealed)
    }

    /// Memory it takes, bytes.
    #[must_use]
    pub fn bytes(&self) -> i64 {
        signed(self.open.bytes()) + self.sealed.iter().map(|(_, block)| signed(block.bytes())).sum::<i64>()
    }
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
        blocks.iter().flat_map(|block| block.rows().unwrap()).chain(open.rows()).collect()
    }

    proptest! {
        #[test]
        fn the_newest_samples_are_kept_and_what_it_takes_is_what_it_grew_by(
            pushes in 0u64..8_000, most in 1usize..4_000, spread in any::<u64>(),
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
        let mut series = Series::new(BLOCK as u64 / 2);
        let sealed: Vec<u64> = (0..4 * BLOCK as u64).filter_map(|n| series.push(row(n), 10 * BLOCK).sealed).collect();
        assert_eq!(sealed, [0, 1, 2, 3]);
        let before = series.bytes();
        assert!(series.evict(1).is_none());
        let (bytes, samples) = series.evict(0).unwrap();
        assert_eq!((series.bytes(), samples), (before - bytes, BLOCK / 2));
        assert!(series.evict(0).is_none());
        assert!(series.evict(1).is_some());
    }
}
