//! One machine from its start to the moment the power goes: its disk is served from here, its console is read, and it is
//! killed. On the way there further cuts are taken: what the disk would be if the power went at that moment. One that is
//! to be gone on with more than once is saved, with its disk.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::dice::Dice;
use super::disk::{Disk, Loss};
use super::monitor::Monitor;
use super::nbd::{self, Answer, Request};
use super::told::{Mark, Told};
use crate::kernels::boot;
use crate::kernels::fetch::Fetched;

/// A machine that has not come to its cut after this long stands still; an emulated one on a busy host is slow.
const LIMIT: Duration = Duration::from_secs(300);

/// Sockets below the directory of all machines.
const DISK: &str = "disk.sock";
const MONITOR: &str = "monitor.sock";
/// Where a machine is saved, below the directory of all of them.
const SAVED: &str = "saved";

/// What a machine does.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// It goes on as it was saved, instead of booting.
    pub(crate) resumes: bool,
    /// When the power goes: so many writes and flushes of the disk after it has come so far, or since it went on.
    pub(crate) after: Mark,
    /// Rising; the last one is the end.
    pub(crate) moments: Vec<u64>,
    /// It ends by being saved, and not killed.
    pub(crate) saved: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match (self.resumes, self.after) {
            (true, _) => "goes on",
            (false, Mark::Mounted) => "boots",
            (false, Mark::Busy) => "boots to load",
        };
        let end = if self.saved { "saved" } else { "killed" };
        write!(out, "{from}, {end} after {:?} writes and flushes", self.moments)
    }
}

/// What a cut left.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The disk.
    pub(crate) image: Vec<u8>,
    /// What had been told by then.
    pub(crate) told: Told,
    pub(crate) loss: Loss,
    /// Sectors that were in the disk's cache.
    pub(crate) cached: usize,
    /// Whether the emulator was killed.
    pub(crate) killed: bool,
}

/// What the threads around a machine share.
struct Shared {
    state: Mutex<State>,
    told: Mutex<Told>,
}

struct State {
    disk: Disk,
    /// Writes and flushes so far.
    requests: u64,
    /// Where the plan's counting began.
    from: Option<u64>,
    plan: Plan,
    dice: Dice,
    cuts: Vec<Cut>,
    off: bool,
    /// It is time to save it.
    due: bool,
    trouble: Option<anyhow::Error>,
}

/// Lets a machine run with a disk up to the end of its plan; the last of the cuts is the end.
pub(crate) fn run(
    home: &Path,
    kernel: &Fetched,
    (disk, told): (Disk, Told),
    plan: Plan,
    dice: &mut Dice,
) -> Result<Vec<Cut>> {
    let socket = home.join(DISK);
    drop(std::fs::remove_file(&socket));
    let listener = UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let mut command = emulator(home, kernel, &told, plan.resumes);
    let from = plan.resumes.then_some(0);
    let (dice, cuts) = (Dice::new(dice.next()), Vec::new());
    let state = State { disk, requests: 0, from, plan, dice, cuts, off: false, due: false, trouble: None };
    let shared = Shared { state: Mutex::new(state), told: Mutex::new(told) };
    let mut machine = command.spawn().context("cannot run qemu-system-x86_64")?;
    let console = machine.stdout.take().context("the machine has no console")?;
    thread::scope(|scope| {
        scope.spawn(|| shared.trouble(shared.serve(&listener)));
        scope.spawn(|| shared.trouble(shared.follow(console)));
        let ended = shared.wait(&mut machine, home);
        // Whoever waits for the emulator to connect is let go.
        drop(UnixStream::connect(&socket));
        ended
    })?;
    shared.finish()
}

