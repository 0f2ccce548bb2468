//! Writes lines into files. A save adds the blocks that were sealed since the last one to a file of sealed blocks, makes
//! them durable, and then puts a file of all open blocks in the place of the last one. So each moment at which it may be
//! cut off leaves all that the last whole save wrote.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use super::{
    Bounds, Disk,
    load::{BLOCKS, DRAFT, OPEN, Run, Segment, add},
    record::{Index, LineOf, block_bytes, put_block, put_index, put_line},
};
use crate::{
    clock::Instant2,
    history::{
        block::Block,
        series::Sealed,
        store::{Line, Live, Store},
    },
    host::free_bytes,
};

/// How much is gathered before it is written, bytes.
const GATHERED: usize = 1 << 20;

/// What is to be written.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    blocks: Vec<(u64, u64)>,
}

impl Disk {
    /// Saves all lines as they are now.
    ///
    /// # Errors
    /// What the file system says, or that too little room is left. What could not be written is written by the next save.
    pub fn save(&mut self, store: &Store, now: Instant2) -> io::Result<()> {
        let live = store.live();
        let by_id: HashMap<u64, Arc<Line>> = live.iter().map(|one| (one.line.id(), Arc::clone(&one.line))).collect();
        self.saved.retain(|line, _| by_id.contains_key(line));
        // What is of no use makes room first.
        let removed = self.let_go(&by_id);
        self.write(&live, now)?;
        self.round += 1;
        self.make_small(&live, &by_id)?;
        removed
    }

    fn write(&mut self, live: &[Live], now: Instant2) -> io::Result<()> {
        let (mut batch, mut open) = (Batch::default(), Vec::new());
        put_index(&mut open, Index { round: self.round, lines: live.len() as u64 });
        for one in live {
            let id = one.line.id();
            let news = one.line.since(self.saved.get(&id).copied().unwrap_or(0));
            self.gather(&mut batch, id, &one.vm_id, &news.sealed)?;
            let until_unix_ns = one.until_ns.map(|until| now.unix_of(until)).or(one.told_until_unix_ns);
            let (vm_id, open_block) = (one.vm_id.clone(), Block::pack(&news.open));
            let told = LineOf { line: id, first: news.first, next: news.next, until_unix_ns, vm_id, open: open_block };
            put_line(&mut open, &told);
        }
        self.append(&mut batch)?;
        self.replace_open(&open)
    }

    fn gather(&mut self, batch: &mut Batch, line: u64, vm_id: &str, blocks: &[Sealed]) -> io::Result<()> {
        for (number, block) in blocks {
            put_block(&mut batch.bytes, (line, *number, self.round), vm_id, block);
            batch.blocks.push((line, *number));
            if batch.bytes.len() >= GATHERED {
                self.append(batch)?;
            }
        }
        Ok(())
    }

    /// Adds what was gathered to the file that is written now, and makes it durable.
    fn append(&mut self, batch: &mut Batch) -> io::Result<()> {
        if batch.bytes.is_empty() {
            return Ok(());
        }
        self.room_for(batch.bytes.len())?;
        let Batch { bytes, blocks } = std::mem::take(batch);
        let mut file = match self.writing.take() {
            Some(file) => file,
            None => self.new_segment()?,
        };
        let Some(segment) = self.segments.last_mut() else { return Ok(()) };
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            // What came of it takes room and is no use. If it stays, its reader finds the torn frame by its sum. The file is
            // not gone on with: the kernel may have dropped what it could not make durable.
            let _ = file.set_len(segment.bytes);
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        for (line, number) in blocks {
            add(&mut segment.runs, line, number);
            let next = self.saved.entry(line).or_default();
            *next = number.saturating_add(1).max(*next);
        }
        self.written += bytes.len() as u64;
        self.writing = (segment.bytes < self.bounds.file_bytes()).then_some(file);
        Ok(())
    }

    fn new_segment(&mut self) -> io::Result<File> {
        let path = self.dir.join(format!("{:016}.{BLOCKS}", self.next_file));
        self.next_file += 1;
        let file = create(&path)?;
        // The next thing may be that an older file is removed.
        File::open(&self.dir)?.sync_all()?;
        self.segments.push(Segment { path, bytes: 0, runs: Vec::new() });
        Ok(file)
    }

