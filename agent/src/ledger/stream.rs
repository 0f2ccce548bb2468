//! Stores that are no files: a stream, such as standard error, and nothing at all. A ledger on them begins anew with
//! each agent, because nobody can read back what it said.

use std::io::{self, Write};
use std::path::PathBuf;

use super::{Journal, Recovered, Standing, Store, digest, opening};

/// Lines go to a stream, a group in one write.
pub struct StreamStore<W> {
    to: W,
    bytes: u64,
    /// The last write failed, and part of a line may have been taken.
    torn: bool,
}

impl<W> std::fmt::Debug for StreamStore<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamStore").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<W: Write + Send> StreamStore<W> {
    /// One that writes there.
    pub const fn new(to: W) -> Self {
        Self { to, bytes: 0, torn: false }
    }
}

impl<W: Write + Send> Store for StreamStore<W> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            // What comes is written whole once more, on a line of its own.
            self.to.write_all(b"\n")?;
        }
        self.torn = true;
        self.to.write_all(bytes)?;
        self.to.flush()?;
        self.torn = false;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        // What a failed write left is followed by a newline, not taken back.
        self.bytes = bytes;
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    fn standing(&self) -> io::Result<Standing> {
        Ok(Standing { bytes: self.bytes, in_place: true, modified_ns: 0 })
    }
}

impl<W: Write + Send> Journal<StreamStore<W>> {
    /// A new ledger on a stream that is called `name` where something is said about it.
    ///
    /// # Errors
    /// When no ledger id can be drawn.
    pub fn on_stream(to: W, name: &str, host_id: &str) -> Result<(Self, Recovered), super::LedgerError> {
        let ledger_id = opening::draw_ledger_id()?;
        let found = Recovered { ledger_id, next_seq: 1, prev: digest::NO_PREV.to_owned(), ..Recovered::default() };
        Ok((Self::resume(StreamStore::new(to), PathBuf::from(name), None, host_id, &found), found))
    }
}
