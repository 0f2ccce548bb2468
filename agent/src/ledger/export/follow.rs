//! Reads one ledger from its first line on and then as it grows, over rotations, in the order of its numbers.
//! A line is handed out once it is whole and durable. Refuses to skip: a hole, damage, a file that became shorter or a
//! cursor that does not fit end it, because a reader that goes on past them loses money in silence.

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::error::LineError;
use super::super::files::{self, Rotated};
use super::super::scan::Scanner;
use super::super::{FILE_NAME, Line};
use super::Cursor;

const BUFFER_BYTES: usize = 1 << 17;

/// Why following cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is damaged, or not the next one.
    #[error("{path} is damaged at byte {offset}; `kvmeter ledger verify` says more")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// The line's beginning.
        offset: u64,
        /// What is wrong.
        #[source]
        source: LineError,
    },
    /// Somebody cut the file.
    #[error("{path} became shorter than what was read of it, {offset} bytes")]
    Shorter {
        /// Which file.
        path: PathBuf,
        /// How much was read.
        offset: u64,
    },
    /// Lines that were not handed over are not there any more.
    #[error("{path} begins with line {first}, but lines from {due} on are not handed over yet")]
    Gone {
        /// The oldest file.
        path: PathBuf,
        /// Its first line.
        first: u64,
        /// The line that is due.
        due: u64,
    },
    /// The cursor names a line that this ledger does not have.
    #[error("the cursor is line {seq} ({id}) of ledger {ledger}, which is not in {path}; it is another ledger's")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The cursor's ledger.
        ledger: String,
        /// Its line.
        seq: u64,
        /// Its id.
        id: String,
    },
}

/// The file under way.
#[derive(Debug)]
struct Current {
    path: PathBuf,
    file: File,
    /// Up to here lines were handed out.
    offset: u64,
    /// Up to here the file is durable.
    synced: u64,
}

/// A reader that goes on.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    cursor: Option<Cursor>,
    current: Option<Current>,
    last: Option<u64>,
}

impl Follower {
    /// Begins with the ledger in a metering directory; lines up to `cursor` were handed over before.
    #[must_use]
    pub fn new(dir: &Path, cursor: Option<Cursor>) -> Self {
        Self { dir: dir.to_owned(), cursor, current: None, last: None }
    }

    /// The next lines, `most` at most, and whether each is new (behind the cursor); none where there are none yet.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn next(&mut self, most: usize) -> Result<Vec<(Line, Vec<u8>, bool)>, FollowError> {
        loop {
            if self.current.is_none() && !self.open_next()? {
                return Ok(Vec::new());
            }
            let rotated = self.is_rotated()?;
            let lines = self.read(most)?;
            // What was written before the file was rotated away is read before the next one is opened.
            if !lines.is_empty() || !rotated {
                return Ok(lines);
            }
            self.current = None;
        }
    }

    /// Whether all there is was read and the cursor's line was not in it.
    ///
    /// # Errors
    /// [`FollowError::Foreign`].
    pub fn check_cursor(&self) -> Result<(), FollowError> {
        match &self.cursor {
            Some(cursor) if self.last.is_none_or(|last| last < cursor.seq) => Err(self.foreign(cursor)),
            _ => Ok(()),
        }
    }

    fn foreign(&self, cursor: &Cursor) -> FollowError {
        let Cursor { ledger, seq, id } = cursor.clone();
        FollowError::Foreign { path: self.dir.clone(), ledger, seq, id }
    }

    /// The file with the line that is due: a rotated one that begins with it, else the live one.
    fn open_next(&mut self) -> Result<bool, FollowError> {
        let dir = &self.dir;
        let list = |source| FollowError::Io { path: dir.clone(), source };
        // The live file is opened before the others are listed: one that is rotated meanwhile is among them.
        let live = match File::open(dir.join(FILE_NAME)) {
            Ok(file) => Some((dir.join(FILE_NAME), file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(list(e)),
        };
        let due = self.last.map(|last| last.saturating_add(1));
        let rotated = files::rotated(dir).map_err(list)?;
        let next = rotated.into_iter().find(|one| due.is_none_or(|due| due == one.first));
        let found = match next {
            Some(Rotated { path, .. }) => match File::open(&path) {
                Ok(file) => Some((path, file)),
                // Removed as its time was over; the next look finds the one behind it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(FollowError::Io { path, source }),
            },
            None => live,
        };
        let Some((path, file)) = found else { return Ok(false) };
        self.current = Some(Current { path, file, offset: 0, synced: 0 });
        Ok(true)
    }

    /// Whether the file under way is no more the one that is written.
    fn is_rotated(&self) -> Result<bool, FollowError> {
        let Some(current) = &self.current else { return Ok(false) };
        let io = |source| FollowError::Io { path: current.path.clone(), source };
        let ours = current.file.metadata().map_err(io)?;
        match fs::metadata(self.dir.join(FILE_NAME)) {
            Ok(live) => Ok((live.dev(), live.ino()) != (ours.dev(), ours.ino())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(io(source)),
        }
    }

    fn read(&mut self, most: usize) -> Result<Vec<(Line, Vec<u8>, bool)>, FollowError> {
        let Some(current) = &mut self.current else { return Ok(Vec::new()) };
        let (path, begin) = (current.path.clone(), current.offset);
        let io = |source| FollowError::Io { path: path.clone(), source };
        let len = current.file.metadata().map_err(io)?.len();
        if len < begin {
            return Err(FollowError::Shorter { path, offset: begin });
        }
        // The agent shows a line only after syncing it; who reads the file itself has to see to that too.
        if len > current.synced {
            current.file.sync_data().map_err(io)?;
            current.synced = len;
        }
        current.file.seek(SeekFrom::Start(begin)).map_err(io)?;
        let from = io::Read::take(&current.file, len - begin);
        let mut scanner = Scanner::new(BufReader::with_capacity(BUFFER_BYTES, from));
        let (mut raws, mut end) = (Vec::new(), begin);
        while raws.len() < most
            && let Some(raw) = scanner.next_line().map_err(io)?.filter(|raw| raw.complete)
        {
            end = begin + raw.end();
            raws.push(raw);
        }
        drop(scanner);
        current.offset = end;
        let mut lines = Vec::with_capacity(raws.len());
        for raw in raws {
            let damaged = |source| FollowError::Damaged { path: path.clone(), offset: begin + raw.offset, source };
            let line = if raw.is_too_long() { Err(LineError::TooLong) } else { Line::parse(&raw.bytes) };
            let line = line.map_err(damaged)?;
            let new = self.place(&line, &path, damaged)?;
            lines.push((line, raw.bytes, new));
        }
        Ok(lines)
    }

    /// Whether the line is new; an error where it is not the one that is due.
    fn place(
        &mut self,
        line: &Line,
        path: &Path,
        damaged: impl Fn(LineError) -> FollowError,
    ) -> Result<bool, FollowError> {
        match self.last.and_then(|last| last.checked_add(1)) {
            Some(due) if line.seq != due => return Err(damaged(LineError::Seq { expected: due, found: line.seq })),
            _ => {}
        }
        let first = self.last.is_none();
        self.last = Some(line.seq);
        let Some(cursor) = &self.cursor else { return Ok(true) };
        let due = cursor.seq.saturating_add(1);
        if first && line.seq > due {
            return Err(FollowError::Gone { path: path.to_owned(), first: line.seq, due });
        }
        let same = line.ledger == cursor.ledger && (line.seq != cursor.seq || line.id == cursor.id);
        if !same {
            return Err(self.foreign(cursor));
        }
        Ok(line.seq > cursor.seq)
    }
}
