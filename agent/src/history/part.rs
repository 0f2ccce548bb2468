//! One column of a block as bytes: numbers that are all one or one step apart in a few, others less their least with pco.
//!
//! A part tells where it ends only to who knows how many numbers are in it. Pure.

use pco::{
    ChunkConfig, DecompressorScratch, DeltaSpec, ModeSpec,
    data_types::Number,
    errors::PcoResult,
    wrapped::{FileCompressor, FileDecompressor},
};

use super::varint;

/// pco's effort, 0 to 12.
const LEVEL: usize = 5;
/// How many numbers of a part are looked at to choose how it is packed.
const SAMPLED: usize = 64;

/// How a part is written: all are 0.
const ZERO: u8 = 0;
/// All are one number, which follows.
const ONE: u8 = 1;
/// The first follows, and what is added for each of the others.
const STEPS: u8 = 2;
/// The least follows, and the others less that: in 16 bits, in 32, in 64.
const NARROW: u8 = 3;
const MIDDLE: u8 = 4;
const WIDE: u8 = 5;

/// Adds what `open` begins with. In front of the parts, once.
///
/// # Errors
/// None that pco gives for bytes in memory.
pub fn begin(to: &mut Vec<u8>) -> PcoResult<()> {
    FileCompressor::default().write_header(to).map(drop)
}

/// Adds numbers; at least one.
///
/// # Errors
/// None that pco gives for so few numbers.
pub fn pack(numbers: &[u64], to: &mut Vec<u8>) -> PcoResult<()> {
    let Some((first, rest)) = numbers.split_first() else { return Ok(()) };
    let step = rest.first().map_or(0, |second| second.wrapping_sub(*first));
    if numbers.is_sorted_by(|a, b| b.wrapping_sub(*a) == step) {
        match (*first, step) {
            (0, 0) => to.push(ZERO),
            (first, 0) => head(to, ONE, first),
            (first, step) => {
                head(to, STEPS, first);
                varint::put(to, varint::folded(step));
            }
        }
        return Ok(());
    }
    let (least, most) = rest.iter().fold((*first, *first), |(least, most), one| (least.min(*one), most.max(*one)));
    let config = ChunkConfig::default()
        .with_compression_level(LEVEL)
        .with_mode_spec(ModeSpec::Classic)
        .with_delta_spec(spec(numbers));
    let less = numbers.iter().map(|number| number - least);
    if u16::try_from(most - least).is_ok() {
        head(to, NARROW, least);
        #[expect(clippy::cast_possible_truncation, reason = "the greatest fits")]
        compress(&less.map(|number| number as u16).collect::<Vec<_>>(), &config, to)
    } else if u32::try_from(most - least).is_ok() {
        head(to, MIDDLE, least);
        #[expect(clippy::cast_possible_truncation, reason = "the greatest fits")]
        compress(&less.map(|number| number as u32).collect::<Vec<_>>(), &config, to)
    } else {
        head(to, WIDE, least);
        compress(&less.collect::<Vec<_>>(), &config, to)
    }
}

fn head(to: &mut Vec<u8>, kind: u8, number: u64) {
    to.push(kind);
    varint::put(to, number);
}

/// Whether numbers are packed or the differences between neighbours: what lies closer together, of some of them.
/// Packing both ways to take the shorter takes twice as long.
fn spec(numbers: &[u64]) -> DeltaSpec {
    let pairs = || numbers.array_windows().step_by(numbers.len().div_ceil(SAMPLED));
    let plain = apart(pairs().map(|[_, number]| *number));
    let between = apart(pairs().map(|[before, number]| varint::folded(number.wrapping_sub(*before))));
    if between < plain { DeltaSpec::TryConsecutive(1) } else { DeltaSpec::NoOp }
}

/// The bits of the gaps that numbers leave between them: grows and falls with what they are packed into.
fn apart(numbers: impl Iterator<Item = u64>) -> u32 {
    let mut sorted: Vec<u64> = numbers.collect();
    sorted.sort_unstable();
    sorted.array_windows().map(|[a, b]| u64::BITS - (b - a).leading_zeros()).sum()
}

fn compress<T: Number>(numbers: &[T], config: &ChunkConfig, to: &mut Vec<u8>) -> PcoResult<()> {
    let mut chunk = FileCompressor::default().chunk_compressor(numbers, config)?;
    to.reserve(chunk.meta_size_hint() + chunk.page_size_hint(0));
    chunk.write_meta(&mut *to)?;
    chunk.write_page(0, to).map(drop)
}

/// Opens the parts of a block, one after the other.
pub struct Parts<'a> {
    rest: &'a [u8],
    count: usize,
    pco: FileDecompressor,
    scratch: DecompressorScratch,
}

impl<'a> Parts<'a> {
    /// Of these bytes, `count` numbers each. `None` if nothing began them.
    pub fn of(bytes: &'a [u8], count: usize) -> Option<Self> {
        let (pco, rest) = FileDecompressor::new(bytes).ok()?;
        Some(Self { rest, count, pco, scratch: DecompressorScratch::default() })
    }

