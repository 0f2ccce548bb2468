//! The test's end: a VM with a NIC, told what to send and receive, and asked what its program counted.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::command::to_hex;
use crate::net::frame::{Frame, MARKS};
use crate::net::netns::Namespace;
use crate::net::sender::Amount;
use crate::vmm::spawn::TestVm;

/// How long an answer may take unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// A VM with one NIC and its control socket; killed and reaped when dropped.
#[derive(Debug)]
pub struct NicVm {
    vm: TestVm,
    control: BufReader<UnixStream>,
    _folder: TempDir,
}

/// What the guest's own program says, by mark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestCounters {
    /// Sent: frames that the device took.
    pub tx: [Amount; MARKS],
    /// Received.
    pub rx: [Amount; MARKS],
}

impl GuestCounters {
    /// All that was sent.
    #[must_use]
    pub fn sent(&self) -> Amount {
        sum(&self.tx)
    }

    /// All that was received.
    #[must_use]
    pub fn received(&self) -> Amount {
        sum(&self.rx)
    }
}

impl NicVm {
    /// Starts a VM with this `--nic` and more options, and waits until its program runs.
    pub fn start(nic: &str, more: &[&str]) -> Result<Self> {
        Self::start_by(nic, more, |arguments| TestVm::start(arguments))
    }

    /// The same, the VMM itself being in this namespace.
    pub fn start_in(namespace: &Namespace, nic: &str, more: &[&str]) -> Result<Self> {
        Self::start_by(nic, more, |arguments| namespace.inside(|| TestVm::start(arguments)))
    }

    fn start_by(nic: &str, more: &[&str], start: impl FnOnce(&[&str]) -> Result<TestVm>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path)?;
        let path = path.to_str().context("a path that is no text")?;
        let vm = start(&[&["--nic", nic, "--nic-control", path], more].concat())?;
        let (stream, _) = listener.accept().context("the VM did not connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { vm, control: BufReader::new(stream), _folder: folder })
    }

    /// The VM.
    #[must_use]
    pub const fn vm(&self) -> &TestVm {
        &self.vm
    }

    /// The VM, to be waited for.
    pub const fn vm_mut(&mut self) -> &mut TestVm {
        &mut self.vm
    }

    /// How long an answer may take from now on.
    pub fn set_patience(&self, time: Duration) -> Result<()> {
        Ok(self.control.get_ref().set_read_timeout(Some(time))?)
    }

    /// Says a line of commands (see [`super::command`]) and does not wait for its answer.
    pub fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.control.get_mut(), "{line}").context("the VM is gone")
    }

    /// Waits for the answer to the oldest line that has none yet: an object for each command; an error if one failed.
    pub fn answer(&mut self) -> Result<Vec<Value>> {
        let mut line = String::new();
        self.control.read_line(&mut line).context("the VM does not answer")?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("not an answer: `{line}`"))?;
        let Value::Array(answer) = answer else { bail!("not an answer: {line}") };
        match answer.last().and_then(|last| last["error"].as_str()) {
            Some(error) => bail!("{error} ({line})"),
            None => Ok(answer),
        }
    }

    /// Says a line and waits for its answer.
    pub fn ask(&mut self, line: &str) -> Result<Vec<Value>> {
        self.say(line)?;
        self.answer()
    }

    /// Puts a frame into a slot of guest memory, 0 to 15.
    pub fn load(&mut self, slot: u64, frame: &Frame) -> Result<()> {
        self.ask(&format!("frame {slot} {} {}", to_hex(&frame.vnet), to_hex(&frame.bytes))).map(drop)
    }

    /// Has the guest send what is in a slot so many times; a batch to each queue in turn.
    pub fn send(&mut self, slot: u64, count: u64) -> Result<u64> {
        self.number(&format!("send {slot} {count}"), "sent")
    }

    /// Has the guest receive all that waits; how many frames.
    pub fn drain(&mut self) -> Result<u64> {
        self.number("drain", "received")
    }

    /// Has the guest receive so many frames, and waits for them.
    pub fn receive(&mut self, count: u64) -> Result<u64> {
        self.number(&format!("receive {count}"), "received")
    }

    /// What the guest's program counted.
    pub fn counters(&mut self) -> Result<GuestCounters> {
        let answer = self.ask("counters")?;
        let told = answer.first().context("no counters")?;
        let mut counters = GuestCounters::default();
        for entry in told["marks"].as_array().context("no marks")? {
            let mark = usize::try_from(entry["mark"].as_u64().context("no mark")?)?;
            counters.tx[mark] = amount(&entry["tx"])?;
            counters.rx[mark] = amount(&entry["rx"])?;
        }
        Ok(counters)
    }

    fn number(&mut self, line: &str, key: &str) -> Result<u64> {
        let answer = self.ask(line)?;
        answer.first().and_then(|value| value[key].as_u64()).with_context(|| format!("no {key} in {answer:?}"))
    }
}

fn amount(value: &Value) -> Result<Amount> {
    let word = |key: &str| value[key].as_u64().with_context(|| format!("no {key} in {value}"));
    Ok(Amount { packets: word("packets")?, bytes: word("bytes")? })
}

fn sum(side: &[Amount]) -> Amount {
    let mut sum = Amount::default();
    side.iter().for_each(|amount| sum.add(*amount));
    sum
}
