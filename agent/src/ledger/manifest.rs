//! `manifest.json`: which files a ledger has, from which line to which, with their hashes, and the newest line that was
//! durable when it was written (`head`). It says nothing that the files do not say, and serves to notice what others
//! did to them: a file that is gone, changed, or ends too early. Lost or torn, it is made anew from the files.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::digest::hex;
use super::error::LedgerError;
use super::wire::When;
use super::{Mark, files};

/// The file's name inside the metering directory.
pub(super) const MANIFEST_NAME: &str = "manifest.json";

const VERSION: u32 = 1;

/// A file that is no more written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    /// The numbers of its first and last line.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) bytes: u64,
    /// Of the whole file.
    pub(super) sha256: String,
    /// Of its last line: the `prev` of the file behind it.
    pub(super) head: String,
    /// When its last line was written, unix nanoseconds.
    #[serde(with = "instant")]
    pub(super) until: u64,
}

/// The newest durable line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) id: String,
    /// Of the line: the `prev` of the one behind it.
    pub(super) sha256: String,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) v: u32,
    pub(super) ledger: String,
    /// Oldest first; the live file is not among them.
    pub(super) files: Vec<Entry>,
    pub(super) head: Option<Head>,
}

impl Manifest {
    pub(super) fn new(ledger: &str, files: Vec<Entry>, last: Option<&Mark>, prev: &str) -> Self {
        let head = last.map(|last| Head { seq: last.seq, id: last.id.clone(), sha256: prev.to_owned() });
        Self { v: VERSION, ledger: ledger.to_owned(), files, head }
    }

    /// Reads it; one that cannot be read is told in the log and counts as none.
    pub(super) fn load(dir: &Path) -> Option<Self> {
        let path = dir.join(MANIFEST_NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the manifest cannot be read; the files are believed");
                return None;
            }
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(manifest) if manifest.v == VERSION => Some(manifest),
            Ok(Self { v, .. }) => {
                tracing::warn!(path = %path.display(), v, "the manifest is of another version; the files are believed");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the manifest is damaged; the files are believed");
                None
            }
        }
    }

    /// Puts it into its place; durable when it returns.
    pub(super) fn store(&self, dir: &Path) -> Result<(), LedgerError> {
        files::put(dir, MANIFEST_NAME, |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            out.write_all(b"\n")
        })
    }
}

/// What is known of a file while its lines pass by.
#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    /// Number and instant of writing of its first line and of its last.
    pub(super) first: Option<(u64, u64)>,
    last: (u64, u64),
    bytes: u64,
    hash: Sha256,
}

impl Segment {
    /// Takes the next line, without its newline.
    pub(super) fn line(&mut self, seq: u64, recorded_at: u64, bytes: &[u8]) {
        self.first.get_or_insert((seq, recorded_at));
        self.last = (seq, recorded_at);
        self.bytes += bytes.len() as u64 + 1;
        self.hash.update(bytes);
        self.hash.update(b"\n");
    }

    /// Hex SHA-256 of all its lines.
    pub(super) fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    /// Its entry, if it has a line; `head` is its last line's hash.
    pub(super) fn entry(&self, head: &str) -> Option<Entry> {
        let (first, _) = self.first?;
        let (last, until) = self.last;
        let (name, head) = (files::rotated_name(first), head.to_owned());
        Some(Entry { name, first, last, bytes: self.bytes, sha256: self.sha256(), head, until })
    }
}

/// Unix nanoseconds as text that people can read.
mod instant {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::When;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(at: &u64, to: S) -> Result<S::Ok, S::Error> {
        When(*at).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        When::deserialize(from).map(|when| when.0)
    }
}
