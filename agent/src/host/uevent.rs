//! KVM's own announcements over netlink: a VM object was created or destroyed (`kvm_uevent_notify_change`).
//!
//! They are wake-ups, not facts: sent before the VM's file is installed, lost when the socket overflows, and about KVM
//! objects rather than VMs. `CREATED` only grows, so a gap in it proves a loss. Needs no privilege; messages of anyone
//! but the kernel are dropped.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, setsockopt, socket, sockopt,
};

/// The multicast group the kernel sends to (udev's own is 2).
const KERNEL_GROUP: u32 = 1;
/// Receive buffer in bytes: some thousand messages, a burst of VMs.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The largest message: UEVENT_BUFFER_SIZE and a header.
const MAX_MESSAGE: usize = 8 << 10;
/// Messages of other subsystems that one call skips, so that a storm of them cannot hold the caller.
const MAX_SKIPPED: u32 = 1024;

/// What KVM announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmChange {
    /// `KVM_CREATE_VM` succeeded.
    Create,
    /// The last reference to the VM object went.
    Destroy,
}

/// One KVM uevent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvmUevent {
    /// Created or destroyed.
    pub change: KvmChange,
    /// The *thread* that created the VM, in the initial pid namespace.
    pub pid: u32,
    /// VM objects created since KVM was loaded; 0 if the message does not say.
    pub created_total: u64,
    /// VM objects that exist; 0 if the message does not say.
    pub count: u64,
    /// The VM's directory inside debugfs, such as `/kvm/4242-9`.
    pub stats_path: Option<String>,
}

/// What a call to [`UeventSocket::recv`] came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UeventOutcome {
    /// A KVM uevent.
    Event(KvmUevent),
    /// Nothing more to read; wait for the socket.
    Empty,
    /// Only other subsystems' messages so far; call again.
    Busy,
    /// The kernel dropped messages because we were slow (ENOBUFS): scan, and call again.
    Overflow,
}

/// A non-blocking socket on the kernel's uevents.
#[derive(Debug)]
pub struct UeventSocket {
    fd: OwnedFd,
}

impl UeventSocket {
    /// Subscribes, in the network namespace of the caller.
    ///
    /// # Errors
    /// If the kernel has no netlink uevents or the bind is refused.
    pub fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // Beyond net.core.rmem_max with CAP_NET_ADMIN, up to it without; an overflow is reported either way.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { fd })
    }

    /// The next KVM uevent, without waiting.
    ///
    /// # Errors
    /// What `recvmsg` says, other than that there is nothing to read or that messages were dropped.
    pub fn recv(&self) -> io::Result<UeventOutcome> {
        let mut buffer = [0; MAX_MESSAGE];
        for _ in 0..MAX_SKIPPED {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let (length, sender, flags) =
                match recvmsg::<NetlinkAddr>(self.fd.as_raw_fd(), &mut parts, None, MsgFlags::empty()) {
                    Ok(message) => (message.bytes, message.address, message.flags),
                    Err(Errno::EAGAIN) => return Ok(UeventOutcome::Empty),
                    Err(Errno::ENOBUFS) => return Ok(UeventOutcome::Overflow),
                    Err(Errno::EINTR) => continue,
                    Err(error) => return Err(error.into()),
                };
            let from_kernel = sender.is_some_and(|address| address.pid() == 0);
            if !from_kernel || flags.contains(MsgFlags::MSG_TRUNC) {
                continue;
            }
            if let Some(event) = buffer.get(..length).and_then(parse) {
                return Ok(UeventOutcome::Event(event));
            }
        }
        Ok(UeventOutcome::Busy)
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for UeventSocket {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// Reads `change@/devices/virtual/misc/kvm\0KEY=value\0…`; `None` if it is no KVM VM's event.
fn parse(message: &[u8]) -> Option<KvmUevent> {
    let value = |key: &str| {
        let of_key = |pair: &'_ [u8]| pair.strip_prefix(key.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
        let pair = message.split(|b| *b == 0).find(|pair| of_key(pair))?;
        std::str::from_utf8(pair.get(key.len() + 1..)?).ok()
    };
    if value("SUBSYSTEM") != Some("misc") || value("DEVNAME") != Some("kvm") {
        return None;
    }
    let change = match value("EVENT")? {
        "create" => KvmChange::Create,
        "destroy" => KvmChange::Destroy,
        _ => return None,
    };
    let number = |key| value(key).and_then(|text| text.parse::<u64>().ok());
    Some(KvmUevent {
        change,
        pid: value("PID")?.parse().ok()?,
        created_total: number("CREATED").unwrap_or(0),
        count: number("COUNT").unwrap_or(0),
        stats_path: value("STATS_PATH").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests;
