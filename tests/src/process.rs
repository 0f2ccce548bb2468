//! A process as the kernel shows it from outside the agent: its CPU clock, its end, its fields in `/proc`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::{
    sys::wait::{Id, WaitPidFlag, waitid},
    time::clock_getcpuclockid,
    unistd::Pid,
};

use crate::clock::{boot_ns, clock_ns};

/// What the kernel may charge a VM's dying threads after its CPU clock has forgotten them; nanoseconds.
pub const LAST_SLICES_NS: u64 = 20_000_000;
/// How much longer that takes on an emulated CPU: 38 ms were seen.
const EMULATED: u64 = 5;

/// The same on this machine, which may be an emulated one: `cargo xtask kernels` says so.
#[must_use]
pub fn last_slices_ns() -> u64 {
    if std::env::var_os("KVMETER_EMULATED").is_some() { EMULATED * LAST_SLICES_NS } else { LAST_SLICES_NS }
}

/// A field of `/proc/PID/stat`, counted from 1 as proc(5) does.
pub fn stat(pid: i32, field: usize) -> Result<u64> {
    stat_field(&format!("/proc/{pid}/stat"), field)
}

/// The same of one thread.
pub fn thread_stat(pid: i32, tid: i32, field: usize) -> Result<u64> {
    stat_field(&format!("/proc/{pid}/task/{tid}/stat"), field)
}

fn stat_field(path: &str, field: usize) -> Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let (_, rest) = text.rsplit_once(')').context("no comm")?;
    Ok(rest.split_ascii_whitespace().nth(field - 3).context("no such field")?.parse()?)
}

/// The CPU clock of a process, dead threads included, also of a zombie; nanoseconds. Of each thread that ended it
/// lacks what the kernel charges after it was unhashed, microseconds on an idle host.
pub fn process_cpu_ns(pid: i32) -> Result<u64> {
    clock_ns(clock_getcpuclockid(Pid::from_raw(pid))?)
}

/// Waits until a child is a zombie, and does not reap it; the instant after that on CLOCK_BOOTTIME.
pub fn wait_zombie(pid: i32) -> Result<u64> {
    waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    boot_ns()
}

/// The CPU clock of a zombie, once its last slice has been charged.
pub fn settled_cpu_ns(pid: i32) -> Result<u64> {
    let mut before = process_cpu_ns(pid)?;
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = process_cpu_ns(pid)?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
}
