//! A NIC at work: answers the program's questions, and the test's commands between them.
//!
//! Everything happens in the vCPU's thread while its guest waits, so commands are done in their order, and what the
//! counters say between two commands is whole.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kvm_ioctls::VcpuFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::area::{Area, LONGEST, MOST_FRAMES, RECEIVE_BYTES};
use super::command::Command;
use super::control::{Control, Input};
use super::device::Device;
use super::option::NicOption;
use super::program::{DO_RECEIVE, DO_SEND, MMIO_NEXT, MMIO_RECEIVE, MMIO_SEND};
use crate::net::frame::MARKS;
use crate::net::sender::Amount;
use crate::vmm::end;
use crate::vmm::guest::Guest;

/// Most frames for one question of the program, so that what interrupts it is seen soon.
const BATCH: u64 = 4096;
/// How long `receive` waits for its frames.
const PATIENCE: Duration = Duration::from_secs(30);
const VNET_BYTES: usize = 10;

/// One NIC.
#[derive(Debug)]
pub struct Nic {
    area: Area,
    device: Device,
    control: Option<Control>,
    /// Receives whenever something comes.
    listening: bool,
    /// The queues are of no use until they are opened again.
    deaf: bool,
    /// The rest of the line that is being done.
    todo: VecDeque<Command>,
    /// Its answer so far; nothing when no line is being done.
    answer: Option<Vec<Value>>,
    running: Option<Running>,
    buffer: Vec<u8>,
    lengths: Vec<u8>,
    turn: usize,
}

/// What the program was told to do and has not yet done.
#[derive(Debug)]
enum Running {
    Send { queue: Option<usize>, endless: bool, sent: u64, error: Option<String> },
    Receive { left: Option<u64>, received: u64, until: Instant, error: Option<String> },
}

impl Nic {
    /// The NIC with this number of a VM of `memory_bytes`, open and connected to its test.
    pub fn new(
        guest: &Arc<Guest>,
        memory_bytes: u64,
        number: u64,
        option: &NicOption,
        control: Option<&Path>,
    ) -> Result<Self> {
        Ok(Self {
            area: Area::new(guest, memory_bytes, number)?,
            device: Device::new(option)?,
            control: control.map(Control::connect).transpose()?,
            listening: control.is_none(),
            deaf: false,
            todo: VecDeque::new(),
            answer: None,
            running: None,
            buffer: Vec::new(),
            lengths: Vec::new(),
            turn: 0,
        })
    }

    /// Makes this vCPU the one that runs the NIC's program.
    pub fn take_over(&self, vcpu: &VcpuFd) -> Result<()> {
        self.area.enter_at_program(vcpu)
    }

    /// Answers a read of the unbacked window at this offset; nothing if it is not the NIC's.
    pub fn read(&mut self, offset: u64) -> Result<Option<u64>> {
        match offset {
            MMIO_NEXT => self.next().map(Some),
            MMIO_SEND => self.send().map(Some),
            MMIO_RECEIVE => self.receive().map(Some),
            _ => Ok(None),
        }
    }

    /// What the program is to do next: the rest of the line, or what comes.
    fn next(&mut self) -> Result<u64> {
        self.finish();
        loop {
            while let Some(command) = self.todo.pop_front() {
                match self.start(command) {
                    Ok(Begun::Program(what)) => return Ok(what),
                    Ok(Begun::Done(value)) => self.tell(value),
                    Err(error) => self.fail(json!({ "error": format!("{error:#}") })),
                }
            }
            if let (Some(answer), Some(control)) = (self.answer.take(), &mut self.control) {
                control.answer(&Value::Array(answer))?;
            }
            if self.wait()? {
                return Ok(DO_RECEIVE);
            }
        }
    }

    fn start(&mut self, command: Command) -> Result<Begun> {
        match command {
            Command::Frame { slot, vnet, bytes } => self.area.load(slot, &vnet, &bytes)?,
            Command::Listen(on) => self.listening = on,
            Command::Open => {
                self.device.open()?;
                self.deaf = false;
            }
            Command::Close => self.device.close(),
            Command::Counters => return Ok(Begun::Done(told(&self.area.counters()?))),
            Command::Send { slot, count, queue } => {
                self.area.order(slot, count.unwrap_or(u64::MAX))?;
                self.running = Some(Running::Send { queue, endless: count.is_none(), sent: 0, error: None });
                return Ok(Begun::Program(DO_SEND));
            }
            Command::Receive(left) => {
                let until = Instant::now() + PATIENCE;
                self.running = Some(Running::Receive { left, received: 0, until, error: None });
                return Ok(Begun::Program(DO_RECEIVE));
            }
        }
        Ok(Begun::Done(json!({})))
    }

    /// Tells what became of what the program did.
    fn finish(&mut self) {
        let (mut value, error) = match self.running.take() {
            None => return,
            Some(Running::Send { sent, error, .. }) => (json!({ "sent": sent }), error),
            Some(Running::Receive { left, received, error, .. }) => {
                let missing = left.filter(|left| *left > 0).map(|left| format!("{left} frames did not come"));
                (json!({ "received": received }), error.or(missing))
            }
        };
        match error {
            None => self.tell(value),
            Some(error) => {
                value["error"] = error.into();
                self.fail(value);
            }
        }
    }

    fn tell(&mut self, value: Value) {
        self.answer.get_or_insert_default().push(value);
    }

