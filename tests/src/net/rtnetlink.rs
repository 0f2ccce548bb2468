//! A little of rtnetlink: one request, its answer, its acknowledgement; in the namespace of the calling thread.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `NLM_F_CREATE | NLM_F_EXCL`: make what is not there.
pub const CREATE: u16 = 0x400 | 0x200;
/// `RTM_NEWLINK`.
pub const NEW_LINK: u16 = 16;
/// `RTM_DELLINK`.
pub const DELETE_LINK: u16 = 17;
/// `RTM_GETLINK`.
pub const GET_LINK: u16 = 18;
/// `RTM_GETQDISC`.
pub const GET_DISCIPLINE: u16 = 38;
/// `RTM_GETSTATS`.
pub const GET_STATS: u16 = 94;

const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
const ERROR: u16 = 2;
const HEADER: usize = 16;
const ALIGN: usize = 4;

/// The body of a message: a fixed part, then attributes, which may hold attributes.
#[derive(Debug, Default, Clone)]
pub struct Body(Vec<u8>);

impl Body {
    /// `struct ifinfomsg`: the interface of this index (0: by name, or a new one), and its `IFF_…` flags to change.
    #[must_use]
    pub fn link(index: u32, flags: u32, change: u32) -> Self {
        let mut body = vec![0; 4];
        for word in [index, flags, change] {
            body.extend(word.to_ne_bytes());
        }
        Self(body)
    }

    /// `struct tcmsg`: the queueing discipline that hangs there.
    #[must_use]
    pub fn discipline(index: u32, parent: u32) -> Self {
        let mut body = vec![0; 4];
        for word in [index, 0, parent, 0] {
            body.extend(word.to_ne_bytes());
        }
        Self(body)
    }

    /// `struct if_stats_msg`: statistics of these kinds.
    #[must_use]
    pub fn statistics(index: u32, kinds: u32) -> Self {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(kinds.to_ne_bytes());
        Self(body)
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + ALIGN).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
        self
    }

    /// With one more attribute: a string, which the kernel wants ended by a zero.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// With one more attribute, which holds others.
    #[must_use]
    pub fn with_nested(self, kind: u16, inner: &Self) -> Self {
        self.with(kind, &inner.0)
    }
}

/// Asks the kernel, and waits until it has done it: the body of its answer, empty if it gives none.
pub fn ask(kind: u16, flags: u16, body: &Body) -> io::Result<Vec<u8>> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let length = u32::try_from(HEADER + body.0.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST_AND_ACKNOWLEDGE | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(&body.0);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    answer(&socket)
}

fn answer(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "a short netlink message");
    let (mut buffer, mut found) = (vec![0; 1 << 16], Vec::new());
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let size = usize::try_from(u32_at(rest, 0).ok_or_else(short)?).map_err(io::Error::other)?;
            let kind = rest.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]])).ok_or_else(short)?;
            let body = rest.get(HEADER..size).ok_or_else(short)?;
            if kind != ERROR {
                found = body.to_vec();
            } else {
                return match u32_at(body, 0).ok_or_else(short)?.cast_signed() {
                    0 => Ok(found),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
            rest = rest.get(size.next_multiple_of(ALIGN)..).unwrap_or_default();
        }
    }
}

/// The value of the first attribute of this kind in an answer, after a fixed part of `skip` bytes.
#[must_use]
pub fn attribute(answer: &[u8], skip: usize, kind: u16) -> Option<&[u8]> {
    let mut rest = answer.get(skip..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]));
        let found = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & 0x3fff;
        if found == kind {
            return rest.get(ALIGN..length);
        }
        rest = rest.get(length.max(ALIGN).next_multiple_of(ALIGN)..)?;
    }
}

/// The 32-bit word at this place, in the machine's own order.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_one_of_odd_length() {
        let body = Body::link(7, 0, 0).with(1, &[1, 2, 3]).with(9, &[4; 4]);
        assert_eq!(attribute(&body.0, 16, 9), Some(&[4_u8; 4][..]));
        assert_eq!(attribute(&body.0, 16, 1), Some(&[1_u8, 2, 3][..]));
        assert_eq!(attribute(&body.0, 16, 5), None);
    }

    #[test]
    fn a_refusal_is_an_error() {
        let missing = ask(GET_LINK, 0, &Body::link(0, 0, 0).with_text(3, "no-such-link")).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
    }
}
