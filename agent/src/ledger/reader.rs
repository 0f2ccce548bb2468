//! Readers that retention waits for: `readers/<name>` holds the number of the last line that a reader needs no more, as
//! decimal text. A reader counts from the moment it is configured or its file is there, whichever comes first; a file
//! that cannot be read acknowledges nothing.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::error::{LedgerError, Op};
use super::files;

/// The directory inside the metering directory.
const READERS_NAME: &str = "readers";
/// A number of 20 digits and a newline.
const MOST_BYTES: u64 = 21;

/// What each reader has acknowledged, the configured ones first; 0 is nothing.
pub(super) fn acknowledged(dir: &Path, configured: &[String]) -> Vec<(String, u64)> {
    let dir = dir.join(READERS_NAME);
    let mut names = configured.to_vec();
    match fs::read_dir(&dir) {
        Ok(entries) => {
            let found = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let readers = found.filter(|name| is_name(name) && !configured.contains(name));
            names.extend(readers);
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%error, "the ledger's readers cannot be listed; nothing is removed");
            names.push("unknown".to_owned());
        }
    }
    let of = |name: String| {
        let seq = load(&dir.join(&name)).unwrap_or_else(|error| {
            tracing::warn!(reader = name, %error, "what a reader acknowledged cannot be read; it counts as nothing");
            0
        });
        (name, seq)
    };
    names.into_iter().map(of).collect()
}

/// Notes that a reader needs the lines up to `seq` no more; durable when it returns.
///
/// # Errors
/// [`LedgerError::Io`]: a name that is none, or what the file system says.
pub fn acknowledge(dir: &Path, name: &str, seq: u64) -> Result<(), LedgerError> {
    if !is_name(name) {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "a reader's name is 1 to 64 of [A-Za-z0-9._-]");
        return Err(LedgerError::Io { doing: "name", path: name.into(), op: Op::Open, source });
    }
    make_dir(dir)?;
    files::put(&dir.join(READERS_NAME), name, |out| writeln!(out, "{seq}"))
}

/// Makes the directory that readers write to.
pub(super) fn make_dir(dir: &Path) -> Result<(), LedgerError> {
    let path = dir.join(READERS_NAME);
    let io = |source| LedgerError::Io { doing: "make", path: path.clone(), op: Op::Open, source };
    DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io)
}

/// Whether a file's name can be a reader's; drafts of such files cannot.
fn is_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    plain && (1..=64).contains(&name.len()) && !name.starts_with('.') && !name.ends_with(".tmp")
}

fn load(path: &Path) -> io::Result<u64> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut text = String::new();
    file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    text.trim_end().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_counts_once_configured_or_there_and_says_how_far_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let of = |configured: &[&str]| {
            let configured: Vec<_> = configured.iter().map(|name| (*name).to_owned()).collect();
            acknowledged(dir.path(), &configured)
        };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&["billing"]), [("billing".to_owned(), 0)]);
        acknowledge(dir.path(), "billing", 7).unwrap();
        acknowledge(dir.path(), "billing", u64::MAX).unwrap();
        assert_eq!(of(&[]), [("billing".to_owned(), u64::MAX)]);
        for damage in ["", "x", "-1", "18446744073709551616"] {
            fs::write(dir.path().join("readers/billing"), damage).unwrap();
            assert_eq!(of(&["billing"]), [("billing".to_owned(), 0)], "{damage:?}");
        }
        for wrong in ["", "../x", ".x", "a/b", "x.tmp", &"x".repeat(65)] {
            assert!(acknowledge(dir.path(), wrong, 1).is_err(), "{wrong}");
        }
    }
}
