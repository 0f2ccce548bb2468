//! Many VMMs at once: starts them, waits until all are ready, and kills and reaps them when told to.
//!
//! The VMMs die with this process, however it dies. One that ends by itself is reaped at once; when none is left the
//! fleet ends too.

use std::ffi::{OsStr, OsString};
use std::io::{PipeReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::options::Options;
use super::spawn;

/// Options that are the starter's own; a value follows each.
const OWN: [&str; 4] = ["--fleet", "--burst", "--concurrency", "--id"];

/// Starts `count` VMMs and keeps them until it is told to end.
pub fn run(options: &Options, count: u32) -> Result<()> {
    let began = Instant::now();
    let signals = take_signals()?;
    let (reader, writer) = std::io::pipe()?;
    let arguments = pass_on(std::env::args_os().skip(1));
    let mut fleet = Fleet(Vec::new());
    for number in 0..count {
        let mut command = command(&options.id, number, &arguments)?;
        fleet.0.push(spawn::spawn_ready(&mut command, &writer)?);
    }
    drop(writer);
    let pids: Vec<u32> = fleet.0.iter().map(Child::id).collect();
    if !fleet.wait_ready(reader, &signals)? {
        return Ok(());
    }
    let seconds = began.elapsed().as_secs_f64();
    writeln!(std::io::stdout(), "{}", serde_json::json!({ "pids": pids, "seconds": seconds }))?;
    fleet.stay(&signals)
}

/// A command that starts the VMM `<id>-<number>` with the given options and dies with this process.
pub(super) fn command(id: &str, number: u32, arguments: &[OsString]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where is this binary?")?);
    command.arg("--id").arg(format!("{id}-{number}")).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let parent = std::process::id().cast_signed();
    // SAFETY: the three calls are safe between fork and exec, and the closure touches no memory of the parent.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before that.
            if libc::getppid() == parent { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
        });
    }
    Ok(command)
}

/// The arguments that go on to each VMM: all but the starter's own.
pub(super) fn pass_on(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments;
    let mut passed = Vec::new();
    while let Some(argument) = arguments.next() {
        if OWN.iter().any(|own| argument == OsStr::new(own)) {
            arguments.next();
        } else if !OWN.iter().any(|own| argument.to_string_lossy().starts_with(&format!("{own}="))) {
            passed.push(argument);
        }
    }
    passed
}

fn take_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signalfd failed")
}

/// Whether a signal says to end.
fn told_to_end(signals: &SignalFd) -> Result<bool> {
    let mut end = false;
    while let Some(signal) = signals.read_signal()? {
        end |= signal.ssi_signo.cast_signed() != Signal::SIGCHLD as i32;
    }
    Ok(end)
}

/// Whether the end of stdin means something: for `/dev/null` or a file it does not.
fn stdin_counts() -> bool {
    let Ok(file) = std::fs::metadata("/proc/self/fd/0") else {
        return false;
    };
    let kind = file.file_type();
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    kind.is_fifo() || kind.is_socket() || terminal
}

struct Fleet(Vec<Child>);

impl Fleet {
    /// Waits for a ready line of each; false when told to end before.
    fn wait_ready(&mut self, mut reader: PipeReader, signals: &SignalFd) -> Result<bool> {
        let (mut missing, mut buffer) = (self.0.len(), [0; 4096]);
        while missing > 0 {
            let mut fds =
                [PollFd::new(reader.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE)?;
            let readable = fds[0].any().unwrap_or(false);
            if told_to_end(signals)? {
                return Ok(false);
            }
            let length = if readable { reader.read(&mut buffer)? } else { 0 };
            missing = missing.saturating_sub(buffer[..length].iter().filter(|byte| **byte == b'\n').count());
            if length == 0 {
                self.check_alive()?;
            }
        }
        Ok(true)
    }

    fn check_alive(&mut self) -> Result<()> {
        for (number, child) in self.0.iter_mut().enumerate() {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "--fleet: VMM {number} (pid {}) ended before all were ready: {status}; is --lifetime too short?",
                    child.id()
                );
            }
        }
        Ok(())
    }

    /// Reaps those that end, until none is left or it is told to end.
    fn stay(&mut self, signals: &SignalFd) -> Result<()> {
        let (stdin, counts) = (std::io::stdin(), stdin_counts());
        loop {
            self.0.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
            if self.0.is_empty() {
                return Ok(());
            }
            let mut fds =
                [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds[..1 + usize::from(counts)], PollTimeout::NONE)?;
            let input = counts && fds[1].any().unwrap_or(false);
            if told_to_end(signals)? || (input && stdin.lock().read(&mut [0; 256])? == 0) {
                return Ok(());
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // First all, then each: they die side by side.
        self.0.iter_mut().for_each(|child| drop(child.kill()));
        self.0.iter_mut().for_each(|child| drop(child.wait()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_options_are_not_passed_on() {
        let given = ["--fleet", "3", "--duty", "5", "--id=x", "--burst=2", "--unrun", "--concurrency", "9", "--idle"];
        let passed = pass_on(given.iter().map(OsString::from));
        assert_eq!(passed, ["--duty", "5", "--unrun", "--idle"]);
    }
}
