//! Another process's tun or macvtap file, asked which interface it stands for.
//!
//! The file is duplicated (pidfd_getfd(2), Linux 5.6), asked, and closed at once: a duplicate that is kept would keep a
//! tap alive that its VM let go of. `unsafe` stands here because neither the system calls nor the ioctls of
//! `include/uapi/linux/if_tun.h` have a safe wrapper in what we depend on.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::errno::Errno;

use super::NetNs;

/// `_IOR('T', 210, unsigned int)`: fills a `struct ifreq`.
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
/// `_IO('T', 227)` (Linux 5.2): a descriptor of the interface's namespace.
const TUNGETDEVNETNS: libc::c_ulong = 0x54e3;
/// The interface outlives its descriptors.
const IFF_PERSIST: u16 = 0x0800;

/// A process, by a descriptor that never means another one.
pub(super) struct PidFd(OwnedFd);

/// What a tun file says of its interface.
pub(super) struct TunFile {
    pub(super) name: String,
    /// The interface outlives its descriptors; not told by macvtap, which always does.
    pub(super) persistent: bool,
    /// The namespace the interface is in; `None` where the kernel does not tell.
    pub(super) netns: Option<NetNs>,
}

impl PidFd {
    /// # Errors
    /// ESRCH when the process is gone; ENOSYS before Linux 5.3.
    pub(super) fn open(tgid: u32) -> io::Result<Self> {
        // SAFETY: the call takes two integers and returns a descriptor that nobody else owns.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tgid, 0) };
        let fd = i32::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
        // SAFETY: as above: the descriptor is new and ours.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// What the process's descriptor `fd` stands for; `None` if it is attached to no interface.
    ///
    /// # Errors
    /// When it may not be duplicated, is closed by now, or is no tun file.
    pub(super) fn tun(&self, fd: i32) -> io::Result<Option<TunFile>> {
        // SAFETY: three integers in, a descriptor out that nobody else owns.
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), fd, 0) };
        let copy = i32::try_from(Errno::result(copy)?).map_err(io::Error::other)?;
        // SAFETY: as above; it is closed when this function returns.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        ask(&copy)
    }
}

fn ask(file: &OwnedFd) -> io::Result<Option<TunFile>> {
    // `struct ifreq`: a name of 16 bytes, and a union that begins with `short ifr_flags`; 40 bytes on 64-bit.
    let mut request = [0_u8; 64];
    // SAFETY: the kernel writes one `struct ifreq`, which is smaller than `request`.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNGETIFF, request.as_mut_ptr()) };
    match Errno::result(done) {
        Ok(_) => {}
        // tun says EBADFD, macvtap ENOLINK, of a file without an interface.
        Err(Errno::EBADFD | Errno::ENOLINK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let (name, flags) = request.split_at(16);
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let persistent = u16::from_ne_bytes([flags[0], flags[1]]) & IFF_PERSIST != 0;
    let name = String::from_utf8_lossy(&name[..end]).into_owned();
    Ok(Some(TunFile { name, persistent, netns: netns(file) }))
}

fn netns(file: &OwnedFd) -> Option<NetNs> {
    // SAFETY: the ioctl takes no argument and returns a descriptor that nobody else owns.
    let fd = unsafe { libc::ioctl(file.as_raw_fd(), TUNGETDEVNETNS, 0) };
    let fd = Errno::result(fd).ok()?;
    // SAFETY: as above: the descriptor is new and ours.
    NetNs::from_fd(unsafe { OwnedFd::from_raw_fd(fd) }).ok()
}

/// For tests: opens a tap, making it if it is not there.
#[cfg(test)]
pub(super) fn attach(name: &str, flags: u16) -> io::Result<std::fs::File> {
    let file = std::fs::File::options().read(true).write(true).open("/dev/net/tun")?;
    set(&file, name, flags)?;
    Ok(file)
}

/// For tests: makes a file a queue of an interface.
#[cfg(test)]
pub(super) fn set(file: &std::fs::File, name: &str, flags: u16) -> io::Result<()> {
    let mut request = [0_u8; 64];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which is smaller than `request`.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54ca, request.as_mut_ptr()) })?;
    Ok(())
}

/// For tests: lets a tap outlive its files.
#[cfg(test)]
pub(super) fn persist(file: &std::fs::File) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes an integer.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54cb, 1) })?;
    Ok(())
}
