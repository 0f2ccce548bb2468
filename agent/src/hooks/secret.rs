//! A hook's secret: read from its file at each try, so that a new one needs no restart; never logged.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The longest secret.
const MAX_BYTES: u64 = 4096;
/// Permissions of those who are neither owner nor group.
const OTHERS: u32 = 0o007;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("secret_file {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Everybody could read it.
    #[error("secret_file {0} is open to everybody (mode o+rwx must be off: chmod o= {0})")]
    Open(PathBuf),
    /// Nothing in it, or too much, or no text of one line.
    #[error("secret_file {0} must hold one line of 1 to {MAX_BYTES} printable characters")]
    Malformed(PathBuf),
}

/// A secret. It shows nothing of itself.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Reads it.
    ///
    /// # Errors
    /// When the file is not there, everybody's, or holds something else than one line.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
        // A FIFO would hold up whoever opens it.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        if meta.mode() & OTHERS != 0 {
            return Err(SecretError::Open(path.to_owned()));
        }
        if !meta.is_file() {
            return Err(SecretError::Malformed(path.to_owned()));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 2).read_to_end(&mut bytes).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| SecretError::Malformed(path.to_owned()))?;
        let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        let sound = (1..=MAX_BYTES).contains(&(line.len() as u64)) && line.bytes().all(|b| (0x20..0x7f).contains(&b));
        if sound { Ok(Self(line.to_owned())) } else { Err(SecretError::Malformed(path.to_owned())) }
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_one_line_of_a_file_that_is_not_everybodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let read = |text: &[u8], mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Secret::read(&path).map(|secret| secret.reveal().to_owned()).map_err(|error| error.to_string())
        };
        for text in ["abc", "abc\n", "abc\r\n"] {
            assert_eq!(read(text.as_bytes(), 0o640).as_deref(), Ok("abc"));
        }
        assert!(read(b"abc", 0o644).unwrap_err().contains("open to everybody"));
        let long = vec![b'x'; 4097];
        for text in [&b""[..], b"\n", b"a\nb", b"a\0b", b"\xff", "ä".as_bytes(), &long] {
            assert!(read(text, 0o600).unwrap_err().contains("one line"), "{text:?}");
        }
        assert!(read(&long[1..], 0o600).is_ok());
        assert!(Secret::read(Path::new("/nonexistent/s")).is_err());
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(Secret::read(&fifo).is_err(), "and it came back at once");
    }
}
