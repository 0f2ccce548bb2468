//! Two threads on one CPU that wake each other through pipes: nothing but context switches, as many as there can be.
//!
//! The same pair runs inside a VM's process (`--pingpong`) and, for comparison, in a process that is no VM.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::load;

/// A pair of threads that waits to be told how often to switch.
#[derive(Debug)]
pub struct PingPong {
    orders: Sender<u64>,
    done: Receiver<Result<Duration>>,
}

impl PingPong {
    /// Starts both threads on this CPU; they sleep.
    pub fn start(cpu: usize) -> Result<Self> {
        let (from_ping, to_pong) = std::io::pipe()?;
        let (from_pong, to_ping) = std::io::pipe()?;
        let (orders, ordered) = channel();
        let (finished, done) = channel();
        load::spawn(format!("pong{cpu}"), move || {
            if pin(cpu).is_ok() {
                // The end of the other thread, and so of its pipe, ends this one.
                drop(echo(from_ping, to_ping));
            }
        })?;
        load::spawn(format!("ping{cpu}"), move || {
            let mut pipes = (to_pong, from_pong);
            let pinned = pin(cpu);
            while let Ok(rounds) = ordered.recv() {
                let outcome = match &pinned {
                    Ok(()) => serve(&mut pipes, rounds),
                    Err(error) => Err(anyhow::anyhow!("{error:#}")),
                };
                if finished.send(outcome).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { orders, done })
    }

    /// Begins so many round trips of two switches each.
    pub fn begin(&self, rounds: u64) -> Result<()> {
        self.orders.send(rounds).context("the thread is gone")
    }

    /// Waits for the round trips that were begun; how long they took.
    pub fn finish(&self) -> Result<Duration> {
        self.done.recv().context("the thread is gone")?
    }

    /// So many round trips; how long they took.
    pub fn run(&self, rounds: u64) -> Result<Duration> {
        self.begin(rounds)?;
        self.finish()
    }
}

/// Starts a pair that switches for as long as the process lives.
pub fn start_endless(cpu: usize) -> Result<()> {
    let pair = PingPong::start(cpu)?;
    load::spawn("pingpong".into(), move || {
        if let Err(error) = pair.run(u64::MAX) {
            eprintln!("kvmeter-testvm: --pingpong: {error:#}");
        }
    })
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("CPU {cpu} is beyond the set"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("a thread cannot be kept on CPU {cpu}"))
}

fn serve(pipes: &mut (PipeWriter, PipeReader), rounds: u64) -> Result<Duration> {
    let (began, mut byte) = (Instant::now(), [0]);
    for _ in 0..rounds {
        pipes.0.write_all(&byte)?;
        pipes.1.read_exact(&mut byte)?;
    }
    Ok(began.elapsed())
}

fn echo(mut from: PipeReader, mut to: PipeWriter) -> Result<()> {
    let mut byte = [0];
    loop {
        from.read_exact(&mut byte)?;
        to.write_all(&byte)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_two_switches() {
        let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0)).unwrap();
        let cpu = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap();
        let pair = PingPong::start(cpu).unwrap();
        pair.run(1).unwrap();
        let before = switches(cpu);
        pair.run(1_000).unwrap();
        // Others on the same CPU only add to them.
        let switched = switches(cpu) - before;
        assert!(switched >= 2_000, "{switched}");
    }

    /// Switches of the two threads, by their own will and not.
    fn switches(cpu: usize) -> u64 {
        let mut sum = 0;
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let path = task.unwrap().path();
            let comm = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            if [format!("ping{cpu}"), format!("pong{cpu}")].contains(&comm.trim().to_owned()) {
                let status = std::fs::read_to_string(path.join("status")).unwrap();
                let counts = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
                sum += counts.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum::<u64>();
            }
        }
        sum
    }
}
