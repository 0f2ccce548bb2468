//! The control socket of a NIC: lines from the test, answers to it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

/// One end of the socket, and what came before its line was whole.
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// What the socket has.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// A line, without its end.
    Line(String),
    /// Not yet a line.
    Nothing,
    /// The test is gone.
    End,
}

impl Control {
    /// Connects to the test that listens at this path.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path);
        let stream = stream.with_context(|| format!("--nic-control: nobody listens at {}", path.display()))?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// The stream, to wait for.
    #[must_use]
    pub const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether [`Self::input`] would give something; does not wait.
    #[must_use]
    pub fn has_input(&self) -> bool {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        self.buffer.contains(&b'\n') || matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    /// The next line, if it is there.
    pub fn input(&mut self) -> Result<Input> {
        let mut piece = [0; 1 << 16];
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.drain(..=end).take(end).collect();
                return Ok(Input::Line(String::from_utf8(line).context("a command that is no text")?));
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(Input::End),
                Ok(length) => self.buffer.extend(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Input::Nothing),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Input::End),
                Err(error) => return Err(error).context("cannot read the control socket"),
            }
        }
    }

    /// Answers a line.
    pub fn answer(&mut self, value: &Value) -> Result<()> {
        self.stream.set_nonblocking(false)?;
        let written = self.stream.write_all(format!("{value}\n").as_bytes());
        self.stream.set_nonblocking(true)?;
        match written {
            // Its reader is gone: the next input says so.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot answer on the control socket"),
        }
    }
}
