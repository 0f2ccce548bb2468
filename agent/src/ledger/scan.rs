//! Cuts a stream into lines without ever holding more than one line's worth of it.
//! Says where each line begins and whether its newline was there; what a line means is not its business.

use std::io::{self, BufRead};

/// Longest line, newline included, in bytes.
pub const LINE_MAX_BYTES: usize = 16 * 1024;

/// One line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawLine {
    /// 1 is the first.
    pub number: u64,
    /// Byte the line begins at.
    pub offset: u64,
    /// Its bytes without newline, no more than [`LINE_MAX_BYTES`] of them.
    pub bytes: Vec<u8>,
    /// Its true length without newline.
    pub len: u64,
    /// Whether a newline ended it; only the last line can lack one.
    pub complete: bool,
}

impl RawLine {
    /// Whether the line is longer than a ledger line may be, so that `bytes` is not all of it.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.len >= LINE_MAX_BYTES as u64
    }

    /// Byte after the line and its newline.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.len + u64::from(self.complete)
    }
}

/// Reads lines in order.
#[derive(Debug)]
pub struct Scanner<R> {
    from: R,
    number: u64,
    offset: u64,
}

impl<R: BufRead> Scanner<R> {
    /// Begins at the reader's position, which counts as byte 0.
    pub const fn new(from: R) -> Self {
        Self { from, number: 0, offset: 0 }
    }

    /// The next line, or `None` at the end.
    ///
    /// # Errors
    /// What the reader says.
    pub fn next_line(&mut self) -> io::Result<Option<RawLine>> {
        let mut line = RawLine { number: self.number + 1, offset: self.offset, bytes: vec![], len: 0, complete: false };
        while !line.complete {
            let chunk = match self.from.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if chunk.is_empty() {
                break;
            }
            let newline = chunk.iter().position(|b| *b == b'\n');
            let part = &chunk[..newline.unwrap_or(chunk.len())];
            let room = LINE_MAX_BYTES - line.bytes.len();
            line.bytes.extend_from_slice(&part[..part.len().min(room)]);
            line.len += part.len() as u64;
            line.complete = newline.is_some();
            let used = part.len() + usize::from(line.complete);
            self.from.consume(used);
        }
        if line.len == 0 && !line.complete {
            return Ok(None);
        }
        (self.number, self.offset) = (line.number, line.end());
        Ok(Some(line))
    }
}
