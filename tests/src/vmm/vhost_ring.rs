//! Work for a vhost worker: a queue of frames in this process's memory, which it sends through a tap.
//!
//! What a guest's driver would do a thread `nic` of the VMM does: it offers frames and kicks. The worker copies each
//! into the host's network, which drops it, for its protocol is nobody's. There is no queue for receiving.

use std::fs::File;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::load;
use super::shared::{Shared, sleep_sharply};

const TUN: &str = "/dev/net/tun";
/// Places of the queue: a power of two.
const LENGTH: u16 = 256;
/// `struct virtio_net_hdr`, all zero.
const HEADER_BYTES: u32 = 10;
/// The header and the shortest frame of Ethernet.
const FRAME_BYTES: u32 = HEADER_BYTES + 60;
/// The first byte of both addresses: locally administered ones, nobody's here.
const LOCAL: u8 = 0x02;
/// The EtherType for local experiments.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// `VRING_AVAIL_F_NO_INTERRUPT`: the driver looks by itself.
const NO_INTERRUPT: u16 = 1;
/// The queue for transmitting; that for receiving is 0.
const TRANSMIT: u32 = 1;
/// How often the driver offers what is due.
const PERIOD: Duration = Duration::from_millis(5);

/// `struct vring_desc`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

/// `struct vring_avail`, the driver's side.
#[repr(C)]
#[derive(Debug)]
struct Offered {
    flags: u16,
    index: AtomicU16,
    order: [u16; LENGTH as usize],
    event: u16,
}

/// `struct vring_used`, the worker's side.
#[repr(C, align(4))]
#[derive(Debug)]
struct Used {
    flags: AtomicU16,
    index: AtomicU16,
    // Pairs of an index and a length, of which none is read.
    ring: [AtomicU32; LENGTH as usize * 2],
    event: AtomicU16,
}

/// What the worker reads and writes: it sees this memory and no other.
#[repr(C, align(4096))]
#[derive(Debug)]
struct Queue {
    descriptors: [Descriptor; LENGTH as usize],
    offered: Offered,
    used: Used,
    frame: [u8; FRAME_BYTES as usize],
}

/// `struct vhost_memory` with one region.
#[repr(C)]
#[derive(Debug, Default)]
struct Memory {
    regions: u32,
    padding: u32,
    guest_address: u64,
    bytes: u64,
    user_address: u64,
    flags: u64,
}

/// `struct vhost_vring_state`.
#[repr(C)]
#[derive(Debug)]
struct RingState {
    index: u32,
    number: u32,
}

/// `struct vhost_vring_file`.
#[repr(C)]
#[derive(Debug)]
struct RingFile {
    index: u32,
    fd: RawFd,
}

/// `struct vhost_vring_addr`.
#[repr(C)]
#[derive(Debug)]
struct RingAddress {
    index: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    offered: u64,
    log: u64,
}

mod request {
    use super::{Memory, RingAddress, RingFile, RingState};

    nix::ioctl_write_ptr!(vhost_set_features, 0xaf, 0x00, u64);
    // The number counts the fixed part of the structure only.
    nix::ioctl_write_ptr_bad!(vhost_set_mem_table, nix::request_code_write!(0xaf, 0x03, 8), Memory);
    nix::ioctl_write_ptr!(vhost_set_vring_num, 0xaf, 0x10, RingState);
    nix::ioctl_write_ptr!(vhost_set_vring_addr, 0xaf, 0x11, RingAddress);
    nix::ioctl_write_ptr!(vhost_set_vring_base, 0xaf, 0x12, RingState);
    nix::ioctl_write_ptr!(vhost_set_vring_kick, 0xaf, 0x20, RingFile);
    nix::ioctl_write_ptr!(vhost_net_set_backend, 0xaf, 0x30, RingFile);
    nix::ioctl_readwrite_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(siocsifflags, libc::SIOCSIFFLAGS, libc::ifreq);
}

/// Gives the worker of an owned device a queue, and starts the thread that offers so many frames a second.
pub fn start(device: &File, frames_per_second: u32, shared: &Arc<Shared>) -> Result<()> {
    let (queue, kick, tap) = (Queue::leaked(), EventFd::new()?, tap()?);
    give(device.as_raw_fd(), queue, &kick, &tap).context("--vhost-frames: the worker takes no queue")?;
    let shared = Arc::clone(shared);
    load::spawn("nic".into(), move || {
        // Open as long as frames go through it.
        let _tap = tap;
        if let Err(error) = offer(queue, &kick, frames_per_second, &shared) {
            eprintln!("kvmeter-testvm: --vhost-frames: {error:#}");
        }
    })
}

