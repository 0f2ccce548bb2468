//! A vhost-net device that this process owns: since it does, the kernel runs a worker `vhost-PID` for it.
//!
//! The worker is a kernel thread or, since about 6.4, a thread of this process. It is given nothing to do.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result};

const DEVICE: &str = "/dev/vhost-net";

mod request {
    nix::ioctl_none!(vhost_set_owner, 0xaf, 0x01);
}

/// Opens the device and takes it over; dropping it ends the worker.
pub fn own() -> Result<File> {
    let device = File::options().read(true).write(true).open(DEVICE);
    let device =
        device.with_context(|| format!("--vhost-net: cannot open {DEVICE}; is the module vhost_net loaded?"))?;
    // SAFETY: the request takes no argument.
    unsafe { request::vhost_set_owner(device.as_raw_fd()) }.context("--vhost-net: VHOST_SET_OWNER failed")?;
    Ok(device)
}
