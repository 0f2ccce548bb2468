//! Waiting, until a time or until somebody wants this to end.
//!
//! SIGINT, SIGTERM and SIGHUP are blocked and read from a descriptor, so no handler runs. A child inherits what is
//! blocked: it calls `release` first.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Takes the signals that end a program; the descriptor is readable once one came.
pub(crate) fn catch() -> Result<SignalFd> {
    let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    set.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("cannot read signals")
}

/// Lets every signal through again.
pub(crate) fn release() -> Result<()> {
    SigSet::empty().thread_set_mask().context("cannot unblock signals")
}

/// Waits that long, or until the descriptor has something to read or has been closed at its other end.
pub(crate) fn readable(descriptor: impl AsFd, time: Duration) -> bool {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    matches!(poll(&mut descriptors, timeout), Ok(ready) if ready > 0)
}
