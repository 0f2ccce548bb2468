//! Reads what an earlier agent left: what is whole of it, each block once, and how much was not.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, OpenOptions},
    io::{self, Read as _},
    num::NonZero,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::{
    frame::{Frames, Kind},
    record::{BlockOf, Index, LineOf},
};
use crate::history::{
    block::Block,
    series::{Row, Sealed},
    store::Restored,
};

/// How a file of sealed blocks ends, and one of open blocks.
pub const BLOCKS: &str = "blocks";
/// As above.
pub const OPEN: &str = "open";
/// As above, while it is written.
pub const DRAFT: &str = "new";
/// How much of a file is read, bytes: none is ever written as large.
const MAX_BYTES: u64 = 1 << 30;
/// Files that are read at the same time.
const MAX_THREADS: usize = 4;

/// Blocks of one line that follow each other in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The line.
    pub line: u64,
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
}

/// Adds a block to the runs of a file.
pub fn add(runs: &mut Vec<Run>, line: u64, number: u64) {
    match runs.last_mut() {
        Some(run) if run.line == line && run.last.checked_add(1) == Some(number) => run.last = number,
        _ => runs.push(Run { line, first: number, last: number }),
    }
}

/// A file of sealed blocks.
#[derive(Debug)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// What is in it.
    pub runs: Vec<Run>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The lines, in no order.
    pub lines: Vec<Restored>,
    /// Files of sealed blocks.
    pub segments: Vec<Segment>,
    /// Files that were being written when their agent died.
    pub drafts: Vec<PathBuf>,
    /// Files of open blocks.
    pub opens: Vec<PathBuf>,
    /// Stretches of files that are not as they were written.
    pub damaged: u64,
    /// Files that cannot be read here, and why; they are not touched.
    pub aside: Vec<(PathBuf, String)>,
    /// No file has a number as high.
    pub next_file: u64,
    /// No save had a number as high.
    pub next_round: u64,
}

/// One line, in pieces.
#[derive(Default)]
struct Pieces {
    vm_id: String,
    blocks: BTreeMap<u64, Block>,
    /// The newest save that wrote of it.
    round: u64,
    told: Option<LineOf>,
}

/// Reads a directory.
///
/// # Errors
/// Only if it cannot be listed. A file that cannot be read is put on the list of those left aside.
pub fn load(dir: &Path) -> io::Result<Found> {
    let mut found = Found { next_round: 1, ..Found::default() };
    let mut pieces: HashMap<u64, Pieces> = HashMap::new();
    let (mut blocks, mut opens, mut drafts) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        let list = match (number, path.extension().and_then(|ending| ending.to_str())) {
            (Some(_), Some(BLOCKS)) => &mut blocks,
            (Some(_), Some(OPEN)) => &mut opens,
            (Some(_), Some(DRAFT)) => &mut drafts,
            _ => continue,
        };
        let number = number.unwrap_or(0);
        found.next_file = found.next_file.max(number.saturating_add(1));
        list.push((number, path));
    }
    found.drafts = drafts.into_iter().map(|(_, path)| path).collect();
    blocks.sort();
    let blocks: Vec<PathBuf> = blocks.into_iter().map(|(_, path)| path).collect();
    for (read, path) in read_segments(&blocks).into_iter().zip(blocks) {
        match read {
            Ok(sealeds) => take_segment(path, sealeds, &mut found, &mut pieces),
            Err(why) => found.aside.push((path, why)),
        }
    }
    opens.sort();
    let index = take_open(opens, &mut found, &mut pieces);
    found.lines = choose(pieces, index);
    Ok(found)
}

/// The bytes of a file. Never through a symbolic link, and of regular files only.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe that nobody writes would hold an open without O_NONBLOCK up for ever.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.len() > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file of 1 GiB at most"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of a file of the history, or why it is to be left aside.
fn read_own(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut frames = Frames::of(&bytes);
    // The sum of a frame covers its version, so damage is not taken for one.
    let foreign = frames.next().is_none() && frames.foreign > 0;
    if foreign { Err("was written by another version of kvmeter".to_owned()) } else { Ok(bytes) }
}

/// What is in a file of sealed blocks.
struct Sealeds {
    bytes: u64,
    blocks: Vec<BlockOf>,
    damaged: u64,
}

fn read_segment(path: &Path) -> Result<Sealeds, String> {
    let bytes = read_own(path)?;
    let (mut blocks, mut damaged) = (Vec::new(), 0);
    let mut frames = Frames::of(&bytes);
    for (kind, content) in frames.by_ref() {
        match (kind == Kind::Block).then(|| BlockOf::read(content)).flatten() {
            Some(block) => blocks.push(block),
            None => damaged += 1,
        }
    }
    Ok(Sealeds { bytes: bytes.len() as u64, blocks, damaged: damaged + frames.damaged })
}