fn emulator(home: &Path, kernel: &Fetched, told: &Told, resumes: bool) -> Command {
    let mut command = boot::emulator(kernel, &home.join("initrd"), &format!("kvmeter.power.since={}", told.newest()));
    command.arg("-serial").arg(format!("file:{}", home.join("agent.log").display()));
    command.arg("-monitor").arg(format!("unix:{},server=on,wait=off", home.join(MONITOR).display()));
    let node = format!("driver=nbd,node-name=disk,server.type=unix,server.path={}", home.join(DISK).display());
    command.args(["-blockdev", &node, "-device", "virtio-blk-pci,drive=disk,write-cache=on"]);
    if resumes {
        command.arg("-incoming").arg(format!("exec:cat {}", home.join(SAVED).display()));
    }
    command
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went wrong first is what counts; it ends the machine.
    fn trouble(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.lock().trouble.get_or_insert(error);
        }
    }

    fn serve(&self, listener: &UnixListener) -> Result<()> {
        let (mut stream, _) = listener.accept().context("the emulator does not connect")?;
        let bytes = self.lock().disk.bytes();
        let served = nbd::agree(&mut stream, bytes);
        let served = served.and_then(|()| nbd::serve(&mut stream, |request| self.answer(request)));
        // Killed, it leaves half a word behind.
        if self.lock().off { Ok(()) } else { served }
    }

    fn answer(&self, request: Request) -> Answer {
        // Told before the cut: so it has to be there after it.
        let told = self.told().clone();
        let mut state = self.lock();
        if state.off {
            return Answer::Off;
        }
        let flushed = request == Request::Flush;
        match request {
            Request::Read { offset, length } => match place(&state.disk, offset, length as usize) {
                Some(offset) => return Answer::Done(state.disk.read(offset, length as usize)),
                None => return Answer::Refused,
            },
            Request::Write { offset, bytes, force } => match place(&state.disk, offset, bytes.len()) {
                Some(offset) => state.disk.write(offset, &bytes, force),
                None => return Answer::Refused,
            },
            Request::Flush => state.disk.flush(),
        }
        state.requests += 1;
        state.count(told, flushed);
        if state.off { Answer::Off } else { Answer::Done(Vec::new()) }
    }

    fn follow(&self, console: ChildStdout) -> Result<()> {
        for line in BufReader::new(console).split(b'\n') {
            let line = line.context("cannot read the console")?;
            let mark = self.told().take(&String::from_utf8_lossy(&line))?;
            let mut state = self.lock();
            if mark == Some(state.plan.after) {
                state.from = Some(state.requests);
            }
        }
        Ok(())
    }

    /// Kills the machine once its power is gone, or something went wrong.
    fn wait(&self, machine: &mut Child, home: &Path) -> Result<()> {
        let end = Instant::now() + LIMIT;
        let outcome = loop {
            if self.lock().is_over() {
                break Ok(());
            }
            if self.lock().due {
                let saved = Monitor::open(&home.join(MONITOR)).and_then(|mut it| it.save(&home.join(SAVED)));
                self.lock().off = true;
                break saved;
            }
            if let Some(status) = machine.try_wait().context("cannot wait for the machine")? {
                break Err(anyhow::anyhow!("the emulator ended by itself, with {status}"));
            }
            if Instant::now() > end {
                break Err(anyhow::anyhow!("the machine did not come to its cut within {} s", LIMIT.as_secs()));
            }
            thread::sleep(Duration::from_millis(2));
        };
        machine.kill().context("cannot kill the emulator")?;
        machine.wait().context("cannot wait for the emulator")?;
        outcome
    }

    /// The cuts; the last one is of the disk as it stands.
    fn finish(self) -> Result<Vec<Cut>> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.trouble {
            return Err(error);
        }
        let told = self.told.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !state.off {
            bail!("the power did not go");
        }
        let killed = !state.plan.saved;
        let loss = if killed { Loss::roll(&mut state.dice) } else { Loss::Nothing };
        let image = state.disk.cut(loss, &mut state.dice);
        state.cuts.push(Cut { image, told, loss, cached: state.disk.cached(), killed });
        Ok(state.cuts)
    }
}

impl State {
    const fn is_over(&self) -> bool {
        self.off || self.trouble.is_some()
    }

    /// Takes a cut where one is due. Those of even numbers wait for the end of a flush: then the file system has just
    /// committed, maybe the new length of a file whose bytes are still to come.
    fn count(&mut self, told: Told, flushed: bool) {
        let Some(from) = self.from else { return };
        let Some(due) = self.plan.moments.get(self.cuts.len()) else { return };
        if self.requests < from + due || (due.is_multiple_of(2) && !flushed) {
            return;
        }
        if self.cuts.len() + 1 == self.plan.moments.len() {
            (self.off, self.due) = (!self.plan.saved, self.plan.saved);
            return;
        }
        let loss = Loss::roll(&mut self.dice);
        let image = self.disk.cut(loss, &mut self.dice);
        self.cuts.push(Cut { image, told, loss, cached: self.disk.cached(), killed: false });
    }
}

/// Where such a request begins, if the disk has all of it.
fn place(disk: &Disk, offset: u64, length: usize) -> Option<usize> {
    let offset = usize::try_from(offset).ok()?;
    disk.has(offset, length).then_some(offset)
}
