//! What the scheduler charged: `/proc/PID/task/*/schedstat`, the truth that tests compare kvmeter with.
//!
//! A thread that has ended is no longer listed, and its time with it: compare while the threads live.

use std::collections::BTreeMap;
use std::io;

/// Time of one thread or of several, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedStat {
    /// On a CPU, guest time included.
    pub run_ns: u64,
    /// Runnable but waiting for a CPU.
    pub delay_ns: u64,
}

/// The sum over all threads that the process has now.
pub fn sum(pid: i32) -> io::Result<SchedStat> {
    Ok(per_thread(pid)?.values().fold(SchedStat::default(), |sum, thread| SchedStat {
        run_ns: sum.run_ns + thread.run_ns,
        delay_ns: sum.delay_ns + thread.delay_ns,
    }))
}

/// Every thread that the process has now, by thread id.
pub fn per_thread(pid: i32) -> io::Result<BTreeMap<i32, SchedStat>> {
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match thread(pid, tid) {
            Ok(stat) => drop(threads.insert(tid, stat)),
            // It ended since the directory was read.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(threads)
}

/// One thread.
pub fn thread(pid: i32, tid: i32) -> io::Result<SchedStat> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"))?)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn parse(text: &str) -> io::Result<SchedStat> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(run_ns)), Some(Ok(delay_ns))) => Ok(SchedStat { run_ns, delay_ns }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a schedstat line: {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_enough() {
        assert_eq!(parse("12 34 5\n").unwrap(), SchedStat { run_ns: 12, delay_ns: 34 });
        assert!(parse("12").is_err());
        assert!(parse("a b c").is_err());
    }

    #[test]
    fn this_process_has_run() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let threads = per_thread(pid).unwrap();
        assert!(threads.contains_key(&pid));
        assert!(sum(pid).unwrap().run_ns >= threads[&pid].run_ns);
    }
}
