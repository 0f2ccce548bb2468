//! A thread's scheduler accounting from `/proc/<tgid>/task/<tid>/schedstat` (proc_pid_schedstat in fs/proc/base.c).
//!
//! The file is kept open: a read costs under a microsecond, and the descriptor pins the thread, so a reused id can
//! never be read through it. On a kernel without CONFIG_SCHED_INFO the file says `0 0 0`; whoever decides what this
//! host can measure asks [`super::facts::HostFacts`], not this file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

use super::process::ProcError;
use crate::units::{Tgid, Tid};

/// Three u64, two blanks, a newline.
const MAX_LINE: usize = 64;

/// The open `schedstat` file of one thread.
#[derive(Debug)]
pub struct SchedstatFile {
    file: File,
}

impl SchedstatFile {
    /// Opens the file of a thread that exists.
    ///
    /// # Errors
    /// [`ProcError::Gone`] if the thread ended (or the kernel has no schedstat), [`ProcError::Denied`].
    pub fn open(root: &Path, tgid: Tgid, tid: Tid) -> Result<Self, ProcError> {
        let path = root.join(format!("proc/{tgid}/task/{tid}/schedstat"));
        match File::open(&path) {
            Ok(file) => Ok(Self { file }),
            Err(error) => Err(ProcError::of(error, &path)),
        }
    }

    /// Time on a CPU and time waiting for one, both in nanoseconds since the thread began
    /// (`se.sum_exec_runtime`, `sched_info.run_delay`); `None` once the thread is gone.
    ///
    /// # Errors
    /// If the read fails otherwise, or the line is not two numbers.
    pub fn read(&self) -> io::Result<Option<(u64, u64)>> {
        let mut line = [0; MAX_LINE];
        let length = match self.file.read_at(&mut line, 0) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(None),
            Err(error) => return Err(error),
        };
        match parse(line.get(..length).unwrap_or_default()) {
            Some(numbers) => Ok(Some(numbers)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "schedstat does not begin with two numbers")),
        }
    }
}

/// The first two numbers of a schedstat line, which must be ended by something: a cut number is a wrong one.
pub(super) fn parse(line: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(line).ok()?;
    let mut fields = text.split([' ', '\n']);
    let numbers = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().map(|_| numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::mpsc;

    #[test]
    fn cpu_time_of_a_running_thread_grows() {
        let me = Tgid(std::process::id());
        let tid = Tid(u32::try_from(nix::unistd::gettid().as_raw()).unwrap());
        let file = SchedstatFile::open(Path::new("/"), me, tid).unwrap();
        let (first, _) = file.read().unwrap().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        // How long that takes is for those to say who want the same CPU.
        while file.read().unwrap().unwrap().0 <= first + 10_000_000 {
            assert!(std::time::Instant::now() < end, "{first}");
        }
    }

    #[test]
    fn an_ended_thread_reads_as_none_not_as_an_error() {
        let (tell_tid, tid) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell_tid.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = ended.recv();
        });
        let tid = Tid(u32::try_from(tid.recv().unwrap()).unwrap());
        let file = SchedstatFile::open(Path::new("/"), Tgid(std::process::id()), tid).unwrap();
        assert!(file.read().unwrap().is_some());
        drop(end);
        thread.join().unwrap();
        // join() returns when the kernel clears the thread's id, a moment before the task is unhashed.
        let gone = (0..4_000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            file.read().unwrap().is_none()
        });
        assert!(gone);
    }

    #[test]
    fn a_thread_that_never_was_is_gone() {
        let root = tempfile::tempdir().unwrap();
        assert!(SchedstatFile::open(root.path(), Tgid(1), Tid(1)).unwrap_err().is_gone());
    }

    #[test]
    fn a_cut_number_is_no_number() {
        assert_eq!(parse(b"12 34 5\n"), Some((12, 34)));
        for line in [b"12 34".as_slice(), b"12", b"", b"\n", b"a b c", b"12  34 5"] {
            assert_eq!(parse(line), None);
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }
    }
}
