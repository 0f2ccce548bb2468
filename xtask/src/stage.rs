//! The agent and the VMs of `cargo xtask run`, from their start to their end.
//!
//! Everything they write is under `target/run` and in a pin directory of their own, and is gone when they have ended;
//! after an error the logs are kept. Standard input tells when to end: it is closed.

use std::fs::{self, File};
use std::io::{IsTerminal as _, Read as _, Stdin, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::RunArgs;
use crate::demo::Demo;
use crate::signals;
use crate::workspace::{Profile, Workspace, output};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9973);
/// Pins of an agent that is only tried out; whoever runs next may remove them.
const PINS: &str = "/sys/fs/bpf/kvmeter-run";
const START_TAKES_AT_MOST: Duration = Duration::from_secs(30);
const STOP_TAKES_AT_MOST: Duration = Duration::from_secs(10);
const REFRESH: Duration = Duration::from_secs(1);
/// Where nobody looks at the screen, a table now and then is enough.
const REFRESH_IN_A_LOG: Duration = Duration::from_secs(5);

/// Starts everything, shows it until it is to end, ends it.
pub(crate) fn perform(workspace: &Workspace, args: &RunArgs, profile: Profile) -> Result<()> {
    let directory = workspace.target("run");
    let _only_one = lock(workspace)?;
    clear(&directory)?;
    let mut stage =
        Stage { binary: workspace.binary(profile, "kvmeter"), directory, agent: None, demo: Demo::default() };
    let played = stage.play(args, &workspace.binary(profile, "kvmeter-testvm"), &std::io::stdin());
    let stopped = stage.stop();
    played?;
    stopped?;
    clear(&stage.directory)?;
    // Nobody may be left to read it.
    let _said = writeln!(std::io::stdout(), "run: all stopped, and target/run removed");
    Ok(())
}

fn lock(workspace: &Workspace) -> Result<Flock<File>> {
    let path = workspace.target("run.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    locked.map_err(|(_, _)| anyhow::anyhow!("another `cargo xtask run` of this work tree is running"))
}

/// Removes what this or a killed run has left.
fn clear(directory: &Path) -> Result<()> {
    for path in [directory, Path::new(PINS)] {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _gone => {}
        }
    }
    Ok(())
}

/// The agent and the VMs, while they run.
#[derive(Debug)]
struct Stage {
    binary: PathBuf,
    directory: PathBuf,
    agent: Option<Child>,
    demo: Demo,
}

