//! What a VMM's process does with storage: bytes it read and wrote, as the kernel accounts them to the process.
//!
//! `/proc/PID/io` adds up all threads, ended ones too, over the process's whole life. `read_bytes` counts at the block
//! layer (what was in the page cache is none), `write_bytes` when a page is dirtied (`task_io_account_write`), so both
//! are the process's own, whoever writes the page back. Network file systems count too, sockets do not.
//! `cancelled_write_bytes` (dirty pages that a truncation took away) is told beside and never subtracted: it can belong
//! to what another process wrote, and a counter must not fall.

pub mod argument;
pub mod format;
pub mod group;

pub mod image;
mod vhdx;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

use super::process::ProcError;
use crate::units::Tgid;

/// Seven lines of at most 45 bytes.
const MAX_FILE: usize = 512;

/// Storage I/O of a process since it began, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskIo {
    /// Fetched from storage.
    pub read_bytes: u64,
    /// Made to be written to storage.
    pub written_bytes: u64,
    /// Of those, or of what others wrote: dirty pages that were truncated before they were written.
    pub cancelled_bytes: u64,
}

/// The open `io` file of one process; the descriptor pins it, so a reused id cannot be read through it.
#[derive(Debug)]
pub struct TaskIoFile(File);

impl TaskIoFile {
    /// Opens the file of a process that exists.
    ///
    /// # Errors
    /// [`ProcError::Gone`] if the process was reaped (or the kernel has no CONFIG_TASK_IO_ACCOUNTING),
    /// [`ProcError::Denied`].
    pub fn open(root: &Path, tgid: Tgid) -> Result<Self, ProcError> {
        let path = root.join(format!("proc/{tgid}/io"));
        File::open(&path).map(Self).map_err(|error| ProcError::of(error, &path))
    }

    /// What the process and its threads did so far; `None` once it was reaped. A zombie still answers, with everything.
    ///
    /// # Errors
    /// If the read fails otherwise (EACCES without CAP_SYS_PTRACE), or the text is not what proc(5) says.
    pub fn read(&self) -> io::Result<Option<TaskIo>> {
        let mut text = [0; MAX_FILE];
        let length = match self.0.read_at(&mut text, 0) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(None),
            Err(error) => return Err(error),
        };
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "no read_bytes and write_bytes");
        parse(text.get(..length).unwrap_or_default()).map(Some).ok_or_else(malformed)
    }

    /// The numbers of a process that runs no more; `None` if it was reaped. Asked twice: up to Linux 6.6 a reading that
    /// falls into the reaping has the leader's part alone, and then the second finds nothing.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_final(&self) -> io::Result<Option<TaskIo>> {
        let first = self.read()?;
        Ok(first.filter(|_| matches!(self.read(), Ok(Some(_)))))
    }
}

/// Lines that are ended; a cut number is a wrong one.
fn parse(text: &[u8]) -> Option<TaskIo> {
    let whole = text.get(..=text.iter().rposition(|byte| *byte == b'\n')?)?;
    let number = |key: &str| {
        let mut lines = whole.split(|byte| *byte == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(key.as_bytes()))?;
        std::str::from_utf8(value).ok()?.parse().ok()
    };
    Some(TaskIo {
        read_bytes: number("read_bytes: ")?,
        written_bytes: number("write_bytes: ")?,
        cancelled_bytes: number("cancelled_write_bytes: ")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_kernels_text_is_read() {
        let text = b"rchar: 7\nwchar: 8\nsyscr: 1\nsyscw: 2\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 512\n";
        let io = TaskIo { read_bytes: 4096, written_bytes: 8192, cancelled_bytes: 512 };
        assert_eq!(parse(text), Some(io));
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), None, "{cut} bytes");
        }
    }

    #[test]
    fn a_zombie_tells_all_and_a_reaped_process_nothing() {
        let Ok(mut child) = Command::new("cat").stdin(Stdio::piped()).spawn() else { return };
        let file = TaskIoFile::open(Path::new("/"), Tgid(child.id())).unwrap();
        let before = file.read().unwrap().unwrap();
        drop(child.stdin.take());
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        while !stat().contains(") Z ") {
            std::thread::yield_now();
        }
        let zombie = file.read_final().unwrap().unwrap();
        assert!(zombie.read_bytes >= before.read_bytes && zombie.written_bytes >= before.written_bytes);
        child.wait().unwrap();
        assert_eq!((file.read().unwrap(), file.read_final().unwrap()), (None, None));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
        }
    }
}
