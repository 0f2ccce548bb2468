//! Where events are handed over, and when they count as handed over: written and synced, or acknowledged.

mod again;
mod http;
#[cfg(feature = "nats")]
mod nats;

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::Context as _;

pub(super) use http::Http;
#[cfg(feature = "nats")]
pub(super) use nats::Nats;

use crate::ledger::{Event, ExportFormat};

/// Takes events; they are safe when it returns.
pub(super) trait Outlet {
    fn hand(&mut self, events: &[Event]) -> anyhow::Result<()>;
}

/// A file that is appended to, or standard output.
pub(super) struct Stream {
    to: Box<dyn Write>,
    file: Option<File>,
    format: ExportFormat,
    batch: usize,
}

impl Stream {
    pub(super) fn stdout(format: ExportFormat, batch: usize) -> Self {
        Self { to: Box::new(io::stdout()), file: None, format, batch }
    }

    /// Appends; a line that a crash left half written is cut off, because its event is handed over again.
    pub(super) fn append(path: &Path, format: ExportFormat, batch: usize) -> anyhow::Result<Self> {
        let open = || -> io::Result<(File, File)> {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            if file.metadata()?.is_file() {
                let whole = whole_lines(&mut file)?;
                file.set_len(whole)?;
            }
            let other = file.try_clone()?;
            Ok((file, other))
        };
        let (to, file) = open().with_context(|| format!("{} cannot be appended to", path.display()))?;
        Ok(Self { to: Box::new(to), file: Some(file), format, batch })
    }
}

impl Outlet for Stream {
    fn hand(&mut self, events: &[Event]) -> anyhow::Result<()> {
        for some in events.chunks(self.batch.max(1)) {
            self.to.write_all(&self.format.lines(some))?;
        }
        self.to.flush()?;
        match self.file.as_ref().map(File::sync_data) {
            // A pipe or a terminal has nothing to sync.
            Some(Err(e)) if e.kind() != io::ErrorKind::InvalidInput => Err(e.into()),
            _ => Ok(()),
        }
    }
}

/// Where the last newline ends.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    const PIECE: u64 = 1 << 16;
    let mut end = file.metadata()?.len();
    let mut piece = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(PIECE);
        file.seek(SeekFrom::Start(begin))?;
        piece.clear();
        Read::take(&mut *file, end - begin).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
