//! How far an export has come: the last line that was handed over, in a file that is there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::Line;

/// A line that was handed over and acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The ledger's id.
    pub ledger: String,
    /// The line's number.
    pub seq: u64,
    /// Its id.
    pub id: String,
}

/// What can be wrong with a cursor's file.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// It cannot be read or written.
    #[error("cannot {doing} the cursor {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is none.
    #[error("{path} is no cursor; remove it to hand over everything again")]
    Json {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Cursor {
    /// Behind this line.
    #[must_use]
    pub fn at(line: &Line) -> Self {
        Self { ledger: line.ledger.clone(), seq: line.seq, id: line.id.clone() }
    }

    /// What a file says; `None` where there is no file yet.
    ///
    /// # Errors
    /// [`CursorError`].
    pub fn load(path: &Path) -> Result<Option<Self>, CursorError> {
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| CursorError::Json { path: path.to_owned(), source }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CursorError::Io { doing: "read", path: path.to_owned(), source }),
        }
    }

    /// Writes the file: after this returns, it survives a power cut.
    ///
    /// # Errors
    /// [`CursorError`].
    pub fn store(&self, path: &Path) -> Result<(), CursorError> {
        let io = |doing| move |source| CursorError::Io { doing, path: path.to_owned(), source };
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let written = File::create(&part).and_then(|mut file| {
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
        written.map_err(io("write"))?;
        fs::rename(&part, path).map_err(io("replace"))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync the directory of"))
    }
}
