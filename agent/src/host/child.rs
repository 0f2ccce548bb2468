//! Takes from a child process, before it runs another program, what it would inherit from this agent.
//!
//! It keeps its standard streams and nothing else: no open file, no capability, no way to get one, and the limits and
//! standing towards the OOM killer of an ordinary process.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// `prctl(PR_SET_DUMPABLE)`: an ordinary process, whose files in `/proc` are its own.
const DUMPABLE: libc::c_ulong = 1;
/// Files an ordinary process may open; more makes programs slow that close all there could be.
const OPEN_FILES: libc::rlim_t = 1024;
/// Descriptors that are looked at one by one before 5.11, where nothing closes a range at exec.
const LOOKED_AT: libc::c_int = 4096;
/// The first descriptor behind the standard streams.
const FIRST: libc::c_uint = 3;

/// Makes the command's child give all that up between fork and exec. It leaves the agent's process group as well.
pub fn confine(command: &mut Command) {
    command.process_group(0);
    // SAFETY: `give_up` runs between fork and exec of a process with threads; it makes system calls only, which are
    // async-signal-safe, takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(give_up);
    }
}

fn give_up() -> io::Result<()> {
    close_others();
    // SAFETY: prctl with these options reads no memory; the surplus arguments are 0, as it asks.
    let refused = unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
    };
    if refused {
        return Err(io::Error::last_os_error());
    }
    be_ordinary();
    Ok(())
}

/// Marks every descriptor behind the standard streams to be closed by the exec.
fn close_others() {
    // SAFETY: close_range takes numbers only; with CLOSE_RANGE_CLOEXEC nothing is closed that this function uses.
    let marked =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) } == 0;
    if marked {
        return;
    }
    for fd in FIRST.cast_signed()..LOOKED_AT {
        // SAFETY: F_SETFD takes a number and fails on a descriptor that is not open.
        unsafe {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// Limits and the OOM killer's score; what is refused here harms nobody.
fn be_ordinary() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let mut files = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both structs live on this stack for the calls, and the kernel fills or reads just them; the path is a
    // C string and the text has the length that is given; the descriptor is this process's own.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut files) == 0 {
            files.rlim_cur = files.rlim_max.min(OPEN_FILES);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files);
        }
        libc::prctl(libc::PR_SET_DUMPABLE, DUMPABLE, 0, 0, 0);
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            libc::write(score, c"0".as_ptr().cast(), 1);
            libc::close(score);
        }
    }
}
