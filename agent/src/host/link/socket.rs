//! Sockets on rtnetlink: one that listens, one that asks. Each belongs to the namespace it was made in.

use std::{
    collections::HashMap,
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, sendto, setsockopt,
            socket, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

use super::{
    Link, LinkChange, LinkStats, Queue,
    message::{self, Ask, Message, Part},
};
use crate::host::NetNs;

/// RTNLGRP_LINK as a bit.
const GROUP_LINK: u32 = 1;
/// Receive buffer of the listening socket in bytes: some thousand announcements.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The kernel fills datagrams of up to 32 KiB when the reader's buffer is as large.
const MAX_MESSAGE: usize = 32 << 10;
/// How long an answer is waited for, seconds: the kernel answers at once, or holds the rtnl lock for long.
const ANSWER_S: i64 = 5;
/// How often a dump that a change disturbed is tried again.
const DUMP_TRIES: u32 = 8;

/// What a call to [`LinkSocket::recv`] came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOutcome {
    /// Announcements, oldest first; those about other things are left out.
    Changes(Vec<LinkChange>),
    /// Nothing more to read; wait for the socket.
    Empty,
    /// The kernel dropped announcements because we were slow (ENOBUFS): ask for everything, and call again.
    Overflow,
}

/// A non-blocking socket on the link announcements of one namespace.
#[derive(Debug)]
pub struct LinkSocket {
    fd: OwnedFd,
}

impl LinkSocket {
    /// Subscribes inside `netns`.
    ///
    /// # Errors
    /// When the namespace may not be entered or the kernel refuses the socket.
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        let fd = netns.inside(|| route_socket(SockFlag::SOCK_NONBLOCK, GROUP_LINK))??;
        // Beyond net.core.rmem_max with CAP_NET_ADMIN, up to it without; an overflow is reported either way.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        Ok(Self { fd })
    }

    /// So little room that a test can fill it.
    #[cfg(test)]
    pub(super) fn shrink(&self) {
        setsockopt(&self.fd, sockopt::RcvBuf, &4096).expect("SO_RCVBUF");
    }

    /// For tests: what can be read at any time, and never is.
    #[cfg(test)]
    pub(crate) fn broken() -> Self {
        Self { fd: std::fs::File::open("/dev/null").expect("/dev/null").into() }
    }

    /// The next announcements, without waiting.
    ///
    /// # Errors
    /// What `recvmsg` says, other than that there is nothing to read or that something was dropped.
    pub fn recv(&self) -> io::Result<LinkOutcome> {
        match receive(&self.fd) {
            Ok(Some(parts)) => Ok(LinkOutcome::Changes(parts.into_iter().filter_map(change).collect())),
            // From another process, or cut: nothing that is believed.
            Ok(None) => Ok(LinkOutcome::Changes(Vec::new())),
            Err(Errno::EAGAIN) => Ok(LinkOutcome::Empty),
            Err(Errno::ENOBUFS) => Ok(LinkOutcome::Overflow),
            Err(Errno::EINTR) => Ok(LinkOutcome::Changes(Vec::new())),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket to ask with, in one namespace.
#[derive(Debug)]
pub struct LinkRequests {
    fd: OwnedFd,
    sequence: u32,
}

impl LinkRequests {
    /// Opens a socket inside `netns`.
    ///
    /// # Errors
    /// When the namespace may not be entered or the kernel refuses the socket.
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        let fd = netns.inside(|| route_socket(SockFlag::empty(), 0))??;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_S))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// When the kernel does not answer, or refuses.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        self.dump(Ask::Links, |message| match message {
            Message::Link(LinkChange::New(link)) => Some(link),
            _ => None,
        })
    }

    /// The counters of all links, by index: one answer for all, 0.2 µs a link.
    ///
    /// # Errors
    /// When the kernel does not answer, or refuses.
    pub fn stats(&mut self) -> io::Result<HashMap<u32, LinkStats>> {
        let all = self.dump(Ask::Stats, |message| match message {
            Message::Stats(ifindex, stats) => Some((ifindex, stats)),
            _ => None,
        })?;
        Ok(all.into_iter().collect())
    }

    /// The queueing disciplines of all links, by the links' indices.
    ///
    /// # Errors
    /// When the kernel does not answer, or refuses.
    pub fn queues(&mut self) -> io::Result<HashMap<u32, Queue>> {
        let all = self.dump(Ask::Queues, |message| match message {
            Message::Queue(ifindex, queue) => Some((ifindex, queue)),
            _ => None,
        })?;
        Ok(all.into_iter().collect())
    }

    /// One link by its name; `None` if there is none.
    ///
    /// # Errors
    /// When the kernel does not answer, or refuses.
    pub fn named(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.one(Ask::Named(name))
    }

    /// One link by its index; `None` if there is none.
    ///
    /// # Errors
    /// When the kernel does not answer, or refuses.
    pub fn indexed(&mut self, ifindex: u32) -> io::Result<Option<Link>> {
        self.one(Ask::Indexed(ifindex))
    }

    fn one(&mut self, ask: Ask<'_>) -> io::Result<Option<Link>> {
        self.ask(ask)?;
        loop {
            for part in self.answer()? {
                match part.message {
                    Message::Link(LinkChange::New(link)) => return Ok(Some(link)),
                    Message::End(error) if error == -libc::ENODEV => return Ok(None),
                    Message::End(error) if error < 0 => return Err(io::Error::from_raw_os_error(-error)),
                    _ => {}
                }
            }
        }
    }

    fn dump<T>(&mut self, ask: Ask<'_>, pick: impl Fn(Message) -> Option<T>) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_TRIES {
            self.ask(ask)?;
            let (mut found, mut whole) = (Vec::new(), true);
            'answer: loop {
                for part in self.answer()? {
                    whole &= !part.interrupted;
                    match part.message {
                        Message::End(error) if error < 0 => return Err(io::Error::from_raw_os_error(-error)),
                        Message::End(_) => break 'answer,
                        message => found.extend(pick(message)),
                    }
                }
            }
            if whole {
                return Ok(found);
            }
        }
        Err(io::Error::other("links change too fast to be listed whole"))
    }

    fn ask(&mut self, ask: Ask<'_>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = message::request(ask, self.sequence);
        sendto(self.fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// The next datagram that answers the last request.
    fn answer(&mut self) -> io::Result<Vec<Part>> {
        loop {
            match receive(&self.fd) {
                Ok(parts) => {
                    // What an earlier request left over has an older number.
                    let now = |part: &Part| part.sequence == self.sequence;
                    let parts: Vec<Part> = parts.unwrap_or_default().into_iter().filter(now).collect();
                    if !parts.is_empty() {
                        return Ok(parts);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn route_socket(flags: SockFlag, groups: u32) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// One datagram; `None` if it is not from the kernel or was cut.
fn receive(fd: &OwnedFd) -> Result<Option<Vec<Part>>, Errno> {
    // On the stack: a buffer a socket would be a thousand of them on a host of jailed VMs.
    let mut buffer = [0; MAX_MESSAGE];
    let mut space = [IoSliceMut::new(&mut buffer)];
    let got = recvmsg::<NetlinkAddr>(fd.as_raw_fd(), &mut space, None, MsgFlags::empty())?;
    let from_kernel = got.address.is_some_and(|address| address.pid() == 0);
    let (length, whole) = (got.bytes, from_kernel && !got.flags.contains(MsgFlags::MSG_TRUNC));
    Ok(buffer.get(..length).filter(|_| whole).map(message::parts))
}

fn change(part: Part) -> Option<LinkChange> {
    match part.message {
        Message::Link(change) => Some(change),
        _ => None,
    }
}
