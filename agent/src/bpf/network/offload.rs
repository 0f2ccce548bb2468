//! What a device segments itself. A large packet for a device that does not is cut into many behind our hook, and those
//! are what the device counts.
//!
//! ethtool's requests by ioctl, because kernels before 5.6 have no other. Their numbers: include/uapi/linux/ethtool.h.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use kvmeter_common::network::segment;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: u64 = 0x8946;
/// `ETHTOOL_GSTRINGS`, `ETHTOOL_GSSET_INFO`, `ETHTOOL_GFEATURES`
const GET_STRINGS: u32 = 0x1b;
const GET_SET_INFO: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
/// `ETH_SS_FEATURES`
const FEATURES: u32 = 4;
/// Bytes of a name (`ETH_GSTRING_LEN`).
const NAME: usize = 32;
/// Features that a kernel may have; 6.18 has 63.
const MOST: usize = 1_024;

/// net/ethtool/common.c, `netdev_features_strings`
const KINDS: [(&str, u32); 3] = [
    ("tx-tcp-segmentation", segment::TCP4),
    ("tx-tcp6-segmentation", segment::TCP6),
    ("tx-udp-segmentation", segment::UDP),
];

/// `struct ifreq` as SIOCETHTOOL takes it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    data: u64,
    rest: [u64; 2],
}

/// The kinds of [`segment`] that a device of the calling thread's network namespace leaves to the kernel.
pub(super) fn left_to_the_kernel(ifindex: u32) -> io::Result<u32> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let name = nix::net::if_::if_indextoname(ifindex)?;
    let ask = |words: &mut [u32]| ask(&socket, name.as_bytes(), words);
    // cmd, reserved, mask of sets (64 bits), length of the set
    let mut info = [GET_SET_INFO, 0, 1 << FEATURES, 0, 0];
    ask(&mut info)?;
    let count = (info[4] as usize).min(MOST);
    // cmd, set, length, names
    let mut strings = vec![0; 3 + count * NAME / 4];
    strings[..3].copy_from_slice(&[GET_STRINGS, FEATURES, info[4]]);
    ask(&mut strings)?;
    // cmd, size, then blocks of four words: available, requested, active, never changed
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + 4 * blocks];
    features[..2].copy_from_slice(&[GET_FEATURES, u32::try_from(blocks).map_err(io::Error::other)?]);
    ask(&mut features)?;
    let names: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let is_active = |wanted: &str| {
        let at =
            names.chunks_exact(NAME).position(|name| name.split(|byte| *byte == 0).next() == Some(wanted.as_bytes()));
        at.and_then(|at| features.get(2 + 4 * (at / 32) + 2).map(|active| active >> (at % 32) & 1 == 1))
            .unwrap_or(false)
    };
    Ok(KINDS.iter().filter(|(name, _)| !is_active(name)).fold(0, |kinds, (_, kind)| kinds | kind))
}

/// Makes a request that the kernel answers in place.
fn ask(socket: &OwnedFd, name: &[u8], words: &mut [u32]) -> io::Result<()> {
    let mut request = Request { name: [0; 16], data: words.as_mut_ptr().expose_provenance() as u64, rest: [0; 2] };
    for (to, from) in request.name.iter_mut().zip(name).take(15) {
        *to = *from;
    }
    // SAFETY: the kernel reads and writes one `struct ifreq` and, behind its address, no more than the words' own counts
    // tell, for which the callers above have made room.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, std::ptr::from_mut(&mut request)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
