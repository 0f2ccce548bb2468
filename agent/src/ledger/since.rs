//! The lines of a metering directory behind a number, in order, for who missed them. Reads as they lie; what is damaged
//! is `verify`'s to tell. A file that retention removes meanwhile leaves a hole in the numbers, which the reader sees.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use serde::Deserialize;

use super::Kind;
use super::files::Listing;
use super::scan::Scanner;

const BUFFER_BYTES: usize = 1 << 16;

/// A line as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// Its number.
    pub seq: u64,
    /// Its kind.
    pub kind: Kind,
    /// Its bytes without newline.
    pub line: Vec<u8>,
}

/// As much of a line as says whether it is wanted.
#[derive(Deserialize)]
struct Head {
    seq: u64,
    kind: Kind,
}

/// The lines with numbers in `(after, upto]`. Nothing is opened before the first is asked for, one file at a time.
///
/// # Errors
/// The directory cannot be listed.
pub fn since(dir: &Path, after: u64, upto: u64) -> io::Result<impl Iterator<Item = io::Result<Since>> + Send + use<>> {
    let Listing { rotated, live, .. } = Listing::of(dir)?;
    // A file ends where the next one begins.
    let ends: Vec<u64> = rotated.iter().skip(1).map(|next| next.first).chain([u64::MAX]).collect();
    let old = rotated.into_iter().zip(ends).filter(move |(_, end)| *end > after.saturating_add(1));
    let old = old.map(|(file, _)| match File::open(&file.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    });
    let files = old.chain(live.map(|file| Ok(Some(file))));
    let lines = files.flat_map(|file| match file {
        Ok(file) => {
            Lines { from: file.map(|file| Scanner::new(BufReader::with_capacity(BUFFER_BYTES, file))), failed: None }
        }
        Err(error) => Lines { from: None, failed: Some(error) },
    });
    let wanted = lines.filter(move |line| line.as_ref().map_or(true, |line| line.seq > after));
    Ok(wanted.take_while(move |line| line.as_ref().map_or(true, |line| line.seq <= upto)))
}

/// The lines of one file.
struct Lines {
    from: Option<Scanner<BufReader<File>>>,
    failed: Option<io::Error>,
}

impl Iterator for Lines {
    type Item = io::Result<Since>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        loop {
            let raw = match self.from.as_mut()?.next_line() {
                Ok(raw) => raw.filter(|raw| raw.complete)?,
                Err(error) => {
                    self.from = None;
                    return Some(Err(error));
                }
            };
            if let Ok(Head { seq, kind }) = serde_json::from_slice(&raw.bytes) {
                return Some(Ok(Since { seq, kind, line: raw.bytes }));
            }
        }
    }
}