    /// Whether all of them are opened.
    pub const fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// Gives the numbers of the next part to `take`, or none if all are 0. `None` if it is no part.
    pub fn next(&mut self, take: impl FnMut(u64)) -> Option<()> {
        let (kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        if *kind == ZERO {
            return Some(());
        }
        let first = varint::take(&mut self.rest)?;
        match *kind {
            ONE => (0..self.count).map(|_| first).for_each(take),
            STEPS => {
                let step = varint::unfolded(varint::take(&mut self.rest)?);
                (0..self.count as u64).map(|n| first.wrapping_add(step.wrapping_mul(n))).for_each(take);
            }
            NARROW => self.decompress::<u16>(first, take)?,
            MIDDLE => self.decompress::<u32>(first, take)?,
            WIDE => self.decompress::<u64>(first, take)?,
            _ => return None,
        }
        Some(())
    }

    fn decompress<T: Number + Default + Into<u64>>(&mut self, least: u64, take: impl FnMut(u64)) -> Option<()> {
        let mut numbers = vec![T::default(); self.count];
        let (chunk, rest) = self.pco.chunk_decompressor::<T, _>(self.rest).ok()?;
        let mut page = chunk.page_decompressor_with_scratch(rest, self.count, &mut self.scratch).ok()?;
        let progress = page.read(&mut numbers).ok()?;
        self.rest = page.into_src();
        numbers.into_iter().map(|number| number.into().wrapping_add(least)).for_each(take);
        progress.finished.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn packed(numbers: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        begin(&mut bytes).unwrap();
        pack(numbers, &mut bytes).unwrap();
        bytes
    }

    fn opened(bytes: &[u8], count: usize) -> Option<Vec<u64>> {
        let (mut parts, mut numbers) = (Parts::of(bytes, count)?, Vec::new());
        parts.next(|number| numbers.push(number))?;
        // None given are all 0.
        numbers.resize(count, 0);
        parts.is_done().then_some(numbers)
    }

    /// Numbers of each of the ways in which they can be written, with the greatest there are.
    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        let wide = (any::<u64>(), prop_oneof![Just(0), 0..=64u32]);
        let near = wide.prop_flat_map(|(least, bits)| {
            let most = 1u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
            vec((0..=most).prop_map(move |more| least.saturating_add(more)), 1..600)
        });
        let even = (any::<u64>(), any::<u64>(), 1u64..600);
        let even = even
            .prop_map(|(first, step, count)| (0..count).map(|n| first.wrapping_add(n.wrapping_mul(step))).collect());
        let walk = (any::<u64>(), vec(-9i64..9, 1..600)).prop_map(|(first, by)| {
            by.iter()
                .scan(first, |at, by| {
                    *at = at.wrapping_add_signed(*by);
                    Some(*at)
                })
                .collect()
        });
        prop_oneof![near, even, walk]
    }

    proptest! {
        #[test]
        fn numbers_are_opened_as_they_were_packed_and_end_where_they_end(numbers in numbers(), next in numbers()) {
            let mut bytes = packed(&numbers);
            prop_assert_eq!(opened(&bytes, numbers.len()), Some(numbers.clone()));
            let next: Vec<u64> = next.into_iter().cycle().take(numbers.len()).collect();
            pack(&next, &mut bytes).unwrap();
            let (mut parts, mut told) = (Parts::of(&bytes, next.len()).unwrap(), Vec::new());
            parts.next(|_| ()).unwrap();
            parts.next(|number| told.push(number)).unwrap();
            told.resize(next.len(), 0);
            prop_assert_eq!((told, parts.is_done()), (next, true));
        }

        #[test]
        fn no_bytes_panic_and_none_give_more_numbers_than_are_asked_for(bytes in vec(any::<u8>(), 0..80), count in 1usize..600) {
            let bytes = [packed(&[0]), bytes].concat();
            let mut parts = Parts::of(&bytes, count).unwrap();
            let mut given = 0;
            while !parts.is_done() && parts.next(|_| given += 1).is_some() {
                prop_assert!(given <= count);
                given = 0;
            }
        }
    }

    #[test]
    fn what_does_not_change_or_changes_evenly_takes_a_few_bytes() {
        let begun = packed(&[0]).len() - 1;
        let takes = |numbers: Vec<u64>| packed(&numbers).len() - begun;
        assert_eq!(takes(vec![0; 1_000]), 1);
        assert_eq!(takes(vec![100; 1_000]), 2);
        assert_eq!(takes((0..1_000).map(|n| 1_700_000_000_000 + n * 10_000).collect()), 1 + 6 + 3);
    }

    #[test]
    fn of_what_grows_the_differences_are_packed_and_of_noise_the_numbers() {
        let turned = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let noise = |n: u64| turned(turned(n) ^ turned(n) >> 29) >> 54;
        let grows: Vec<u64> = (0..1_000).map(|n| n * 1_000 + noise(n) / 64).collect();
        assert!(matches!(spec(&grows), DeltaSpec::TryConsecutive(1)));
        assert!(matches!(spec(&(0..1_000).map(noise).collect::<Vec<_>>()), DeltaSpec::NoOp));
        // A load that comes and goes: far from 0, and noise while it is there.
        let bursts: Vec<u64> = (0..1_000).map(|n| if n / 50 % 2 == 0 { 0 } else { 100_000 + noise(n) }).collect();
        assert!(matches!(spec(&bursts), DeltaSpec::NoOp));
    }
}
