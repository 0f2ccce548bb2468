//! Starting `kvmeter-testvm` from a test, and being sure that it is gone afterwards.
//!
//! The binary is what `KVMETER_TESTVM` or cargo's `CARGO_BIN_EXE_kvmeter-testvm` names, else the one built beside the
//! running test. A [`TestVm`] lives until it is dropped, whichever thread started it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running VMM, killed and reaped when dropped.
#[derive(Debug)]
pub struct TestVm {
    child: Child,
    tids: Vec<i32>,
    status: Option<ExitStatus>,
}

impl TestVm {
    /// Starts the binary with these options and waits until every vCPU has entered the guest.
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Result<Self> {
        Self::start_program(&binary()?, args)
    }

    /// As [`Self::start`], by another name: the kernel names a process after the file it was told to run.
    pub fn start_as<S: AsRef<OsStr>>(name: &str, args: &[S]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let program = dir.path().join(name);
        std::os::unix::fs::symlink(binary()?, &program)?;
        Self::start_program(&program, args)
    }

    fn start_program<S: AsRef<OsStr>>(program: &Path, args: &[S]) -> Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        let child = spawn_ready(&mut command, &writer)?;
        drop(writer);
        let mut vm = Self { child, tids: Vec::new(), status: None };
        let Some(line) = read_line(reader, READY_TIMEOUT)? else {
            drop(vm.child.kill());
            bail!("the test VM ended or hung before it was ready: {}; its stderr says why", vm.wait()?);
        };
        let ready: Value = serde_json::from_str(&line).with_context(|| format!("not a ready line: {line}"))?;
        vm.tids = integers(&ready["tids"]);
        Ok(vm)
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The threads of the vCPUs in the order of their numbers.
    #[must_use]
    pub fn vcpu_tids(&self) -> &[i32] {
        &self.tids
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal).with_context(|| format!("cannot send {signal} to the test VM"))
    }

    /// Waits for the end and reaps; may be called again.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let status = match self.status {
            Some(status) => status,
            None => self.child.wait().context("cannot wait for the test VM")?,
        };
        Ok(*self.status.insert(status))
    }
}

impl Drop for TestVm {
    fn drop(&mut self) {
        // `Child` knows whether it was reaped, so neither call can hit another process.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A fleet of VMMs, killed and reaped when dropped.
#[derive(Debug)]
pub struct TestFleet {
    child: Child,
    stdin: Option<ChildStdin>,
    pids: Vec<i32>,
}

impl TestFleet {
    /// Starts `count` VMMs with these options and waits until all are ready.
    pub fn start<S: AsRef<OsStr>>(count: u32, args: &[S]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.arg("--fleet").arg(count.to_string()).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the fleet")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut fleet = Self { child, stdin, pids: Vec::new() };
        let mut line = String::new();
        BufReader::new(stdout.context("the fleet has no stdout")?).read_line(&mut line)?;
        let report: Value = serde_json::from_str(&line).context("the fleet did not start; its stderr says why")?;
        fleet.pids = integers(&report["pids"]);
        Ok(fleet)
    }

    /// The processes, in the order of their ids.
    #[must_use]
    pub fn pids(&self) -> &[i32] {
        &self.pids
    }
}

impl Drop for TestFleet {
    fn drop(&mut self) {
        // The end of its stdin tells it to kill and reap the VMMs, and then to end.
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}

/// How many VMs a fleet has that is as large as one likes: `KVMETER_FLEET`, or so many.
#[must_use]
pub fn fleet_size(or: u32) -> u32 {
    std::env::var("KVMETER_FLEET").ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}

/// Runs a burst to its end and returns its report, as `--burst` prints it.
pub fn burst<S: AsRef<OsStr>>(count: u32, concurrency: u32, args: &[S]) -> Result<Value> {
    let (count, concurrency) = (count.to_string(), concurrency.to_string());
    let mut command = Command::new(binary()?);
    command.args(["--burst", &count, "--concurrency", &concurrency]).args(args).stdin(Stdio::null());
    let output = command.stderr(Stdio::inherit()).output().context("cannot start the burst")?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("the burst failed: {}", output.status))
}

/// The test VMM's binary.
pub fn binary() -> Result<PathBuf> {
    for variable in ["KVMETER_TESTVM", "CARGO_BIN_EXE_kvmeter-testvm"] {
        if let Some(path) = std::env::var_os(variable) {
            return Ok(path.into());
        }
    }
    let this = std::env::current_exe().context("where is this test?")?;
    let found =
        this.ancestors().skip(1).take(2).map(|folder| folder.join("kvmeter-testvm")).find(|path| path.is_file());
    found.with_context(|| {
        format!("no kvmeter-testvm beside {}; build it with `cargo build -p kvmeter-tests`", this.display())
    })
}

/// Starts a VMM that says on `ready` when it is.
pub(super) fn spawn_ready(command: &mut Command, ready: &PipeWriter) -> Result<Child> {
    let fd = ready.as_raw_fd();
    command.arg("--ready-fd").arg(fd.to_string());
    // SAFETY: `fcntl` is safe between fork and exec, and the closure touches no memory of the parent.
    let command = unsafe {
        command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Reads up to a newline; `None` if the pipe ends or the time is over first.
fn read_line(mut pipe: PipeReader, timeout: Duration) -> Result<Option<String>> {
    let (end, mut line) = (Instant::now() + timeout, Vec::new());
    while line.last() != Some(&b'\n') {
        let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], left)? == 0 {
            return Ok(None);
        }
        let mut buffer = [0; 4096];
        match pipe.read(&mut buffer)? {
            0 => return Ok(None),
            length => line.write_all(&buffer[..length])?,
        }
    }
    Ok(Some(String::from_utf8(line)?))
}

fn integers(list: &Value) -> Vec<i32> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|value| value.as_i64().and_then(|value| i32::try_from(value).ok())).collect()
}
