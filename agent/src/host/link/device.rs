//! What sysfs shows of an interface's device: whether its packets are handled by the thread that wrote them.
//!
//! A sysfs shows the interfaces of the namespace it was mounted in. Another namespace's is mounted for the question
//! alone, in no directory, and goes with the last file; it keeps no namespace. `unsafe` stands here because fsopen(2)
//! and what belongs to it (Linux 5.2) have no wrapper in what we depend on.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    ptr,
};

use nix::errno::Errno;

use crate::host::{NetNs, file};

/// `FSCONFIG_CMD_CREATE` (include/uapi/linux/mount.h)
const CREATE: libc::c_uint = 6;
/// Packets wait for a NAPI poll (include/uapi/linux/if_tun.h).
const IFF_NAPI: u32 = 0x10;
/// Bytes of a file that are read: a mask of 8192 CPUs has 2304.
const MAX_FILE: u64 = 8 << 10;

/// A device's directory in sysfs; of this device alone, whatever it is renamed to.
#[derive(Debug)]
pub struct LinkDevice {
    directory: File,
}

impl LinkDevice {
    /// Finds the device of an interface.
    ///
    /// # Errors
    /// When it is gone, or a sysfs of another namespace may not be mounted (CAP_SYS_ADMIN).
    pub fn open(netns: &NetNs, ifindex: u32) -> io::Result<Self> {
        let own = NetNs::own().is_ok_and(|own| own.id() == netns.id());
        let directory = if own {
            File::open(Path::new("/sys/class/net").join(name(ifindex)?))?
        } else {
            netns.inside(|| {
                let sysfs = mount()?;
                File::open(within(&sysfs).join("class/net").join(name(ifindex)?))
            })??
        };
        let device = Self { directory };
        // The name may mean another by now.
        if device.number("ifindex")? == ifindex { Ok(device) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Whether what the interface's holder writes may be handled in another task's context: by a NAPI poll (drivers/net/tun.c,
    /// `tun_get_user`), or on another CPU (net/core/dev.c, `get_rps_cpu`).
    ///
    /// # Errors
    /// When the device is gone.
    pub fn defers(&self) -> io::Result<bool> {
        self.number("ifindex")?;
        // Only tun has the first, only a kernel with CONFIG_RPS the others.
        if self.number("tun_flags").is_ok_and(|flags| flags & IFF_NAPI != 0) {
            return Ok(true);
        }
        for queue in fs::read_dir(within(&self.directory).join("queues"))? {
            let queue = queue?.path();
            let is_set =
                |name| read(&queue.join(name)).is_ok_and(|text| text.contains(|c| matches!(c, '1'..='9' | 'a'..='f')));
            if is_set("rps_cpus") || is_set("rps_flow_cnt") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// For tests: has packets handled by these CPUs, a mask in hexadecimal.
    ///
    /// # Errors
    /// When the kernel has no such thing.
    #[cfg(test)]
    pub(crate) fn steer(&self, cpus: &str) -> io::Result<()> {
        fs::write(within(&self.directory).join("queues/rx-0/rps_cpus"), cpus)
    }

    /// A file with one number.
    fn number(&self, name: &str) -> io::Result<u32> {
        let text = read(&within(&self.directory).join(name))?;
        let text = text.trim();
        let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u32::from_str_radix(hex, 16));
        parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let (raw, _) = file::bytes(path, MAX_FILE)?;
    Ok(String::from_utf8_lossy(&raw).into_owned())
}

/// The path of what is open, which may have no other.
fn within(open: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/thread-self/fd/{}", open.as_raw_fd()))
}

fn name(ifindex: u32) -> io::Result<String> {
    Ok(nix::net::if_::if_indextoname(ifindex)?.to_string_lossy().into_owned())
}

/// A sysfs of the calling thread's network namespace.
fn mount() -> io::Result<OwnedFd> {
    // SAFETY: a string that ends with NUL and a number in, a descriptor out that nobody else owns.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"sysfs".as_ptr(), 1) })?;
    let nothing = ptr::null::<libc::c_char>();
    // SAFETY: the command takes neither key nor value.
    let made = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, nothing, nothing, 0) };
    Errno::result(made)?;
    // SAFETY: three numbers in, a descriptor out that nobody else owns.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0) })
}

fn owned(answer: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(Errno::result(answer)?).map_err(io::Error::other)?;
    // SAFETY: the callers' descriptors are new and theirs.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