impl Stage {
    fn socket(&self) -> PathBuf {
        self.directory.join("kvmeter.sock")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    fn play(&mut self, args: &RunArgs, testvm: &Path, ending: &Stdin) -> Result<()> {
        let end = args.limit.map(|limit| Instant::now() + limit);
        self.start(&args.agent)?;
        if !self.await_agent(ending)? {
            return Ok(());
        }
        if args.demo {
            self.demo = Demo::start(testvm, &self.directory)?;
        }
        let terminal = std::io::stdout().is_terminal();
        let every = if terminal { REFRESH } else { REFRESH_IN_A_LOG };
        let mut next = Instant::now() + REFRESH;
        loop {
            let left = end.map_or(REFRESH, |end| end.saturating_duration_since(Instant::now()));
            if signals::readable(ending, left.min(REFRESH)) || end.is_some_and(|end| Instant::now() >= end) {
                return Ok(());
            }
            self.still_runs()?;
            self.demo.tick()?;
            if Instant::now() >= next {
                self.show(terminal);
                next += every;
            }
        }
    }

    fn start(&mut self, more: &[String]) -> Result<()> {
        fs::create_dir_all(&self.directory).with_context(|| format!("cannot make {}", self.directory.display()))?;
        let config = self.directory.join("kvmeter.toml");
        fs::write(&config, self.config()).with_context(|| format!("cannot write {}", config.display()))?;
        let log = File::create(self.log()).with_context(|| format!("cannot write {}", self.log().display()))?;
        let same = log.try_clone().context("cannot share the log")?;
        let mut command = Command::new(&self.binary);
        command.args(["run", "--config"]).arg(&config).args(more);
        // Ctrl-C removes everything: nothing here is to outlive the agent.
        command.env("KVMETER_BPF__PIN_DIR", "off");
        // A group of its own: Ctrl-C at the terminal reaches xtask alone, which then ends things in order.
        command.stdin(Stdio::null()).stdout(log).stderr(same).process_group(0);
        self.agent = Some(command.spawn().with_context(|| format!("cannot run {}", self.binary.display()))?);
        Ok(())
    }

    /// An agent that shows things soon and keeps them nowhere else.
    fn config(&self) -> String {
        format!(
            "listen = \"{LISTEN}\"\nsocket = {:?}\ndata_dir = {:?}\nsample_interval = \"1s\"\n\n[bpf]\npin_dir = \"{PINS}\"\n\n\
             [history]\ninterval = \"1s\"\nsamples = 3600\n\n[ledger]\nheartbeat = \"10s\"\n",
            self.socket(),
            self.directory.join("data"),
        )
    }

    /// Waits until the agent answers; false if somebody wants this to end.
    fn await_agent(&mut self, ending: &Stdin) -> Result<bool> {
        let start = Instant::now();
        while !healthy() {
            self.still_runs()?;
            if start.elapsed() > START_TAKES_AT_MOST {
                bail!("the agent does not answer on http://{LISTEN}/healthz; {}", self.last_words());
            }
            if signals::readable(ending, Duration::from_millis(100)) {
                return Ok(false);
            }
        }
        println!("run: the agent answers on http://{LISTEN} after {:.1} s", start.elapsed().as_secs_f64());
        Ok(true)
    }

    fn still_runs(&mut self) -> Result<()> {
        let ended =
            self.agent.as_mut().map(Child::try_wait).transpose().context("cannot look after the agent")?.flatten();
        if let Some(status) = ended {
            self.agent = None;
            bail!("the agent ended with {status}; {}", self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("the end of {}:\n{last}", self.log().display())
    }

    fn show(&self, terminal: bool) {
        let table = output(Command::new(&self.binary).args(["vms", "--socket"]).arg(self.socket()));
        let table = table.unwrap_or_else(|| "(`kvmeter vms` did not answer)\n".to_owned());
        let clear = if terminal { "\u{1b}[H\u{1b}[2J" } else { "" };
        let stop =
            if terminal { "Ctrl-C stops and removes everything" } else { "SIGTERM stops and removes everything" };
        let log = self.log();
        // A reader that went away, as `| head` does, is no reason to leave VMs behind: the loop goes on to its end.
        let _shown = write!(
            std::io::stdout(),
            "{clear}kvmeter: metrics on http://{LISTEN}/metrics, log in {}\n{stop}\n\n{table}\n",
            log.display()
        );
    }

    /// Ends the VMs, lets the agent see it, ends the agent.
    fn stop(&mut self) -> Result<()> {
        let vms = self.demo.stop();
        let Some(mut agent) = self.agent.take() else { return vms };
        if vms.is_ok() {
            std::thread::sleep(Duration::from_millis(500));
        }
        kill(Pid::from_raw(agent.id().cast_signed()), Signal::SIGTERM).context("cannot end the agent")?;
        let start = Instant::now();
        while agent.try_wait().context("cannot look after the agent")?.is_none() {
            if start.elapsed() > STOP_TAKES_AT_MOST {
                agent.kill().and_then(|()| agent.wait()).context("cannot kill the agent")?;
                bail!(
                    "the agent did not end within {STOP_TAKES_AT_MOST:?} of SIGTERM and was killed; see {}",
                    self.log().display()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        vms
    }
}

impl Drop for Stage {
    /// Whatever ends the stage, a panic included, leaves nothing running; after `stop` there is nothing to do.
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// Whether the agent's HTTP server says that a snapshot has been published.
fn healthy() -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&LISTEN, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