/// Reads files of sealed blocks, some at the same time: one waits for the disk while another is checked.
fn read_segments(paths: &[PathBuf]) -> Vec<Result<Sealeds, String>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    if paths.len() < 2 {
        return paths.iter().map(|path| read_segment(path)).collect();
    }
    let share = paths.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let read = |of: &'_ [PathBuf]| of.iter().map(|path| read_segment(path)).collect::<Vec<_>>();
        let all: Vec<_> = paths.chunks(share).map(|of| (of.len(), scope.spawn(move || read(of)))).collect();
        let died =
            |count| (0..count).map(|_| Err("cannot be read: its reader died; this is a bug".to_owned())).collect();
        all.into_iter().flat_map(|(count, thread)| thread.join().unwrap_or_else(|_| died(count))).collect()
    })
}

fn take_segment(path: PathBuf, sealeds: Sealeds, found: &mut Found, pieces: &mut HashMap<u64, Pieces>) {
    let mut runs = Vec::new();
    for of in sealeds.blocks {
        add(&mut runs, of.line, of.number);
        found.next_round = found.next_round.max(of.round.saturating_add(1));
        let line = pieces.entry(of.line).or_default();
        line.vm_id = of.vm_id;
        line.round = line.round.max(of.round);
        // Written twice, it is the same block.
        line.blocks.entry(of.number).or_insert(of.block);
    }
    found.damaged += sealeds.damaged;
    found.segments.push(Segment { bytes: sealeds.bytes, path, runs });
}

/// Takes the newest file of open blocks that is one; its head, if all its lines were read.
fn take_open(files: Vec<(u64, PathBuf)>, found: &mut Found, pieces: &mut HashMap<u64, Pieces>) -> Option<Index> {
    let mut whole = None;
    let mut taken = false;
    for (round, path) in files.into_iter().rev() {
        found.next_round = found.next_round.max(round.saturating_add(1));
        let bytes = match read_own(&path) {
            Ok(bytes) => bytes,
            Err(why) => {
                found.aside.push((path, why));
                continue;
            }
        };
        found.opens.push(path);
        if taken {
            continue;
        }
        let (mut index, mut lines) = (None, 0);
        let mut frames = Frames::of(&bytes);
        for (kind, content) in frames.by_ref() {
            match kind {
                Kind::Index => index = Index::read(content),
                Kind::Line => {
                    let Some(told) = LineOf::read(content) else { continue };
                    lines += 1;
                    let line = pieces.entry(told.line).or_default();
                    line.vm_id.clone_from(&told.vm_id);
                    line.round = line.round.max(round);
                    line.told = Some(told);
                }
                Kind::Block => {}
            }
        }
        whole = index.filter(|index| index.lines == lines && frames.damaged == 0);
        let missing = index.map_or(1, |index| index.lines.saturating_sub(lines));
        found.damaged += frames.damaged.max(missing);
        taken = lines > 0 || whole.is_some();
    }
    whole
}

/// One line a VM. One that no whole list of lines names was let go before that list was written, unless it is newer.
fn choose(pieces: HashMap<u64, Pieces>, index: Option<Index>) -> Vec<Restored> {
    let mut chosen: HashMap<String, (u64, u64, Restored)> = HashMap::new();
    for (id, mut line) in pieces {
        if line.told.is_none() && index.is_some_and(|index| line.round <= index.round) {
            continue;
        }
        let (vm_id, round) = (std::mem::take(&mut line.vm_id), line.round);
        let restored = restored(vm_id.clone(), id, line);
        let newest = restored.newest_ms();
        let older = chosen.get(&vm_id).is_none_or(|(known, at, _)| (*known, *at) < (round, newest));
        if older {
            chosen.insert(vm_id, (round, newest, restored));
        }
    }
    chosen.into_values().map(|(_, _, line)| line).collect()
}

fn restored(vm_id: String, id: u64, pieces: Pieces) -> Restored {
    let (first, told_next, until_unix_ns, open) =
        pieces.told.map_or((0, 0, None, None), |told| (told.first, told.next, told.until_unix_ns, told.open));
    let sealed: Vec<Sealed> = pieces.blocks.into_iter().filter(|(number, _)| *number >= first).collect();
    let behind = sealed.last().map_or(0, |(number, _)| number.saturating_add(1));
    // What was open at the save may have been sealed and written since: then it is in there whole.
    let open: Option<Vec<Row>> = open.filter(|_| behind <= told_next).and_then(|block| block.rows());
    Restored { vm_id, id, sealed, next: behind.max(told_next), open: open.unwrap_or_default(), until_unix_ns }
}
