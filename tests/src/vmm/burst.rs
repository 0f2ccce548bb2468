//! Many short VMMs, a few at a time, with what the kernel says each one used: the truth about VMs that live shorter
//! than any interval.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::fleet;
use super::options::Options;

/// Runs `count` VMMs to their end and prints the report.
pub fn run(options: &Options, count: u32) -> Result<()> {
    let began = Instant::now();
    let arguments = arguments(options);
    let mut alive = HashMap::new();
    let mut vms = Vec::new();
    for number in 0..count {
        if alive.len() >= options.concurrency as usize {
            vms.push(reap(&mut alive)?);
        }
        let child = fleet::command(&options.id, number, &arguments)?.spawn().context("cannot start a VMM")?;
        alive.insert(child.id().cast_signed(), format!("{}-{number}", options.id));
    }
    while !alive.is_empty() {
        vms.push(reap(&mut alive)?);
    }
    let seconds = began.elapsed().as_secs_f64();
    writeln!(std::io::stdout(), "{}", json!({ "seconds": seconds, "vms": vms }))?;
    Ok(())
}

fn arguments(options: &Options) -> Vec<OsString> {
    let mut arguments = fleet::pass_on(std::env::args_os().skip(1));
    if options.lifetime.is_none() {
        arguments.extend(["--lifetime", "3ms"].map(OsString::from));
    }
    arguments
}

/// Waits for any VMM and says how it ended and what it used.
fn reap(alive: &mut HashMap<i32, String>) -> Result<Value> {
    loop {
        let mut status = 0;
        // SAFETY: zero is a valid value of each field of `rusage`.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live variables of the right types.
        let pid = unsafe { libc::wait4(-1, &raw mut status, 0, &raw mut usage) };
        if pid < 0 {
            let error = std::io::Error::last_os_error();
            if error.kind() == std::io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error).context("--burst: cannot wait for the VMMs");
        }
        let Some(id) = alive.remove(&pid) else { continue };
        let status = ExitStatus::from_raw(status);
        let cpu_us = micros(usage.ru_utime) + micros(usage.ru_stime);
        return Ok(json!({
            "id": id, "pid": pid, "code": status.code(), "signal": status.signal(), "cpu_us": cpu_us,
        }));
    }
}

fn micros(time: libc::timeval) -> i64 {
    time.tv_sec * 1_000_000 + time.tv_usec
}
