//! The device's side: the queues of the interface, open or closed, written and read one frame a call.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

use super::option::NicOption;
use crate::net::netns::on_a_thread;
use crate::net::tap;

/// How long a queue without room is waited for, in milliseconds.
const ROOM_MS: u16 = 1000;

/// An interface's queues.
#[derive(Debug)]
pub struct Device {
    option: NicOption,
    queues: Vec<File>,
}

impl Device {
    /// The interface, open unless the option says otherwise.
    pub fn new(option: &NicOption) -> Result<Self> {
        let mut device = Self { option: option.clone(), queues: Vec::new() };
        if !option.closed {
            device.open()?;
        }
        Ok(device)
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.option.name
    }

    /// Whether a virtio_net_hdr comes before each frame.
    #[must_use]
    pub const fn vnet(&self) -> bool {
        self.option.tap.vnet
    }

    /// The open queues.
    #[must_use]
    pub fn queues(&self) -> &[File] {
        &self.queues
    }

    /// Opens all queues, in the interface's namespace; the process stays in its own.
    pub fn open(&mut self) -> Result<()> {
        if !self.queues.is_empty() {
            bail!("{} is open already", self.option.name);
        }
        let option = &self.option;
        let queues = match &option.netns {
            None => open(option),
            Some(path) => on_a_thread(|| {
                let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
                setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("setns {}", path.display()))?;
                open(option)
            }),
        };
        self.queues = queues.with_context(|| format!("--nic {}", self.option.name))?;
        Ok(())
    }

    /// Closes all queues, at once: when this returns the kernel has let go of them.
    pub fn close(&mut self) {
        self.queues.clear();
    }

    /// Writes this (a frame, behind its header if there is one) up to so many times; how often before an error.
    pub fn write(&self, queue: usize, bytes: &[u8], count: u64) -> (u64, Result<()>) {
        let Some(mut file) = self.queues.get(queue) else {
            return (0, Err(anyhow::anyhow!("{} has no open queue {queue}", self.option.name)));
        };
        let mut written = 0;
        while written < count {
            match file.write(bytes) {
                Ok(length) if length == bytes.len() => written += 1,
                Ok(length) => return (written, Err(anyhow::anyhow!("{length} of {} bytes written", bytes.len()))),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && has_room(file) => {}
                Err(error) => return (written, Err(error).context("cannot write a frame")),
            }
        }
        (written, Ok(()))
    }

    /// Reads a frame with its header; nothing when there is none.
    pub fn read(&self, queue: usize, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some(mut file) = self.queues.get(queue) else { return Ok(None) };
        loop {
            match file.read(buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("cannot read a frame"),
            }
        }
    }
}

fn open(option: &NicOption) -> Result<Vec<File>> {
    if option.macvtap { tap::open_macvtap(&option.name, option.tap) } else { tap::open(&option.name, option.tap) }
}

/// Waits for room; false if none came.
fn has_room(file: &File) -> bool {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::from(ROOM_MS)), Ok(1..))
}
