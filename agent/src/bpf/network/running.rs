//! Which task runs, read by programs without a call, which costs as much as all else that they do for a packet: each CPU's
//! runqueue has it, at a place that stays where it is while the kernel is up.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsFd as _, BorrowedFd},
    sync::mpsc,
    thread,
    time::Duration,
};

use aya_obj::generated::bpf_cmd;
use kvmeter_common::network::{self as abi, BLOCK_BYTES, LANES};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::{
    Error, NetworkPrograms, PortId,
    carrier::Running,
    port::{Port, size},
    syscall,
};

const OTHER: &str = "the task read is not the one that runs";
const NO_ANSWER: &str = "a CPU did not come to a thread of the agent";
/// For all CPUs together: asking takes each some microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// `BPF_PROG_TEST_RUN` of include/uapi/linux/bpf.h up to the last member used.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

impl Port {
    /// Where which task runs is kept, and how often that changed.
    pub(super) fn put_tasks(&mut self, places: &[u64], of: Running) {
        for (cpu, place) in places.iter().enumerate().take(LANES) {
            self.page.put_u64(0, offset_of!(abi::Header, tasks) + cpu * size_of::<u64>(), *place);
            if let (Some(first), true) = (self.notes, *place != 0 && of.switches != 0) {
                let at = offset_of!(abi::Note, place) + cpu * size_of::<abi::Note>();
                let switches = place.wrapping_sub(u64::from(of.current)).wrapping_add(u64::from(of.switches));
                self.page.put_u64(first + size(at / BLOCK_BYTES), at % BLOCK_BYTES, switches);
            }
        }
    }
}

impl NetworkPrograms {
    /// Finds the places, by CPU; nothing where the kernel has none, or what is read there is not what asking tells.
    pub(super) fn find_tasks(&self) -> Vec<u64> {
        if self.carrier.direct.running.task == 0 {
            return Vec::new();
        }
        self.ask_tasks().unwrap_or_else(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "which task runs is asked for each packet");
            Vec::new()
        })
    }

    pub(super) fn ask_tasks(&self) -> Result<Vec<u64>, Error> {
        let port = Port::new(PortId(0), self.lanes, false)?;
        let program = self.program("running_task", &self.constants(&port, None, true))?;
        let ask =
            move || run(program.as_fd()).and_then(|told| if told == 1 { Ok(()) } else { Err(io::Error::other(OTHER)) });
        each_cpu(ask, PATIENCE).map_err(Error::Refused)?;
        Ok((0..LANES).map(|cpu| port.word(offset_of!(abi::Header, tasks) + cpu * size_of::<u64>())).collect())
    }
}

/// Does something on each CPU that this process may run on; the others' programs ask. Ends without an answer where a CPU
/// does not come to it in time: one that a real-time task keeps to itself.
fn each_cpu(work: impl Fn() -> io::Result<()> + Send + 'static, patience: Duration) -> io::Result<()> {
    let turns = move || {
        let this = Pid::from_raw(0);
        let allowed = sched_getaffinity(this)?;
        for cpu in (0..LANES).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)) {
            let mut only = CpuSet::new();
            only.set(cpu)?;
            sched_setaffinity(this, &only)?;
            work()?;
        }
        Ok(())
    };
    // A thread of its own: no other is moved, and one that waits for its CPU holds nobody up.
    let (answer, answered) = mpsc::sync_channel(1);
    thread::Builder::new().name("running-task".to_owned()).spawn(move || {
        // Nobody hears one that comes too late.
        let _ = answer.send(turns());
    })?;
    answered.recv_timeout(patience).unwrap_or_else(|_| Err(io::Error::other(NO_ANSWER)))
}

/// Runs a program once with a packet of zeros; what it returns.
fn run(program: BorrowedFd<'_>) -> io::Result<u32> {
    let packet = [0_u8; 64];
    let mut attributes = TestRun {
        prog_fd: syscall::number(program),
        data_size_in: 64,
        data_in: packet.as_ptr().expose_provenance() as u64,
        repeat: 1,
        ..TestRun::default()
    };
    syscall::request(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes.retval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_does_not_come_to_it_holds_nobody_up() {
        let asked = std::time::Instant::now();
        let never = || {
            thread::sleep(Duration::from_secs(3_600));
            Ok(())
        };
        let error = each_cpu(never, Duration::from_millis(50)).expect_err("it cannot be done");
        assert_eq!(error.to_string(), NO_ANSWER);
        assert!(asked.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn each_cpu_is_asked_until_one_refuses() {
        let refuse = || Err(io::Error::other("refused"));
        assert_eq!(each_cpu(refuse, PATIENCE).expect_err("refused").to_string(), "refused");
        each_cpu(|| Ok(()), PATIENCE).expect("all answer");
    }
}
