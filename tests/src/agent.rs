//! A real agent process for a test: its own socket, port, data directory and configuration, gone when dropped.
//!
//! Its environment is emptied, so that no test depends on who runs it.

mod lines;

use std::{
    ffi::OsString,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    command::binary,
    http::{self, Answer},
    metrics::Metrics,
    port,
};

/// How to start an agent.
#[derive(Debug, Default)]
pub struct Setup {
    /// Lines added to its configuration file.
    pub config: String,
    /// A command put before it (`setpriv …`, `unshare …`), with its own arguments.
    pub wrapper: Vec<OsString>,
    /// The directory of an earlier agent, to go on with its ledger.
    pub dir: Option<TempDir>,
    /// Where it pins; without it, it pins nothing, and leaves nothing to another test.
    pub pins: Option<PathBuf>,
}

impl Setup {
    /// One with these lines of configuration.
    #[must_use]
    pub fn of(config: &str) -> Self {
        Self { config: config.to_owned(), ..Self::default() }
    }
}

/// Longer than anything takes that comes at all, on a busy machine or an emulated one, whose verifier takes ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// The variable that says where an agent pins.
const PIN_DIR: &str = "KVMETER_BPF__PIN_DIR";

/// A running agent, killed and reaped when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    dir: Option<TempDir>,
    socket: PathBuf,
    port: u16,
    pins: OsString,
}

impl Agent {
    /// Starts one with short intervals and waits until it has published its first sample.
    pub fn start() -> Result<Self> {
        Self::with(Setup::default())
    }

    /// Starts one as set up.
    pub fn with(setup: Setup) -> Result<Self> {
        let mut agent = Self::spawn(setup)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts one and does not wait for anything but its socket.
    pub fn hasty() -> Result<Self> {
        let agent = Self::spawn(Setup::default())?;
        agent.wait_until("its socket", PATIENCE, |agent| Ok(agent.socket.exists()))?;
        Ok(agent)
    }

    fn spawn(setup: Setup) -> Result<Self> {
        let dir = match setup.dir {
            Some(dir) => dir,
            None => TempDir::new()?,
        };
        let port = port::free()?;
        let socket = dir.path().join("k.sock");
        let (config, data) = (dir.path().join("kvmeter.toml"), dir.path().join("data"));
        let base =
            format!("listen = \"127.0.0.1:{port}\"\nsocket = {:?}\ndata_dir = {:?}\n{}", socket, data, setup.config);
        std::fs::write(&config, base)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.path().join("agent.log"))?;
        let mut words = setup.wrapper;
        words.extend([binary()?.into_os_string(), "run".into(), "--config".into(), config.into_os_string()]);
        let mut command = Command::new(words.first().context("nothing to run")?);
        command.args(words.iter().skip(1)).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let pins = setup.pins.map_or_else(|| "off".into(), PathBuf::into_os_string);
        command.env(PIN_DIR, &pins);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { child, dir: Some(dir), socket, port, pins })
    }

    fn wait_ready(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended at once ({status}):\n{}", self.log());
            }
            if self.get("/healthz").is_ok_and(|(code, _)| code == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the agent is not healthy after {PATIENCE:?}:\n{}", self.log())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Its TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its directory: `kvmeter.toml`, `agent.log`, `data/metering/ledger.jsonl`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new("/nonexistent"), TempDir::path)
    }

    /// Its ledger's directory.
    #[must_use]
    pub fn metering(&self) -> PathBuf {
        self.dir().join("data/metering")
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("agent.log")).unwrap_or_default()
    }

    /// `GET path` over the socket: status code and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        http::get(UnixStream::connect(&self.socket)?, path)
    }

    /// `GET path`, as JSON; an error unless the answer is a 200.
    pub fn json(&self, path: &str) -> Result<Value> {
        let (code, body) = self.get(path)?;
        if code != 200 {
            bail!("{path}: {code}: {body}");
        }
        Ok(serde_json::from_str(&body)?)
    }

    /// Any request over the socket, with the answer's headers.
    pub fn request(&self, method: &str, path: &str) -> Result<Answer> {
        http::request(UnixStream::connect(&self.socket)?, method, path)
    }

    /// A scrape, as text.
    pub fn scrape(&self) -> Result<String> {
        let (code, body) = self.get("/metrics")?;
        ensure!(code == 200, "/metrics: {code}: {body}");
        Ok(body)
    }

    /// A scrape.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.scrape()?)
    }

    /// Waits until at least `samples` whole samples have been taken and published from now on. The first that comes may
    /// have been under way already, its readings taken before now, so it does not count.
    pub fn wait_samples(&self, samples: u64) -> Result<()> {
        let count = |agent: &Self| -> Result<f64> {
            Ok(agent.metrics()?.one("kvmeter_sample_duration_seconds_count", &[]).unwrap_or(0.0))
        };
        let target = count(self)? + samples as f64 + 1.0;
        self.wait_until("samples", 2 * PATIENCE, |agent| Ok(count(agent)? >= target))
    }

    /// Polls until `done` says so.
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + patience;
        loop {
            if done(self)? {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("still waiting for {what} after {patience:?}; agent's log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until these VMs are shown as running.
    pub fn wait_vms(&self, ids: &[&str]) -> Result<()> {
        self.wait_shown(ids, 1.0)
    }

    /// Waits until so many VMs are shown as running.
    pub fn wait_running(&self, count: u32, patience: Duration) -> Result<()> {
        self.wait_until(&format!("{count} VMs to run"), patience, |agent| {
            let running = agent.metrics()?.all("kvmeter_vm_running", &[]).filter(|vm| vm.value == 1.0).count();
            Ok(running >= count as usize)
        })
    }

    /// Waits until these VMs are shown as ended, with their last figures: that is later than their lines can be read.
    pub fn wait_ended(&self, ids: &[&str]) -> Result<()> {
        self.wait_shown(ids, 0.0)
    }

    fn wait_shown(&self, ids: &[&str], running: f64) -> Result<()> {
        self.wait_until(&format!("{ids:?} to be shown with {running}"), PATIENCE, |agent| {
            let metrics = agent.metrics()?;
            Ok(ids.iter().all(|id| metrics.one("kvmeter_vm_running", &[("vm_id", id)]) == Some(running)))
        })
    }

    /// Runs the `kvmeter` command against this agent.
    pub fn command(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary()?);
        command.env_clear().env(PIN_DIR, &self.pins).arg("--config").arg(self.dir().join("kvmeter.toml")).args(args);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(nix::sys::signal::kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// SIGTERM; waits for the end. Status, how long it took, and the directory.
    pub fn stop(mut self) -> Result<(ExitStatus, Duration, TempDir)> {
        let began = Instant::now();
        self.signal(Signal::SIGTERM)?;
        let status = self.child.wait()?;
        let dir = self.dir.take().context("the directory is taken once")?;
        Ok((status, began.elapsed(), dir))
    }

    /// SIGKILL; the directory, for the next agent.
    pub fn kill(mut self) -> Result<TempDir> {
        self.child.kill()?;
        self.child.wait()?;
        self.dir.take().context("the directory is taken once")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A failed test wants to see what the agent said.
        if std::thread::panicking() {
            eprintln!("agent's log:\n{}", end_of(&self.log()));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The last lines of a log, and all warnings before them: a fleet's thousand births must not hide what went wrong.
fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.len().saturating_sub(30);
    let telling = |line: &&str| !line.contains(" INFO ");
    let told = lines[..last].iter().copied().filter(telling).take(50).chain(lines[last..].iter().copied());
    told.collect::<Vec<_>>().join("\n")
}
