//! A vhost-net device that this process owns: since it does, the kernel runs a worker `vhost-PID` for it.
//!
//! The worker is a kernel thread up to about 6.3, a thread of this process afterwards, and either since about 6.12.
//! It idles until it is given a queue ([`super::vhost_ring`]) to send from.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::options::Options;
use super::shared::Shared;
use super::{load, schedstat, vhost_ring};

const DEVICE: &str = "/dev/vhost-net";
/// How often a device that is plugged in later looks for its file.
const PLUG_POLL: Duration = Duration::from_millis(10);

mod request {
    nix::ioctl_none!(vhost_set_owner, 0xaf, 0x01);
    nix::ioctl_write_ptr!(vhost_set_fork_from_owner, 0xaf, 0x84, u8);
}

/// `VHOST_FORK_OWNER_KTHREAD` (include/uapi/linux/vhost.h).
const KERNEL_THREAD: u8 = 0;

/// Owns a device as the options say, now or in a thread of its own later; dropping it ends the worker.
pub fn start(options: &Options, shared: &Arc<Shared>) -> Result<Option<File>> {
    if !options.vhost_net {
        return Ok(None);
    }
    let Some(file) = options.vhost_when.clone() else {
        return own_and_send(options, shared).map(Some);
    };
    let (options, shared) = (options.clone(), Arc::clone(shared));
    load::spawn("plug".into(), move || {
        while !file.exists() {
            if shared.sleep(Some(PLUG_POLL)) {
                return;
            }
        }
        match own_and_send(&options, &shared) {
            // The worker is named after this thread, and lives as long as the device is open.
            Ok(_device) => drop(shared.sleep(None)),
            Err(error) => eprintln!("kvmeter-testvm: {error:#}"),
        }
    })?;
    Ok(None)
}

fn own_and_send(options: &Options, shared: &Arc<Shared>) -> Result<File> {
    let device = own(options.vhost_kernel_thread)?;
    if options.vhost_frames > 0 {
        vhost_ring::start(&device, options.vhost_frames, shared)?;
    }
    Ok(device)
}

/// Opens the device and takes it over. With `kernel_thread` the worker is one, which a kernel that leaves no choice must
/// make of itself.
fn own(kernel_thread: bool) -> Result<File> {
    let device = File::options().read(true).write(true).open(DEVICE);
    let device =
        device.with_context(|| format!("--vhost-net: cannot open {DEVICE}; is the module vhost_net loaded?"))?;
    if kernel_thread {
        // SAFETY: the request reads the byte that is passed, before it returns.
        let chosen = unsafe { request::vhost_set_fork_from_owner(device.as_raw_fd(), &KERNEL_THREAD) };
        // A kernel that does not know the request has one kind of worker only, and asks first for an owner (EPERM).
        if let Err(error) = chosen
            && !matches!(error, Errno::ENOTTY | Errno::EPERM)
        {
            bail!("--vhost-kernel-thread: VHOST_SET_FORK_FROM_OWNER failed: {error}");
        }
    }
    // SAFETY: the request takes no argument.
    unsafe { request::vhost_set_owner(device.as_raw_fd()) }.context("--vhost-net: VHOST_SET_OWNER failed")?;
    Ok(device)
}

/// The worker of a process that owns one device, named after the thread that took it over: its thread id. `None` while
/// there is none.
pub fn worker(pid: i32) -> std::io::Result<Option<i32>> {
    let names: Vec<_> = schedstat::per_thread(pid)?.keys().map(|owner| format!("vhost-{owner}\n")).collect();
    // A kernel thread is a process of its own in `/proc`.
    for directory in [format!("/proc/{pid}/task"), "/proc".to_owned()] {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let Some(tid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            match std::fs::read_to_string(path.join("comm")) {
                Ok(comm) if names.contains(&comm) => return Ok(Some(tid)),
                Ok(_) => {}
                // It ended since the directory was read.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

fn is_gone(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
