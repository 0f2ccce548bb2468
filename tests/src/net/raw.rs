//! The system calls of this part that have no safe form: the tun device's requests, packet sockets, and asking bpf(2).
//!
//! This is the one file of `net` that has `unsafe`; each function is a call and its check, and nothing else.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

/// `IFF_TAP`: frames with their Ethernet header.
pub const IFF_TAP: i16 = 0x0002;
/// `IFF_NO_PI`: no packet information before a frame.
pub const IFF_NO_PI: i16 = 0x1000;
/// `IFF_MULTI_QUEUE`.
pub const IFF_MULTI_QUEUE: i16 = 0x0100;
/// `IFF_VNET_HDR`: a virtio_net_hdr before each frame.
pub const IFF_VNET_HDR: i16 = 0x4000;
/// `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6`: what may be read with work left to do.
pub const OFFLOADS: i32 = 0x01 | 0x02 | 0x04;

/// `BPF_TCX_INGRESS`.
pub const TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS`.
pub const TCX_EGRESS: u32 = 47;

/// Most frames that one [`send_many`] sends.
pub const MANY: usize = 256;

mod request {
    use nix::{ioctl_write_int_bad, ioctl_write_ptr_bad, request_code_write};

    // Declared with an int, whatever they take: linux/if_tun.h.
    const INT: usize = size_of::<libc::c_int>();
    ioctl_write_ptr_bad!(tun_set_iff, request_code_write!(b'T', 202, INT), libc::ifreq);
    ioctl_write_int_bad!(tun_set_persist, request_code_write!(b'T', 203, INT));
    ioctl_write_int_bad!(tun_set_offload, request_code_write!(b'T', 208, INT));
}

/// Ties a queue, an open `/dev/net/tun` or `/dev/tapN`, to an interface (`TUNSETIFF`); makes the interface if there is
/// none of the name. A macvtap's queue is tied already and only takes the flags.
pub fn set_interface(queue: &File, name: &str, flags: i16) -> io::Result<()> {
    // SAFETY: zero is a valid value of each field and each member of the union.
    let mut wish: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= wish.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: longer than 15 bytes")));
    }
    for (place, byte) in wish.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    wish.ifr_ifru.ifru_flags = flags;
    // SAFETY: the descriptor is open, and the request reads and writes an `ifreq`, which outlives it.
    unsafe { request::tun_set_iff(queue.as_raw_fd(), &raw const wish) }?;
    Ok(())
}

/// Whether the interface stays when its last queue is closed (`TUNSETPERSIST`).
pub fn set_persistent(queue: &File, persistent: bool) -> io::Result<()> {
    // SAFETY: the descriptor is open and the request takes an integer.
    unsafe { request::tun_set_persist(queue.as_raw_fd(), i32::from(persistent)) }?;
    Ok(())
}

/// What may be read from the queue with checksums or segments left to do (`TUNSETOFFLOAD`).
pub fn set_offload(queue: &File, offloads: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open and the request takes an integer.
    unsafe { request::tun_set_offload(queue.as_raw_fd(), offloads) }?;
    Ok(())
}

/// A packet socket that sends through the interface of this index, and receives nothing. With `vnet` each frame has a
/// virtio_net_hdr; with `bypass` no queueing discipline, and no program before it, sees the frames.
pub fn packet_socket(ifindex: u32, vnet: bool, bypass: bool) -> io::Result<OwnedFd> {
    // SAFETY: makes a socket; the checked result is a descriptor that nothing else owns.
    let socket = unsafe {
        let fd = Errno::result(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0))?;
        OwnedFd::from_raw_fd(fd)
    };
    let options = [(libc::PACKET_VNET_HDR, vnet), (libc::PACKET_QDISC_BYPASS, bypass)];
    for (option, _) in options.into_iter().filter(|(_, wanted)| *wanted) {
        let (one, size) = (1_i32, libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4));
        // SAFETY: the option takes an int, which is given with its size and outlives the call.
        Errno::result(unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const one).cast(), size)
        })?;
    }
    // SAFETY: zero is a valid value of each field.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_ifindex = ifindex.cast_signed();
    let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
    // SAFETY: the address is of the socket's family, with its size, and outlives the call.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) })?;
    Ok(socket)
}

/// Sends `header` and `frame` as one message, so many times (at most [`MANY`]) in one `sendmmsg`. How many the kernel
/// took before the first that it refused; an error if that was the first.
pub fn send_many(socket: &OwnedFd, header: &[u8], frame: &[u8], count: usize) -> io::Result<usize> {
    let part = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut parts = [part(header), part(frame)];
    let skip = usize::from(header.is_empty());
    // SAFETY: zero is a valid value of each field.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = parts[skip..].as_mut_ptr();
    message.msg_hdr.msg_iovlen = parts.len() - skip;
    let mut messages = [message; MANY];
    let count = libc::c_uint::try_from(count.min(MANY)).unwrap_or_default();
    // SAFETY: `count` messages are valid, and what they point to is read only and outlives the call.
    let sent = Errno::result(unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) })?;
    Ok(usize::try_from(sent).unwrap_or_default())
}

/// How many programs are on a hook of the interface of this index (`BPF_PROG_QUERY`).
pub fn programs_on(ifindex: u32, hook: u32) -> io::Result<u32> {
    const PROG_QUERY: libc::c_int = 16;
    // `union bpf_attr` as far as `query.prog_cnt`, and what fills the last eight bytes: index, hook, flags, flags of the
    // answer, a pointer to ids (none), how many.
    let mut query = [ifindex, hook, 0, 0, 0, 0, 0, 0];
    // SAFETY: the kernel reads and writes the array, whose size is given and which outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, query.as_mut_ptr(), size_of_val(&query)) })?;
    Ok(query[6])
}
