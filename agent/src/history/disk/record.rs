//! What frames hold: a sealed block, the head of a file of open blocks, a line with its open block. Pure.
//!
//! The names of VMs stand here as bytes and nowhere else: no path is made of them.

use super::frame::{HEAD, Kind, put};
use crate::history::block::Block;

/// A sealed block.
#[derive(Debug)]
pub struct BlockOf {
    /// Whose it is: lines have numbers drawn by chance.
    pub line: u64,
    /// Its number in the line.
    pub number: u64,
    /// The save it was written by.
    pub round: u64,
    /// The line's VM.
    pub vm_id: String,
    /// Its samples.
    pub block: Block,
}

/// The head of a file of open blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// Counts the saves.
    pub round: u64,
    /// Lines that follow.
    pub lines: u64,
}

/// A line as it was at a save.
#[derive(Debug, PartialEq, Eq)]
pub struct LineOf {
    /// Its number.
    pub line: u64,
    /// The number of its oldest block: those before were let go.
    pub first: u64,
    /// The number of its open block.
    pub next: u64,
    /// When it is let go, of a VM that has stopped: Unix nanoseconds.
    pub until_unix_ns: Option<u64>,
    /// Its VM.
    pub vm_id: String,
    /// Its open block, if there is anything in it.
    pub open: Option<Block>,
}

/// Adds a sealed block.
pub fn put_block(to: &mut Vec<u8>, (line, number, round): (u64, u64, u64), vm_id: &str, block: &Block) {
    put(to, Kind::Block, |to| {
        [line, number, round].iter().for_each(|number| to.extend_from_slice(&number.to_le_bytes()));
        put_name(to, vm_id);
        to.extend_from_slice(block.written());
    });
}

/// Bytes that a sealed block takes in a file.
#[must_use]
pub fn block_bytes(vm_id: &str, block: &Block) -> u64 {
    (HEAD + 3 * 8 + 2 + vm_id.len() + block.written().len()) as u64
}

/// Adds the head of a file of open blocks.
pub fn put_index(to: &mut Vec<u8>, index: Index) {
    put(to, Kind::Index, |to| {
        [index.round, index.lines].iter().for_each(|number| to.extend_from_slice(&number.to_le_bytes()));
    });
}

/// Adds a line.
pub fn put_line(to: &mut Vec<u8>, line: &LineOf) {
    put(to, Kind::Line, |to| {
        let until = line.until_unix_ns.unwrap_or(0);
        [line.line, line.first, line.next, until].iter().for_each(|n| to.extend_from_slice(&n.to_le_bytes()));
        put_name(to, &line.vm_id);
        if let Some(open) = &line.open {
            to.extend_from_slice(open.written());
        }
    });
}

fn put_name(to: &mut Vec<u8>, vm_id: &str) {
    // A vm_id has 128 bytes at most; a longer one would be read as what it is not, so it is left out whole.
    let length = u16::try_from(vm_id.len()).unwrap_or(0);
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(vm_id.as_bytes().get(..usize::from(length)).unwrap_or_default());
}

impl BlockOf {
    /// What a frame of this kind holds; `None` if it is none.
    #[must_use]
    pub fn read(content: &[u8]) -> Option<Self> {
        let mut rest = content;
        let (line, number, round) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
        Some(Self { line, number, round, vm_id: name(&mut rest)?, block: Block::read(rest)? })
    }
}

impl Index {
    /// As [`BlockOf::read`].
    #[must_use]
    pub fn read(content: &[u8]) -> Option<Self> {
        let mut rest = content;
        let index = Self { round: number(&mut rest)?, lines: number(&mut rest)? };
        rest.is_empty().then_some(index)
    }
}

impl LineOf {
    /// As [`BlockOf::read`].
    #[must_use]
    pub fn read(content: &[u8]) -> Option<Self> {
        let mut rest = content;
        let (line, first, next) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
        let until_unix_ns = Some(number(&mut rest)?).filter(|until| *until > 0);
        let vm_id = name(&mut rest)?;
        let open = if rest.is_empty() { None } else { Some(Block::read(rest)?) };
        Some(Self { line, first, next, until_unix_ns, vm_id, open })
    }
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u64::from_le_bytes(*number))
}

/// A name; an empty one is nobody's.
fn name(rest: &mut &[u8]) -> Option<String> {
    let (length, behind) = rest.split_first_chunk()?;
    let (name, behind) = behind.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *rest = behind;
    std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).map(str::to_owned)
}
