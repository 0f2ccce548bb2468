//! I/O by io_uring whose work is done by kernel threads `iou-wrk-…`, which are threads of this process.
//!
//! A thread `uring` reads `/dev/zero` all the time, one read under way at once, and asks for each to be handed to a
//! worker (IOSQE_ASYNC): the worker fills the buffer, so it is the one that uses CPU. System calls only, no library: the
//! ring has one entry, so its indices are the whole of its protocol.

use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load;
use super::shared::Shared;

/// What one read fills.
const BUFFER_BYTES: u32 = 1 << 20;
/// Reads between two sleeps; about 100 µs each.
const BATCH: u32 = 10;
const PAUSE: Duration = Duration::from_millis(5);

const OP_READ: u8 = 22;
const SQE_ASYNC: u8 = 1 << 4;
const FEAT_SINGLE_MMAP: u32 = 1;
const ENTER_GETEVENTS: u32 = 1;
const OFFSET_RINGS: i64 = 0;
const OFFSET_SQES: i64 = 0x1000_0000;

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Default)]
struct SubmissionOffsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: u32,
    address: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Default)]
struct CompletionOffsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    reserved: u32,
    address: u64,
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Default)]
struct Parameters {
    entries: u32,
    completions: u32,
    flags: u32,
    cpu: u32,
    idle: u32,
    features: u32,
    workers: u32,
    reserved: [u32; 3],
    submission: SubmissionOffsets,
    completion: CompletionOffsets,
}

/// `struct io_uring_sqe`, as a read uses it.
#[repr(C)]
#[derive(Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    operation_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

/// `struct io_uring_cqe`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// A ring for one read at a time.
struct Ring {
    fd: OwnedFd,
    rings: *mut u8,
    entry: *mut Entry,
    parameters: Parameters,
}

// SAFETY: the pointers are to mappings that this value alone uses, and that no thread owns.
unsafe impl Send for Ring {}

/// Why the kernel gives us no ring, if it does not.
#[must_use]
pub fn refusal() -> Option<String> {
    Ring::new().err().map(|error| format!("{error:#}"))
}

/// Starts the thread; an error if the kernel refuses a ring.
pub fn start(shared: &Arc<Shared>) -> Result<()> {
    let (mut ring, shared) = (Ring::new()?, Arc::clone(shared));
    let zero = File::open("/dev/zero").context("--io-uring: cannot open /dev/zero")?;
    load::spawn("uring".into(), move || {
        let mut buffer = vec![0; BUFFER_BYTES as usize];
        while !shared.sleep(Some(PAUSE)) {
            for _ in 0..BATCH {
                if let Err(error) = ring.read(&zero, &mut buffer) {
                    eprintln!("kvmeter-testvm: {error:#}");
                    return;
                }
            }
        }
    })
}

impl Ring {
    fn new() -> Result<Self> {
        let mut parameters = Parameters::default();
        // SAFETY: the kernel fills `parameters`, whose layout is the kernel's.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) };
        ensure!(
            fd >= 0,
            "--io-uring: io_uring_setup refused: {}; see /proc/sys/kernel/io_uring_disabled",
            Error::last_os_error()
        );
        // SAFETY: the kernel has just opened it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
        ensure!(parameters.features & FEAT_SINGLE_MMAP != 0, "--io-uring: a kernel before 5.4 has two mappings");
        let (sub, com) = (&parameters.submission, &parameters.completion);
        let end_of_sub = sub.array + parameters.entries * 4;
        let end_of_com = com.cqes + parameters.completions * u32::try_from(size_of::<Completion>())?;
        let rings = map(&fd, end_of_sub.max(end_of_com) as usize, OFFSET_RINGS)?;
        let entry = map(&fd, size_of::<Entry>(), OFFSET_SQES)?.cast();
        Ok(Self { fd, rings, entry, parameters })
    }

    /// Has a kernel thread fill the buffer, and waits for it.
    fn read(&mut self, from: &File, buffer: &mut [u8]) -> Result<()> {
        let (sub, com) = (&self.parameters.submission, &self.parameters.completion);
        let entry = Entry {
            opcode: OP_READ,
            flags: SQE_ASYNC,
            fd: from.as_raw_fd(),
            address: buffer.as_mut_ptr() as u64,
            length: u32::try_from(buffer.len())?,
            ..Entry::default()
        };
        // SAFETY: the ring has one entry, which the kernel does not use between two calls of `enter`; nor does it touch
        // the array's one element, which stays 0.
        unsafe { self.entry.write_volatile(entry) };
        self.word(sub.tail).fetch_add(1, Ordering::Release);
        self.enter()?;
        let head = self.word(com.head).load(Ordering::Acquire);
        ensure!(self.word(com.tail).load(Ordering::Acquire) != head, "--io-uring: nothing was completed");
        let at = (head & self.word(com.mask).load(Ordering::Relaxed)) as usize * size_of::<Completion>();
        // SAFETY: the kernel says where completions lie, and the mapping reaches to the end of the last.
        let done = unsafe { self.rings.add(com.cqes as usize + at).cast::<Completion>().read_volatile() };
        self.word(com.head).store(head.wrapping_add(1), Ordering::Release);
        ensure!(done.result >= 0, "--io-uring: a read failed: {}", Error::from_raw_os_error(-done.result));
        Ok(())
    }

    /// Submits one and waits until one is completed.
    fn enter(&self) -> Result<()> {
        let mut submit = 1;
        loop {
            let none = std::ptr::null::<libc::sigset_t>();
            let (call, fd) = (libc::SYS_io_uring_enter, self.fd.as_raw_fd());
            // SAFETY: the buffer of the read that this submits lives until it is completed, which this waits for.
            let done = unsafe { libc::syscall(call, fd, submit, 1, ENTER_GETEVENTS, none, 0) };
            match Error::last_os_error() {
                _ if done >= 0 && submit == 0 => return Ok(()),
                // What was submitted was maybe not yet waited for.
                _ if done >= 0 => submit = 0,
                error if error.kind() == std::io::ErrorKind::Interrupted => {}
                error => return Err(error).context("--io-uring: io_uring_enter failed"),
            }
        }
    }

    /// A word of the rings at an offset that the kernel named.
    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the offset is within the mapping and aligned, and the kernel uses the word atomically as well.
        unsafe { AtomicU32::from_ptr(self.rings.add(offset as usize).cast()) }
    }
}

fn map(fd: &OwnedFd, length: usize, offset: i64) -> Result<*mut u8> {
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
    // SAFETY: a new mapping at an address that the kernel chooses; it stays until the process ends.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, flags, fd.as_raw_fd(), offset) };
    ensure!(at != libc::MAP_FAILED, "--io-uring: cannot map the ring: {}", Error::last_os_error());
    Ok(at.cast())
}