    /// Ends the line.
    fn fail(&mut self, value: Value) {
        self.todo.clear();
        self.tell(value);
    }

    /// Waits for a line, which is then to do, or for a frame to receive: true.
    fn wait(&mut self) -> Result<bool> {
        let mut fds: Vec<_> =
            self.control.iter().map(|control| PollFd::new(control.stream().as_fd(), PollFlags::POLLIN)).collect();
        if self.listening && !self.deaf {
            let queues = self.device.queues().iter();
            fds.extend(queues.map(|queue| PollFd::new(queue.as_fd(), PollFlags::POLLIN)));
        }
        let buffered = self.control.as_ref().is_some_and(Control::has_input);
        if !buffered {
            poll(&mut fds, PollTimeout::NONE).context("poll")?;
        }
        let frames = fds.iter().skip(usize::from(self.control.is_some())).any(|fd| fd.any().unwrap_or(false));
        let Some(control) = &mut self.control else { return Ok(frames) };
        match control.input()? {
            Input::Nothing => return Ok(frames),
            // Nobody is left to ask it anything.
            Input::End => end::leave(0),
            Input::Line(line) => match Command::line(&line) {
                Ok(commands) => {
                    self.todo = commands.into();
                    self.answer = Some(Vec::new());
                }
                Err(error) => self.fail(json!({ "error": format!("{error:#}") })),
            },
        }
        Ok(false)
    }

    /// Writes as many frames as the program wants, or a batch; how many.
    fn send(&mut self) -> Result<u64> {
        let wanted = self.area.wanted(self.device.vnet(), &mut self.buffer)?;
        let Some(Running::Send { queue, endless, sent, error }) = &mut self.running else {
            bail!("the guest sends unasked");
        };
        if error.is_some() || (*endless && self.control.as_ref().is_none_or(Control::has_input)) {
            return Ok(0);
        }
        let queues = self.device.queues().len().max(1);
        self.turn = self.turn.wrapping_add(1);
        let queue = queue.unwrap_or(self.turn % queues);
        let (written, outcome) = self.device.write(queue, &self.buffer, wanted.min(BATCH));
        *error = outcome.err().map(|error| format!("{error:#}"));
        *sent += written;
        Ok(written)
    }

    /// Puts what waits into the receive buffer; how many frames.
    fn receive(&mut self) -> Result<u64> {
        loop {
            let outcome = self.fill();
            let Some(Running::Receive { left, received, until, error }) = &mut self.running else {
                // The interface may be gone.
                self.deaf = outcome.is_err();
                return Ok(outcome.unwrap_or(0));
            };
            let count = match outcome {
                Ok(count) => count,
                Err(failure) => {
                    *error = Some(format!("{failure:#}"));
                    return Ok(0);
                }
            };
            *received += count;
            let Some(left) = left else { return Ok(count) };
            *left -= count;
            let time = until.saturating_duration_since(Instant::now());
            if count > 0 || *left == 0 || time.is_zero() {
                return Ok(count);
            }
            let queues = self.device.queues().iter();
            let mut fds: Vec<_> = queues.map(|queue| PollFd::new(queue.as_fd(), PollFlags::POLLIN)).collect();
            poll(&mut fds, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)).context("poll")?;
        }
    }

    fn fill(&mut self) -> Result<u64> {
        let head = if self.device.vnet() { VNET_BYTES } else { 0 };
        let most = match &self.running {
            Some(Running::Receive { left: Some(left), .. }) => usize::try_from(*left)?.min(MOST_FRAMES),
            _ => MOST_FRAMES,
        };
        self.buffer.resize(RECEIVE_BYTES, 0);
        self.lengths.clear();
        let (mut count, mut filled) = (0, 0);
        for queue in 0..self.device.queues().len() {
            while count < most && filled + LONGEST + VNET_BYTES <= RECEIVE_BYTES {
                // What was read already must reach the guest; the error comes again.
                let end = match self.device.read(queue, &mut self.buffer[filled..]) {
                    Err(error) if count == 0 => return Err(error),
                    Ok(Some(length)) if length > head => filled + length,
                    _ => break,
                };
                // The guest gets the frame alone.
                self.buffer.copy_within(filled + head..end, filled);
                self.lengths.extend(u32::try_from(end - head - filled)?.to_le_bytes());
                (count, filled) = (count + 1, end - head);
            }
        }
        // One copy for all: frame by frame would take longer than reading them.
        self.area.put(&self.buffer[..filled], &self.lengths)?;
        Ok(count as u64)
    }
}

/// What became of a command: something for the program to do, or its answer.
enum Begun {
    Program(u64),
    Done(Value),
}

/// The guest's counters as JSON: the sums, and each mark that has any.
fn told(counters: &[[Amount; MARKS]; 2]) -> Value {
    let amount = |amount: &Amount| json!({ "packets": amount.packets, "bytes": amount.bytes });
    let [tx, rx] = counters.each_ref().map(|side| {
        let mut sum = Amount::default();
        side.iter().for_each(|mark| sum.add(*mark));
        sum
    });
    let marks = (0..MARKS).filter(|mark| counters.iter().any(|side| side[*mark] != Amount::default()));
    let marks =
        marks.map(|mark| json!({ "mark": mark, "tx": amount(&counters[0][mark]), "rx": amount(&counters[1][mark]) }));
    json!({ "tx": amount(&tx), "rx": amount(&rx), "marks": marks.collect::<Vec<_>>() })
}
