//! A network namespace with taps in it, and the kernel's own statistics of each.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    thread,
};

use nix::sched::{CloneFlags, unshare};

use crate::host::netns::NetNs;

/// `struct ifreq`: a name, then what it asks.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

impl Request {
    fn new(name: &str) -> Self {
        let mut request = Self { name: [0; 16], value: [0; 24] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request
    }
}

/// Asks a device something; again where it is busy: a process that another test begins just now has copies of all files until
/// it becomes another program, so a tap may be open still that was closed before.
fn ask(fd: &impl std::os::fd::AsRawFd, what: u64, request: &mut Request) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        // SAFETY: the requests used here read and write one `struct ifreq`.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), what, std::ptr::from_mut(request)) };
        let error = std::io::Error::last_os_error();
        if answer == 0 {
            return;
        }
        let busy = error.raw_os_error() == Some(libc::EBUSY) && std::time::Instant::now() < end;
        assert!(busy, "ioctl {what:#x}: {error}");
        thread::yield_now();
    }
}

fn socket(kind: i32, protocol: i32) -> OwnedFd {
    // SAFETY: no memory is involved; the answer is checked and nobody else's.
    let fd = unsafe { libc::socket(kind, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What a link says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_dropped: u64,
}

/// The namespace.
pub(super) struct Lab {
    pub netns: NetNs,
}

impl Lab {
    pub(super) fn new() -> Self {
        let make = || unshare(CloneFlags::CLONE_NEWNET).map(|()| NetNs::own().expect("own namespace"));
        let netns = thread::spawn(make).join().expect("thread").expect("unshare needs CAP_SYS_ADMIN");
        let lab = Self { netns };
        // Nobody but the test says anything.
        lab.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")).expect("sysctl");
        lab
    }

    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.inside(work).expect("enter")
    }

    /// One queue of a tap; the tap goes with its last.
    pub(super) fn tap(&self, name: &str, flags: i32) -> Tap {
        self.inside(|| {
            let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
            let file = file.expect("/dev/net/tun");
            ask_socket(&file, name, libc::IFF_TAP | libc::IFF_NO_PI | flags);
            up(name);
            Tap { file, ifindex: ifindex(name) }
        })
    }

    /// What the kernel says of a link.
    pub(super) fn stats(&self, name: &str) -> LinkStats {
        let text = self.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("statistics"));
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}:")).map(str::to_owned));
        let line = line.unwrap_or_else(|| panic!("no link {name} in {text}"));
        let n: Vec<u64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        LinkStats {
            rx_bytes: n[0],
            rx_packets: n[1],
            rx_dropped: n[3],
            tx_bytes: n[8],
            tx_packets: n[9],
            tx_dropped: n[11],
        }
    }

    /// Waits until packets go to whoever has opened a tap: the kernel takes its time with that.
    pub(super) fn wait_carrier(&self, name: &str) {
        self.inside(|| {
            let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !is_running(name) {
                assert!(std::time::Instant::now() < end, "no carrier at {name}");
            }
        });
    }

    /// Closes a tap that goes with its files, and waits until it is gone: a process that another test begins just now has a
    /// copy of its file until it becomes another program.
    pub(super) fn delete(&self, tap: Tap) {
        drop(tap.file);
        self.inside(|| {
            let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
            let there = || nix::net::if_::if_nameindex().expect("links").iter().any(|link| link.index() == tap.ifindex);
            while there() {
                assert!(std::time::Instant::now() < end, "the tap stays");
                thread::yield_now();
            }
        });
    }

    /// A socket that sends frames out of a device.
    pub(super) fn sender(&self, ifindex: u32) -> Sender {
        self.inside(|| Sender { socket: socket(libc::AF_PACKET, 0), ifindex })
    }
}

/// Makes a file a queue of a tap or macvtap.
pub(super) fn ask_socket(file: &File, name: &str, flags: i32) {
    let mut request = Request::new(name);
    let flags = i16::try_from(flags).expect("16 bits");
    request.value[..2].copy_from_slice(&flags.to_ne_bytes());
    ask(file, libc::TUNSETIFF, &mut request);
}

pub(super) fn up(name: &str) {
    let socket = socket(libc::AF_PACKET, 0);
    let mut request = Request::new(name);
    let flags = i16::try_from(libc::IFF_UP).expect("16 bits");
    request.value[..2].copy_from_slice(&flags.to_ne_bytes());
    ask(&socket, libc::SIOCSIFFLAGS, &mut request);
}

/// `IFF_RUNNING`: its queueing discipline is at work.
fn is_running(name: &str) -> bool {
    let socket = socket(libc::AF_PACKET, 0);
    let mut request = Request::new(name);
    ask(&socket, libc::SIOCGIFFLAGS, &mut request);
    let running = u16::try_from(libc::IFF_RUNNING).expect("16 bits");
    u16::from_ne_bytes([request.value[0], request.value[1]]) & running != 0
}

pub(super) fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("an index")
}

/// A tap's queue: what a VMM holds.
pub(super) struct Tap {
    pub file: File,
    pub ifindex: u32,
}

impl Tap {
    /// A frame out of the guest.
    pub(super) fn transmit(&self, frame: &[u8]) {
        let written = (&self.file).write(frame).expect("write to the tap");
        assert_eq!(written, frame.len());
    }

    /// It outlives its files.
    pub(super) fn persist(&self) {
        // SAFETY: the argument is a number.
        let answer = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETPERSIST, 1) };
        assert_eq!(answer, 0, "TUNSETPERSIST: {}", std::io::Error::last_os_error());
    }

    /// What the guest's driver can take (`TUN_F_…`).
    pub(super) fn set_offload(&self, offload: u64) {
        // SAFETY: the argument is a number.
        let answer = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, offload) };
        assert_eq!(answer, 0, "TUNSETOFFLOAD: {}", std::io::Error::last_os_error());
    }

    /// Takes all frames that wait for the guest.
    pub(super) fn drain(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 1 << 17];
        while let Ok(length) = (&self.file).read(&mut buffer) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}

/// Sends frames to the guest.
pub(super) struct Sender {
    socket: OwnedFd,
    ifindex: u32,
}

impl Sender {
    pub(super) fn send(&self, frame: &[u8]) {
        let sent = self.try_send(frame);
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "send: {}", std::io::Error::last_os_error());
    }

    /// Sends a frame that the guest may not take.
    pub(super) fn try_send(&self, frame: &[u8]) -> isize {
        // SAFETY: an all-zero address is a valid one of this type.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET).expect("16 bits");
        to.sll_ifindex = self.ifindex.cast_signed();
        to.sll_halen = 6;
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("32 bits");
        // SAFETY: the frame and the address are valid for the call.
        unsafe {
            libc::sendto(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length)
        }
    }
}
