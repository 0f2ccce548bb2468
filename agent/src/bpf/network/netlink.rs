//! Messages of rtnetlink: making requests, reading answers. Knows the framing and nothing of what is asked.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::sys::{
    socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt},
    time::TimeVal,
};

const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const NESTED: u16 = 0x8000;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// No answer to one request is longer in one datagram (net/netlink/af_netlink.c: a dump fills at most 32 KiB).
const BUFFER: usize = 64 * 1024;
/// How long the kernel may hold the lock that an answer needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request.
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// It must not exist.
    pub(super) const CREATE: u16 = 0x400 | 0x200;
    /// It must exist.
    pub(super) const REPLACE: u16 = 0x100;
    /// The asker gets the answer, too.
    pub(super) const ECHO: u16 = 0x8;
    /// All there are.
    pub(super) const DUMP: u16 = 0x300;

    pub(super) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let acknowledge = if flags == Self::DUMP { 0 } else { ACKNOWLEDGE };
        bytes[6..8].copy_from_slice(&(REQUEST | acknowledge | flags).to_ne_bytes());
        Self { bytes }
    }

    pub(super) fn word(&mut self, value: u32) {
        self.bytes.extend(value.to_ne_bytes());
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Text, with the NUL that the kernel wants.
    pub(super) fn text(&mut self, kind: u16, text: &[u8]) {
        self.attribute(kind, &[text, b"\0"].concat());
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self { bytes: Vec::new() };
        fill(&mut inner);
        self.attribute(kind | NESTED, &inner.bytes);
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message of an answer, without its header.
pub(super) struct Reply {
    pub(super) kind: u16,
    body: Vec<u8>,
}

impl Reply {
    /// A 32-bit word of the fixed part.
    pub(super) fn word(&self, at: usize) -> Option<u32> {
        word(&self.body, at)
    }

    /// What follows the fixed part.
    pub(super) fn attributes(&self, at: usize) -> Attributes<'_> {
        Attributes(self.body.get(at..).unwrap_or_default())
    }
}

/// Attributes one after another; broken ones end the list.
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let Some((length, found)) = half(rest, 0).zip(half(rest, 2)) {
            let value = rest.get(4..usize::from(length))?;
            if found & !NESTED == kind {
                return Some(value);
            }
            rest = rest.get(usize::from(length).next_multiple_of(4)..)?;
        }
        None
    }

    pub(super) fn nested(&self, kind: u16) -> Option<Self> {
        self.get(kind).map(Attributes)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes)
}

/// A socket of the network namespace it was opened in.
pub(super) struct Route {
    socket: OwnedFd,
    sequence: u32,
}

impl Route {
    pub(super) fn open() -> io::Result<Self> {
        let (family, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
        let socket = socket(family, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        let patience = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(patience, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes a request that is answered by yes or no.
    pub(super) fn ask(&mut self, message: &Message) -> io::Result<()> {
        self.dump(message).map(drop)
    }

    /// Makes a request, and returns all messages of the answer.
    pub(super) fn dump(&mut self, message: &Message) -> io::Result<Vec<Reply>> {
        self.sequence += 1;
        let mut bytes = message.bytes.clone();
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let (mut replies, mut buffer) = (Vec::new(), vec![0; BUFFER]);
        loop {
            let received = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if self.take(&buffer[..received], &mut replies)? {
                return Ok(replies);
            }
        }
    }

    /// Takes one datagram; true once the answer is whole.
    fn take(&self, datagram: &[u8], replies: &mut Vec<Reply>) -> io::Result<bool> {
        let mut rest = datagram;
        while let Some(length) = word(rest, 0).and_then(|length| usize::try_from(length).ok()) {
            let (Some(kind), Some(body)) = (half(rest, 4), rest.get(HEADER..length)) else { break };
            if word(rest, 8) == Some(self.sequence) {
                match kind {
                    ERROR => {
                        let code = word(body, 0).map_or(0, u32::cast_signed);
                        return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    DONE => return Ok(true),
                    _ => replies.push(Reply { kind, body: body.to_vec() }),
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}
