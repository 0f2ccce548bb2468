//! What a process uses, as the kernel shows it from outside: CPU to the nanosecond, memory, switches, system calls.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};

use crate::process::process_cpu_ns;

use super::object::{Hook, Object, Placed};

/// A field of `/proc/PID/status`, without its unit.
fn status(path: &str, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let value = value.with_context(|| format!("{path} has no {key}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

/// Switches of all threads that a process has now.
pub fn switches(pid: i32) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = format!("{}/status", task?.path().display());
        // A thread may end while we look.
        for key in ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"] {
            sum += status(&path, key).unwrap_or(0);
        }
    }
    Ok(sum)
}

/// Resident memory, bytes.
pub fn resident(pid: i32) -> Result<u64> {
    Ok(1024 * status(&format!("/proc/{pid}/status"), "VmRSS")?)
}

/// The most that was ever resident, bytes.
pub fn peak(pid: i32) -> Result<u64> {
    Ok(1024 * status(&format!("/proc/{pid}/status"), "VmHWM")?)
}

/// What processes used in a while.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// CPU time, all threads, user and kernel.
    pub cpu_ns: u64,
    /// Switches.
    pub switches: u64,
    /// The while.
    pub time: Duration,
}

impl Use {
    /// CPU time as a share of one core, percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        self.cpu_ns as f64 / self.time.as_nanos() as f64 * 100.0
    }
}

/// CPU time of some processes together.
pub fn cpu_ns(pids: &[i32]) -> Result<u64> {
    pids.iter().map(|pid| process_cpu_ns(*pid)).sum()
}

/// Watches processes while something goes on.
pub fn during(pids: &[i32], mut work: impl FnMut() -> Result<()>) -> Result<Use> {
    let all = || pids.iter().map(|pid| switches(*pid)).sum::<Result<u64>>();
    let (began, cpu, switched) = (Instant::now(), cpu_ns(pids)?, all()?);
    work()?;
    let cpu_ns = cpu_ns(pids)? - cpu;
    let time = began.elapsed();
    Ok(Use { cpu_ns, switches: all()?.saturating_sub(switched), time })
}

/// The name of a system call that an agent is likely to make, else its number.
#[must_use]
pub fn call_name(number: u32) -> String {
    let known = [
        (libc::SYS_bpf, "bpf"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_poll, "poll"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_wait, "epoll_wait"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_readlink, "readlink"),
        (libc::SYS_newfstatat, "newfstatat"),
        (libc::SYS_ppoll, "ppoll"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_recvmsg, "recvmsg"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_openat, "openat"),
        (libc::SYS_close, "close"),
        (libc::SYS_read, "read"),
        (libc::SYS_pread64, "pread64"),
        (libc::SYS_write, "write"),
        (libc::SYS_getdents64, "getdents64"),
        (libc::SYS_readlinkat, "readlinkat"),
        (libc::SYS_statx, "statx"),
        (libc::SYS_fdatasync, "fdatasync"),
    ];
    let found = known.iter().find(|(known, _)| *known == i64::from(number));
    found.map_or_else(|| format!("no. {number}"), |(_, name)| (*name).to_owned())
}

/// Counts the system calls of a process by number, from inside the kernel: nothing is stopped for it.
pub struct Syscalls {
    object: Object,
    watched: Array<MapData, u32>,
    calls: Array<MapData, u64>,
}

impl Syscalls {
    const COUNTER: Placed = Placed { name: "count_syscalls", hook: Hook::Raw("sys_enter") };

    /// Loads the counter.
    pub fn load() -> Result<Self> {
        let mut object = Object::load(false)?;
        object.prepare(Self::COUNTER)?;
        let (watched, calls) = (object.array("WATCHED")?, object.array("CALLS")?);
        Ok(Self { object, watched, calls })
    }

    /// Those of one process while something goes on: all of them, and the most frequent by number.
    pub fn during(&mut self, pid: u32, mut work: impl FnMut() -> Result<()>) -> Result<(u64, Vec<(u32, u64)>)> {
        self.watched.set(0, pid, 0)?;
        let before = self.counts()?;
        let link = self.object.attach(Self::COUNTER)?;
        let worked = work();
        self.object.detach(Self::COUNTER, link)?;
        worked?;
        let after = self.counts()?;
        let mut by_number: Vec<(u32, u64)> =
            (0..).zip(after.iter().zip(&before).map(|(after, before)| after - before)).collect();
        by_number.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let all = by_number.iter().map(|(_, count)| count).sum();
        by_number.retain(|(_, count)| *count > 0);
        Ok((all, by_number))
    }

    fn counts(&self) -> Result<Vec<u64>> {
        Ok((0..self.calls.len()).map(|number| self.calls.get(&number, 0)).collect::<Result<_, _>>()?)
    }
}
