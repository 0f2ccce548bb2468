//! What the history's files are made of: frames, each with a checksum of its own. Pure.
//!
//! A frame: 8 bytes of mark, version (1), kind (1), two zeros, the length of what it holds (u32), CRC-32 (u32) over
//! everything behind the mark but itself; then what it holds. Numbers are little-endian. Behind a frame that is damaged
//! the next one is found by its mark, so damage costs what it hits and nothing else.

use memchr::memmem;

use crate::account::past::COLUMNS;

/// No UTF-8 text has these bytes, so none that a VM is called by does.
const MARK: [u8; 8] = *b"\xF5kvmhs\xF5\n";
const VERSION: u8 = 2;
const _: () = assert!(COLUMNS == 10, "with another number of columns files are of another version");
/// In front of what a frame holds, bytes.
pub const HEAD: usize = 20;
/// What a frame may hold, bytes: a block of samples that do not compress at all takes 132 KiB.
const MAX: usize = 1 << 20;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sealed block.
    Block,
    /// The head of a file of open blocks.
    Index,
    /// A line and its open block.
    Line,
}

impl Kind {
    const ALL: [(Self, u8); 3] = [(Self::Block, 1), (Self::Index, 2), (Self::Line, 3)];
}

/// Adds a frame whose content is written by `fill`.
pub fn put(to: &mut Vec<u8>, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) {
    let begin = to.len();
    let code = Kind::ALL.into_iter().find(|(known, _)| *known == kind).map_or(0, |(_, code)| code);
    to.extend_from_slice(&MARK);
    to.extend_from_slice(&[VERSION, code, 0, 0]);
    to.extend_from_slice(&[0; 8]);
    fill(to);
    let length = u32::try_from(to.len() - begin - HEAD).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(place) = to.get_mut(begin + 12..begin + 16) {
        place.copy_from_slice(&length);
    }
    let sum = to.get(begin..).and_then(checksum).unwrap_or(0).to_le_bytes();
    if let Some(place) = to.get_mut(begin + 16..begin + HEAD) {
        place.copy_from_slice(&sum);
    }
}

/// The checksum of a whole frame.
fn checksum(frame: &[u8]) -> Option<u32> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(frame.get(8..16)?);
    sum.update(frame.get(HEAD..)?);
    Some(sum.finalize())
}

/// Reads the frames of a file.
#[derive(Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    /// Stretches that are no frames as they were written.
    pub damaged: u64,
    /// Frames that are whole, and of another version than this.
    pub foreign: u64,
}

impl<'a> Frames<'a> {
    /// Of these bytes.
    #[must_use]
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, damaged: 0, foreign: 0 }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = (Kind, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let Some((frame, rest)) = first(self.rest) else {
                self.damaged += 1;
                let behind = self.rest.get(1..).unwrap_or_default();
                let next = memmem::find(behind, &MARK).unwrap_or(behind.len());
                self.rest = behind.get(next..).unwrap_or_default();
                continue;
            };
            self.rest = rest;
            let known = Kind::ALL.into_iter().find(|(_, code)| frame.get(9) == Some(code));
            match known.filter(|_| frame.get(8) == Some(&VERSION)) {
                Some((kind, _)) => return Some((kind, frame.get(HEAD..).unwrap_or_default())),
                None => self.foreign += 1,
            }
        }
        None
    }
}

/// The frame that these bytes begin with, if it is as it was written, and what follows it.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let head = bytes.get(..HEAD).filter(|head| head.starts_with(&MARK))?;
    let length = usize::try_from(u32::from_le_bytes(head.get(12..16)?.try_into().ok()?)).ok()?;
    let (frame, rest) = bytes.split_at_checked(HEAD + length).filter(|_| length <= MAX)?;
    let told = u32::from_le_bytes(head.get(16..HEAD)?.try_into().ok()?);
    (checksum(frame)? == told).then_some((frame, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn file(contents: &[Vec<u8>]) -> Vec<u8> {
        let mut file = Vec::new();
        for content in contents {
            put(&mut file, Kind::Block, |to| to.extend_from_slice(content));
        }
        file
    }

    /// What is read of a file, and how many stretches are damaged.
    fn read(file: &[u8]) -> (Vec<Vec<u8>>, u64) {
        let mut frames = Frames::of(file);
        let found = frames.by_ref().map(|(_, content)| content.to_vec()).collect();
        (found, frames.damaged)
    }

    proptest! {
        #[test]
        fn frames_are_read_as_they_were_written(contents in vec(vec(any::<u8>(), 0..60), 0..6)) {
            prop_assert_eq!(read(&file(&contents)), (contents, 0));
        }

        #[test]
        fn no_bytes_panic_and_none_are_invented(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read(&bytes).0, Vec::<Vec<u8>>::new());
        }
    }

    #[test]
    fn a_flipped_bit_costs_its_frame_and_a_torn_tail_the_last() {
        let contents: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n; 5]).collect();
        let whole = file(&contents);
        let each = whole.len() / 4;
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut left = contents.clone();
            left.remove(bit / 8 / each);
            assert_eq!(read(&flipped), (left, 1), "bit {bit}");
        }
        for length in 0..whole.len() {
            let (found, damaged) = read(&whole[..length]);
            assert_eq!(found, contents[..length / each]);
            assert_eq!(damaged, u64::from(length % each > 0), "{length} bytes");
        }
    }

    #[test]
    fn a_frame_of_another_version_is_told_from_a_damaged_one() {
        let mut other = file(&[vec![7; 9]]);
        other[8] = VERSION + 1;
        assert_eq!(Frames::of(&other).by_ref().count(), 0);
        assert_eq!(read(&other), (vec![], 1), "its sum is not right");
        let sum = checksum(&other).unwrap().to_le_bytes();
        other[16..HEAD].copy_from_slice(&sum);
        let mut frames = Frames::of(&other);
        assert!(frames.next().is_none());
        assert_eq!((frames.foreign, frames.damaged), (1, 0));
    }
}