    /// A file of open blocks takes the place of the last one once it is durable.
    fn replace_open(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.room_for(bytes.len())?;
        let path = self.dir.join(format!("{:016}.{OPEN}", self.round));
        let draft = path.with_extension(DRAFT);
        let _ = fs::remove_file(&draft);
        let written = create(&draft).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| fs::rename(&draft, &path)) {
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
        File::open(&self.dir)?.sync_all()?;
        self.written += bytes.len() as u64;
        self.open_bytes = bytes.len() as u64;
        for old in std::mem::replace(&mut self.opens, vec![path]) {
            // It stands behind the new one, whose number is higher; the first save of the next agent tries again.
            let _ = fs::remove_file(old);
        }
        Ok(())
    }

    /// Whether there is room for so many bytes, and for what else needs this file system.
    fn room_for(&self, bytes: usize) -> io::Result<()> {
        let Bounds { min_free, .. } = self.bounds;
        let free = free_bytes(&self.dir)?;
        if free >= min_free.saturating_add(bytes as u64) {
            return Ok(());
        }
        let why = format!(
            "{} MiB are free in {}, and less than ledger.min_free ({} MiB) would be left to the ledger",
            free >> 20,
            self.dir.display(),
            min_free >> 20
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }

    /// Removes files in which nothing is left that memory has too.
    fn let_go(&mut self, lines: &HashMap<u64, Arc<Line>>) -> io::Result<()> {
        let is_left = |run: &Run| lines.get(&run.line).is_some_and(|line| line.first() <= run.last);
        let (left, over) =
            std::mem::take(&mut self.segments).into_iter().partition(|segment| segment.runs.iter().any(is_left));
        let (left, over): (Vec<Segment>, Vec<Segment>) = (left, over);
        let newest = left.iter().map(|segment| &segment.path).max();
        if over.iter().any(|segment| newest.is_none_or(|newest| segment.path > *newest)) {
            // It is the one that is written now.
            self.writing = None;
        }
        self.segments = left;
        let mut outcome = Ok(());
        for segment in over {
            if let Err(error) = remove(&segment.path) {
                outcome = Err(error);
                self.segments.insert(0, segment);
            }
        }
        outcome
    }

    /// Where files hold much that is of no use, or are many, what is of use in one is written again and the file removed.
    fn make_small(&mut self, live: &[Live], lines: &HashMap<u64, Arc<Line>>) -> io::Result<()> {
        let names: HashMap<u64, &str> = live.iter().map(|one| (one.line.id(), one.vm_id.as_str())).collect();
        for _ in 0..self.bounds.files() {
            let total: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
            let too_large = total > self.bounds.total_bytes();
            if !too_large && self.segments.len() <= self.bounds.files() {
                return Ok(());
            }
            // Of the others: that in which the least part is of use, or the least of all.
            let others = self.segments.len() - usize::from(self.writing.is_some());
            let cost = |segment: &Segment| {
                let name = |line: &u64| names.get(line).copied().unwrap_or_default();
                let used =
                    blocks(segment, lines).map(|(line, (_, block))| block_bytes(name(&line), &block)).sum::<u64>();
                if too_large { used.saturating_mul(1_000) / segment.bytes.max(1) } else { used }
            };
            let cheapest = self.segments.iter().take(others).enumerate().min_by_key(|(_, segment)| cost(segment));
            let Some((place, segment)) = cheapest else { return Ok(()) };
            let path = segment.path.clone();
            let again: Vec<(u64, Sealed)> = blocks(segment, lines).collect();
            let mut batch = Batch::default();
            for (line, sealed) in again {
                let Some(vm_id) = names.get(&line) else { continue };
                self.gather(&mut batch, line, vm_id, &[sealed])?;
            }
            self.append(&mut batch)?;
            remove(&path)?;
            self.segments.remove(place);
        }
        Ok(())
    }
}

/// The blocks of a file that are left in memory.
fn blocks<'a>(segment: &'a Segment, lines: &'a HashMap<u64, Arc<Line>>) -> impl Iterator<Item = (u64, Sealed)> + 'a {
    segment.runs.iter().flat_map(|run| {
        let left = lines.get(&run.line).map(|line| line.sealed(run.first, run.last)).unwrap_or_default();
        left.into_iter().map(|sealed| (run.line, sealed))
    })
}

/// A new file that nobody else reads.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