impl Queue {
    /// A queue for the rest of the process's life, with the same frame in every place.
    fn leaked() -> &'static Self {
        let mut queue = Box::new(Self {
            descriptors: [Descriptor::default(); LENGTH as usize],
            offered: Offered {
                flags: NO_INTERRUPT,
                index: AtomicU16::new(0),
                order: std::array::from_fn(|place| u16::try_from(place).unwrap_or_default()),
                event: 0,
            },
            used: Used {
                flags: AtomicU16::new(0),
                index: AtomicU16::new(0),
                ring: std::array::from_fn(|_| AtomicU32::new(0)),
                event: AtomicU16::new(0),
            },
            frame: [0; FRAME_BYTES as usize],
        });
        let frame = &mut queue.frame[HEADER_BYTES as usize..];
        (frame[0], frame[6]) = (LOCAL, LOCAL);
        frame[12..14].copy_from_slice(&ETHERTYPE);
        let address = (&raw const *queue).addr() as u64 + offset_of!(Self, frame) as u64;
        queue.descriptors.fill(Descriptor { address, length: FRAME_BYTES, flags: 0, next: 0 });
        Box::leak(queue)
    }
}

/// Hands the queue, its kick and the tap to the worker.
fn give(device: RawFd, queue: &'static Queue, kick: &EventFd, tap: &OwnedFd) -> Result<()> {
    let base = (&raw const *queue).addr() as u64;
    let bytes = size_of::<Queue>() as u64;
    let memory = Memory { regions: 1, guest_address: base, bytes, user_address: base, ..Memory::default() };
    let addresses = RingAddress {
        index: TRANSMIT,
        flags: 0,
        descriptors: base + offset_of!(Queue, descriptors) as u64,
        used: base + offset_of!(Queue, used) as u64,
        offered: base + offset_of!(Queue, offered) as u64,
        log: 0,
    };
    let state = |number: u32| RingState { index: TRANSMIT, number };
    let file = |fd: RawFd| RingFile { index: TRANSMIT, fd };
    // SAFETY: each request reads what it is passed before it returns. The memory it is told of lives as long as the
    // process, and the parts of it that the worker writes are atomic.
    unsafe {
        request::vhost_set_features(device, &0).context("VHOST_SET_FEATURES")?;
        request::vhost_set_mem_table(device, &memory).context("VHOST_SET_MEM_TABLE")?;
        request::vhost_set_vring_num(device, &state(LENGTH.into())).context("VHOST_SET_VRING_NUM")?;
        request::vhost_set_vring_base(device, &state(0)).context("VHOST_SET_VRING_BASE")?;
        request::vhost_set_vring_addr(device, &addresses).context("VHOST_SET_VRING_ADDR")?;
        request::vhost_set_vring_kick(device, &file(kick.as_raw_fd())).context("VHOST_SET_VRING_KICK")?;
        request::vhost_net_set_backend(device, &file(tap.as_raw_fd())).context("VHOST_NET_SET_BACKEND")?;
    }
    Ok(())
}

/// A tap of this process's own, up; gone when closed.
fn tap() -> Result<OwnedFd> {
    let tap = File::options().read(true).write(true).open(TUN);
    let tap = tap.with_context(|| format!("--vhost-frames: cannot open {TUN}; is the module tun loaded?"))?;
    // SAFETY: all zeros is a request without a name and without flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"kvmeter-v%d") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)?;
    // SAFETY: the request reads and writes the structure that is passed.
    unsafe { request::tunsetiff(tap.as_raw_fd(), &raw mut request) }.context("--vhost-frames: TUNSETIFF failed")?;
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP)?;
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the request reads the structure that is passed.
    unsafe { request::siocsifflags(any.as_raw_fd(), &raw const request) }
        .context("--vhost-frames: the tap cannot be put up")?;
    Ok(tap.into())
}

/// Offers what is due as far as there is room, and kicks, until the VM is over.
fn offer(queue: &Queue, kick: &EventFd, frames_per_second: u32, shared: &Shared) -> Result<()> {
    sleep_sharply();
    let began = Instant::now();
    let (mut index, mut offered) = (0_u16, 0_u64);
    while !shared.sleep(Some(PERIOD)) {
        let due = u64::try_from(began.elapsed().as_micros())? * u64::from(frames_per_second) / 1_000_000;
        let room = LENGTH - index.wrapping_sub(queue.used.index.load(Ordering::Acquire));
        let more = u16::try_from(due - offered).unwrap_or(u16::MAX).min(room);
        index = index.wrapping_add(more);
        offered += u64::from(more);
        queue.offered.index.store(index, Ordering::Release);
        kick.write(1)?;
    }
    Ok(())
}
