//! One process writes a ledger: an exclusive `flock` on `<dir>/lock`, which dies with its holder.
//! The file holds the holder's pid as text, for the error of the second one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::LOCK_NAME;
use super::error::{LedgerError, Op};

/// A `verify` holds the lock for an instant to see whether a writer lives; a writer waits that long.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Held for as long as this process writes the ledger.
#[derive(Debug)]
pub struct WriteLock {
    path: PathBuf,
    _held: Flock<File>,
}

impl WriteLock {
    /// Takes the lock of a metering directory.
    ///
    /// # Errors
    /// [`LedgerError::Locked`] with the holder's pid, or [`LedgerError::Io`].
    pub fn take(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join(LOCK_NAME);
        let io = |doing, source| LedgerError::Io { doing, path: path.clone(), op: Op::Open, source };
        let mut file = open(&path, true).map_err(|e| io("open", e))?;
        for _ in 0..TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut held) => {
                    name_holder(&mut held).map_err(|e| io("write", e))?;
                    return Ok(Self { path, _held: held });
                }
                Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
                Err((_, errno)) => return Err(io("lock", errno.into())),
            }
            thread::sleep(PAUSE);
        }
        let mut pid = String::new();
        // The text is only a hint: the lock itself says that somebody holds it.
        if file.take(16).read_to_string(&mut pid).is_err() || pid.trim().is_empty() {
            pid = "unknown".to_owned();
        }
        Err(LedgerError::Locked { path, pid: pid.trim().to_owned() })
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a process holds the write lock of a metering directory now.
///
/// # Errors
/// The lock file cannot be opened for reading; a missing one means nobody writes.
pub fn is_written(dir: &Path) -> io::Result<bool> {
    let file = match open(&dir.join(LOCK_NAME), false) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(false),
        Err((_, Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn open(path: &Path, writing: bool) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits();
    OpenOptions::new().read(true).write(writing).create(writing).mode(0o600).custom_flags(flags).open(path)
}

fn name_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
