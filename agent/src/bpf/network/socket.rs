//! Options of sockets that nix does not know.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

/// Bytes of what is given and taken.
const INT: libc::socklen_t = 4;
const LONG: libc::socklen_t = 8;

/// Puts a filter on a socket.
pub(super) fn put_filter(socket: impl AsFd, filter: BorrowedFd<'_>) -> io::Result<()> {
    let (socket, filter) = (socket.as_fd().as_raw_fd(), filter.as_raw_fd());
    let at = std::ptr::from_ref(&filter).cast();
    // SAFETY: the kernel reads one `int`.
    let answer = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, at, INT) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket's number to the kernel, which no other ever has (`SO_COOKIE`, Linux 4.12).
pub(super) fn cookie(socket: impl AsFd) -> io::Result<u64> {
    let (mut cookie, mut length) = (0_u64, LONG);
    let at = (&raw mut cookie).cast();
    // SAFETY: the kernel writes as many bytes as the number has.
    let answer =
        unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, at, &raw mut length) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
