//! The machine of `cargo xtask power-cuts`: an agent whose ledger is on an ext4 disk, under load, until the power goes.
//!
//! What the agent shows on `/v1/events` it says to be durable; each such line is told on the console at once, by number
//! and hash, so that the host knows what must be there after the cut. A neighbour syncs a file of its own all the time,
//! so that the file system commits at moments that the ledger did not choose.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::FileExt as _, net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use kvmeter::ledger::{self, Kind};
use nix::mount::{MsFlags, mount};
use sha2::{Digest as _, Sha256};

const DISK: &str = "/dev/vda";
const DATA: &str = "/data";
const METERING: &str = "/data/kvmeter/metering";
const SOCKET: &str = "/tmp/k.sock";
const CONFIG: &str = "/tmp/kvmeter.toml";
/// The second serial port, where the host keeps the agent's log.
const LOG: &str = "/dev/ttyS1";
/// The group that VMs are in.
const LOAD: &str = "/sys/fs/cgroup/load";
/// What is told of a line's SHA-256; a console is slow.
const HASH_BYTES: usize = 8;
/// The reader that retention waits for.
const READER: &str = "power";
/// Lines after which it acknowledges.
const ACKNOWLEDGED_AFTER: u64 = 25;
/// Lines after which the machine is busy: its standing VMs run, and its ledger has two files.
const BUSY_AFTER: u64 = 90;

/// Files as small as can be, so that they are rotated and removed all the time.
const SETTINGS: &str = r#"listen = "off"
socket = "/tmp/k.sock"
data_dir = "/data/kvmeter"
[bpf]
pin_dir = "off"
[ledger]
heartbeat = "1s"
max_file = "64KiB"
max_total = "128KiB"
min_free = "1MiB"
readers = ["power"]
"#;

/// What the host asks for on the kernel's command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The newest line that was told in an earlier machine.
    since: u64,
}

impl Order {
    /// `kvmeter.power.since=SEQ`; `None` where the machine is for something else.
    pub(super) fn of(command_line: &str) -> Option<Self> {
        let value = command_line.split_whitespace().find_map(|word| word.strip_prefix("kvmeter.power.since="))?;
        Some(Self { since: value.parse().ok()? })
    }

    /// Works until the power goes, so it only returns with an error.
    pub(super) fn carry_out(&self) -> Result<()> {
        std::fs::create_dir_all(DATA)?;
        mount(Some(DISK), DATA, Some("ext4"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {DISK}"))?;
        say("mounted")?;
        std::fs::write(CONFIG, SETTINGS)?;
        let mut agent = agent()?;
        let stream = self.follow(&mut agent)?;
        behind()?;
        let _neighbour = thread::spawn(neighbour);
        let _standing = testvm(&["--fleet", "12", "--id", "standing"])?;
        let _passing = testvm(&["--burst", "100000", "--concurrency", "3", "--id", "passing"])?;
        let told = tell(stream);
        bail!("the stream of lines is over: {told:?}, the agent: {:?}", agent.try_wait())
    }

    /// Opens the stream of lines once there is an agent that gives it.
    fn follow(&self, agent: &mut Child) -> Result<BufReader<UnixStream>> {
        let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        let ask = format!(
            "GET /v1/events?kinds={} HTTP/1.0\r\nHost: kvmeter\r\nLast-Event-ID: {}\r\n\r\n",
            kinds.join(","),
            self.since
        );
        loop {
            if let Some(status) = agent.try_wait()? {
                bail!("the agent did not start: {status}");
            }
            let Ok(mut stream) = UnixStream::connect(SOCKET) else {
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            stream.write_all(ask.as_bytes())?;
            let mut stream = BufReader::new(stream);
            let mut status = String::new();
            stream.read_line(&mut status)?;
            if status.contains(" 200 ") {
                return Ok(stream);
            }
            bail!("/v1/events: {status}");
        }
    }
}

/// Gives VMs what is left of the CPUs: else lines would be told long after they were shown, and that they were shown too
/// early would not be seen.
fn behind() -> Result<()> {
    std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu").context("no control group for CPUs")?;
    std::fs::create_dir_all(LOAD)?;
    std::fs::write(Path::new(LOAD).join("cpu.weight"), "1").context("no weight of a control group")
}

fn agent() -> Result<Child> {
    let log = OpenOptions::new().write(true).open(LOG).with_context(|| format!("no {LOG}"))?;
    let mut command = Command::new("/bin/kvmeter");
    command.args(["run", "--config", CONFIG]).env_clear().stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log).spawn().context("cannot start the agent")
}

fn testvm(arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new("/bin/kvmeter-testvm");
    command
        .args(arguments)
        .args(["--memory", "1M", "--cgroup", LOAD])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.spawn().context("cannot start VMs")
}

/// Says each line that the agent shows, and now and then that it is needed no more.
fn tell(stream: BufReader<UnixStream>) -> Result<()> {
    let (mut seq, mut told) = (0, 0);
    for line in stream.lines() {
        let line = line?;
        if let Some(number) = line.strip_prefix("id: ") {
            seq = number.parse()?;
        } else if let Some(text) = line.strip_prefix("data: ").filter(|_| seq > 0) {
            let hash = Sha256::digest(text.as_bytes());
            let hash: String = hash.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
            say(&format!("line {seq} {hash}"))?;
            told += 1;
            if told == BUSY_AFTER {
                say("busy")?;
            }
            if told % ACKNOWLEDGED_AFTER == 0 {
                say(&format!("acknowledge {seq}"))?;
                ledger::acknowledge(Path::new(METERING), READER, seq)?;
            }
        } else if line.is_empty() {
            seq = 0;
        }
    }
    Ok(())
}

/// One line for the host, in one write.
fn say(what: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(format!("power: {what}\n").as_bytes())?)
}

/// Commits of the file system that the ledger did not ask for.
fn neighbour() -> Result<()> {
    let file = File::create(Path::new(DATA).join("neighbour"))?;
    for turn in 0_u64.. {
        file.write_all_at(&turn.to_le_bytes(), turn % 512 * 512)?;
        file.set_len(512 * 512 + turn % 4096)?;
        file.sync_all()?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_on_the_command_line_or_there_is_none() {
        assert_eq!(Order::of("quiet kvmeter.power.since=7\n"), Some(Order { since: 7 }));
        assert_eq!(Order::of("kvmeter.power.since=x"), None);
        assert_eq!(Order::of("console=ttyS0 quiet"), None);
    }
}
