//! A real agent process for a test: its own socket, port, data directory and configuration, gone when dropped.
//!
//! The binary is what `KVMETER_BIN` names, else the one built beside the running test. Its environment is emptied, so
//! that no test depends on who runs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    net::TcpListener,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::Signal,
    sys::wait::{Id, WaitPidFlag, waitid},
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::metrics::Metrics;

const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// How to start an agent.
#[derive(Debug, Default)]
pub struct Setup {
    /// Lines added to its configuration file.
    pub config: String,
    /// A command put before it (`setpriv …`, `unshare …`), with its own arguments.
    pub wrapper: Vec<OsString>,
    /// The directory of an earlier agent, to go on with its ledger.
    pub dir: Option<TempDir>,
}

/// A running agent, killed and reaped when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    dir: Option<TempDir>,
    socket: PathBuf,
    port: u16,
}

impl Agent {
    /// Starts one with short intervals and waits until it has published its first sample.
    pub fn start() -> Result<Self> {
        Self::with(Setup::default())
    }

    /// Starts one as set up.
    pub fn with(setup: Setup) -> Result<Self> {
        let dir = match setup.dir {
            Some(dir) => dir,
            None => TempDir::new()?,
        };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let socket = dir.path().join("k.sock");
        let config = dir.path().join("kvmeter.toml");
        let data = dir.path().join("data");
        let base =
            format!("listen = \"127.0.0.1:{port}\"\nsocket = {:?}\ndata_dir = {:?}\n{}", socket, data, setup.config);
        std::fs::write(&config, base)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.path().join("agent.log"))?;
        let mut words = setup.wrapper;
        words.extend([binary()?.into_os_string(), "run".into(), "--config".into(), config.into_os_string()]);
        let mut command = Command::new(words.first().context("nothing to run")?);
        command.args(words.iter().skip(1)).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut agent = Self { child, dir: Some(dir), socket, port };
        agent.wait_ready()?;
        Ok(agent)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let end = Instant::now() + READY_TIMEOUT;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended at once ({status}):\n{}", self.log());
            }
            if self.get("/healthz").is_ok_and(|(code, _)| code == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the agent is not healthy after {READY_TIMEOUT:?}:\n{}", self.log())
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
        http_get(UnixStream::connect(&self.socket)?, path)
    }

    /// `GET path`, as JSON; an error unless the answer is a 200.
    pub fn json(&self, path: &str) -> Result<Value> {
        let (code, body) = self.get(path)?;
        if code != 200 {
            bail!("{path}: {code}: {body}");
        }
        Ok(serde_json::from_str(&body)?)
    }

    /// A scrape.
    pub fn metrics(&self) -> Result<Metrics> {
        let (code, body) = self.get("/metrics")?;
        if code != 200 {
            bail!("/metrics: {code}");
        }
        Metrics::parse(&body)
    }

    /// Waits until at least `samples` whole samples have been published from now on.
    pub fn wait_samples(&self, samples: u64) -> Result<()> {
        let count = |agent: &Self| -> Result<f64> {
            Ok(agent.metrics()?.one("kvmeter_sample_duration_seconds_count", &[]).unwrap_or(0.0))
        };
        let target = count(self)? + samples as f64;
        self.wait_until("more samples", Duration::from_secs(60), |agent| Ok(count(agent)? >= target))
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

    /// All ledger lines so far.
    pub fn ledger(&self) -> Result<Vec<Value>> {
        ledger_in(self.dir())
    }

    /// Waits for the stop of the one life a vm_id has had, and returns that life, held against the laws.
    pub fn ended(&self, vm_id: &str) -> Result<Life> {
        self.stop_line(vm_id)?;
        let lives: Vec<_> = lives(&self.ledger()?)?.into_values().filter(|life| life.start["vm_id"] == vm_id).collect();
        ensure!(lives.len() == 1, "{} lives of {vm_id}", lives.len());
        lives.into_iter().next().context("one life")
    }

    /// Ledger lines of a kind about a vm_id.
    pub fn lines(&self, kind: &str, vm_id: &str) -> Result<Vec<Value>> {
        Ok(self.ledger()?.into_iter().filter(|line| line["kind"] == kind && line["vm_id"] == vm_id).collect())
    }

    /// Waits for the one stop line of a vm_id and returns it.
    pub fn stop_line(&self, vm_id: &str) -> Result<Value> {
        self.wait_until("a stop line", Duration::from_secs(20), |a| {
            Ok(!a.lines("vm.compute.stop", vm_id)?.is_empty())
        })?;
        let mut lines = self.lines("vm.compute.stop", vm_id)?;
        match lines.len() {
            1 => lines.pop().context("one line"),
            n => bail!("{n} stop lines for {vm_id}"),
        }
    }

    /// Runs the `kvmeter` command against this agent.
    pub fn command(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary()?);
        command.env_clear().arg("--config").arg(self.dir().join("kvmeter.toml")).args(args);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// Proves the ledger with `kvmeter ledger verify`; an error with its report unless it is whole.
    pub fn verify(&self) -> Result<()> {
        let output = self.command(&["ledger", "verify"])?;
        if !output.status.success() {
            bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
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
            eprintln!("agent's log:\n{}", self.log());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// All lines of the ledger in an agent's directory.
pub fn ledger_in(dir: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(dir.join("data/metering/ledger.jsonl"))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Proves the ledger in the directory of an agent that has ended.
pub fn verify_in(dir: &Path) -> Result<()> {
    let output =
        Command::new(binary()?).env_clear().args(["ledger", "verify"]).arg(dir.join("data/metering")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// What a ledger tells of one incarnation.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Its start line.
    pub start: Value,
    /// Its heartbeats.
    pub usage: Vec<Value>,
    /// Its stop line.
    pub stop: Option<Value>,
}

/// Every life a ledger tells of, by incarnation. An error where a law is broken: one start, which comes first, at most
/// one stop, which comes last, one vm_id, usage that never falls, coverage that sums to the age, ids that are unique.
pub fn lives(lines: &[Value]) -> Result<BTreeMap<String, Life>> {
    let mut lives: BTreeMap<String, Life> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for line in lines {
        ensure!(ids.insert(line["id"].to_string()), "an id is there twice: {line}");
        let Some(incarnation) = line["incarnation"].as_str() else { continue };
        if line["kind"] == "vm.compute.start" {
            let life = Life { start: line.clone(), ..Life::default() };
            ensure!(lives.insert(incarnation.to_owned(), life).is_none(), "a second start: {line}");
            continue;
        }
        let life = lives.get_mut(incarnation).with_context(|| format!("no start before {line}"))?;
        ensure!(life.stop.is_none(), "after the stop: {line}");
        ensure!(life.start["vm_id"] == line["vm_id"], "another vm_id: {line}");
        goes_on(life.usage.last(), line, &life.start)?;
        match line["kind"].as_str() {
            Some("vm.compute.usage") => life.usage.push(line.clone()),
            Some("vm.compute.stop") => life.stop = Some(line.clone()),
            _ => {}
        }
    }
    Ok(lives)
}

fn goes_on(before: Option<&Value>, line: &Value, start: &Value) -> Result<()> {
    let told = before.and_then(|line| line["usage"].as_object()).into_iter().flatten();
    for (key, value) in told.filter(|(_, value)| value.is_string()) {
        ensure!(number(&line["usage"][key])? >= number(value)?, "{key} falls after {value}: {line}");
    }
    if let Some(coverage) = line.get("coverage") {
        let age = number(&line["mono_ns"])? - number(&start["mono_ns"])?;
        let covered = number(&coverage["observed_ns"])? + number(&coverage["unobserved_ns"])?;
        ensure!(covered == age, "{covered} ns covered of {age}: {line}");
    }
    Ok(())
}

/// A decimal string of a ledger line.
pub fn number(value: &Value) -> Result<u64> {
    let text = value.as_str().with_context(|| format!("not a decimal string: {value}"))?;
    text.parse().with_context(|| format!("not a number: {text}"))
}

/// CLOCK_BOOTTIME, nanoseconds.
pub fn boot_ns() -> Result<u64> {
    clock_ns(ClockId::CLOCK_BOOTTIME)
}

/// The CPU clock of a process, dead threads included, also of a zombie; nanoseconds. Of each thread that ended it
/// lacks what the kernel charges after it was unhashed, microseconds on an idle host.
pub fn process_cpu_ns(pid: i32) -> Result<u64> {
    clock_ns(clock_getcpuclockid(Pid::from_raw(pid))?)
}

fn clock_ns(clock: ClockId) -> Result<u64> {
    let time = clock.now()?;
    Ok(u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?)
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

/// The agent's binary.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KVMETER_BIN") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().context("where is this test?")?;
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join("kvmeter")).find(|path| path.is_file());
    found.context("no kvmeter binary beside the test; run `cargo xtask test`, or `cargo build` first")
}

/// One request by HTTP/1.0, whose answer ends with the connection.
pub fn http_get(mut stream: impl std::io::Read + std::io::Write, path: &str) -> Result<(u16, String)> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: kvmeter\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let code = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((code, body.to_owned()))
}

/// A whole HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// Status line and headers.
    pub head: String,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {}", self.body))
    }
}

impl Agent {
    /// Any request over the socket, with the answer's headers.
    pub fn request(&self, method: &str, path: &str) -> Result<Answer> {
        use std::io::{Read as _, Write as _};
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(format!("{method} {path} HTTP/1.0\r\nHost: kvmeter\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let code = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
    }

    /// Waits until these VMs are shown as running.
    pub fn wait_vms(&self, ids: &[&str]) -> Result<()> {
        self.wait_until(&format!("{ids:?} to run"), Duration::from_secs(30), |agent| {
            let metrics = agent.metrics()?;
            Ok(ids.iter().all(|id| metrics.one("kvmeter_vm_running", &[("vm_id", id)]) == Some(1.0)))
        })
    }
}
