//! Storms: as many context switches, and as many exits from a guest, as this machine can do, with the agent off and on.
//!
//! One round has every side once, in changing order; a figure is the ratio to the first "off" of the same round, and a
//! second "off" shows what such a ratio is worth. CPU time is told beside wall time: others on the machine do not move it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::process::process_cpu_ns;
use crate::skip::host;
use crate::vmm::pingpong::PingPong;
use crate::vmm::spawn::TestVm;

use super::bpftrace::{COUNT_BY_PID, CPU_BY_PID, OneLiner};
use super::load::{busy_cpu, cpus, keep_on};
use super::object::{Hook, Object, Placed};
use super::spread::{Order, Spread};
use super::table::{Goal, Row, Section};
use super::{HOST_BUSY, Options};

/// Who watches the storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Off,
    OffAgain,
    Empty,
    Agent,
    Cpu,
    Count,
}

impl Side {
    const ALL: [Self; 6] = [Self::Off, Self::OffAgain, Self::Empty, Self::Agent, Self::Cpu, Self::Count];
}

/// What the hook itself costs: a program that does nothing.
const EMPTY: Placed = Placed { name: "empty_sched_switch", hook: Hook::Typed("sched_switch") };
/// How long after its start an agent has done all that it does once.
const SETTLED: Duration = Duration::from_secs(2);

/// What a storm took, wall and CPU time in any unit; larger is slower.
#[derive(Clone, Copy, Debug)]
struct Took {
    wall: f64,
    cpu: f64,
}

/// What each side's storm took, over all rounds.
struct Ratios {
    rounds: Vec<[Option<Took>; Side::ALL.len()]>,
    trouble: Option<String>,
}

impl Ratios {
    /// Rounds of `storm`.
    fn of(rounds: u32, sides: &[Side], seed: u64, mut storm: impl FnMut() -> Result<Took>) -> Result<Self> {
        let (mut order, mut turns) = (Order::new(seed), sides.to_vec());
        let mut this = Self { rounds: Vec::new(), trouble: None };
        for _ in 0..rounds {
            let mut round = [None; Side::ALL.len()];
            order.shuffle(&mut turns);
            for side in &turns {
                round[*side as usize] = this.watched(*side, &mut storm)?;
            }
            this.rounds.push(round);
        }
        Ok(this)
    }

    fn watched(&mut self, side: Side, storm: &mut impl FnMut() -> Result<Took>) -> Result<Option<Took>> {
        match side {
            Side::Off | Side::OffAgain => storm().map(Some),
            Side::Empty => {
                let mut object = Object::load(false)?;
                object.prepare(EMPTY)?;
                let link = object.attach(EMPTY)?;
                let took = storm()?;
                object.detach(EMPTY, link)?;
                Ok(Some(took))
            }
            Side::Agent => {
                let agent = Agent::start()?;
                std::thread::sleep(SETTLED);
                let took = storm()?;
                drop(agent);
                Ok(Some(took))
            }
            Side::Cpu => self.traced(CPU_BY_PID, storm),
            Side::Count => self.traced(COUNT_BY_PID, storm),
        }
    }

    fn traced(&mut self, one_liner: &str, storm: &mut impl FnMut() -> Result<Took>) -> Result<Option<Took>> {
        match OneLiner::start(one_liner) {
            Ok(running) => {
                let took = storm()?;
                drop(running);
                Ok(Some(took))
            }
            Err(error) => {
                self.trouble = Some(format!("{error:#}"));
                Ok(None)
            }
        }
    }

    /// The ratio to "off", by wall time or by CPU time.
    fn row(&self, what: &str, side: Side, of: impl Fn(Took) -> f64) -> Row {
        let ratio =
            |round: &[Option<Took>; Side::ALL.len()]| Some(of(round[side as usize]?) / of(round[Side::Off as usize]?));
        let ratios: Vec<f64> = self.rounds.iter().filter_map(ratio).collect();
        match (&self.trouble, Spread::of(&ratios)) {
            (Some(trouble), None) => Row::missing(what, trouble),
            (_, figure) => Row::new(what, "×", figure),
        }
    }

    fn wall(&self, what: &str, side: Side) -> Row {
        self.row(what, side, |took| took.wall)
    }

    fn cpu(&self, what: &str, side: Side) -> Row {
        self.row(&format!("{what}, by CPU time"), side, |took| took.cpu)
    }
}

/// The table of the switches.
pub fn switches(options: &Options) -> Result<Section> {
    const TITLE: &str = "Context-switch storm";
    let Some(_host) = host("the context-switch storm") else { return Ok(Section::missing(TITLE, HOST_BUSY)) };
    let pairs: Vec<PingPong> = cpus()?.into_iter().map(PingPong::start).collect::<Result<_>>()?;
    let (count, this) = (options.storm_switches(), std::process::id().cast_signed());
    let mut rates = Vec::new();
    let ratios = Ratios::of(options.storm_rounds(), &Side::ALL, 4, || {
        let cpu = process_cpu_ns(this)?;
        pairs.iter().try_for_each(|pair| pair.begin(count / 2))?;
        let took: Vec<Duration> = pairs.iter().map(PingPong::finish).collect::<Result<_>>()?;
        let wall = took.iter().max().context("no CPU")?.as_secs_f64();
        rates.push(count as f64 * pairs.len() as f64 / wall);
        Ok(Took { wall, cpu: (process_cpu_ns(this)? - cpu) as f64 })
    })?;
    let rows = vec![
        ratios.wall("with the agent, no task of a VM", Side::Agent).goal(Goal::AtMost(1.03)),
        ratios.cpu("with the agent, no task of a VM", Side::Agent),
        ratios.wall("control: without it once more", Side::OffAgain),
        ratios.cpu("control: without it once more", Side::OffAgain),
        ratios.wall("with an empty program on the hook alone", Side::Empty),
        ratios.cpu("with an empty program on the hook alone", Side::Empty),
        ratios.wall("with bpftrace counting CPU by pid", Side::Cpu).note(format!("`{CPU_BY_PID}`")),
        ratios.cpu("with bpftrace counting CPU by pid", Side::Cpu),
        ratios.wall("with bpftrace counting switches by pid", Side::Count).note(format!("`{COUNT_BY_PID}`")),
        ratios.cpu("with bpftrace counting switches by pid", Side::Count),
        Row::new("switches a second, all CPUs, all sides", "M/s", Spread::of(&rates).map(|rates| rates.times(1e-6))),
    ];
    let method = format!(
        "Two threads of no VM on each CPU wake each other through pipes, {count} switches on each; the time until the last \
         CPU is done, as a ratio to that with nothing attached in the same round. Agent and bpftrace are started for each \
         round, the agent {} s before, and stopped after it.",
        SETTLED.as_secs()
    );
    Ok(Section { title: TITLE, method, rows })
}

/// The table of the exits.
pub fn exits(options: &Options) -> Result<Section> {
    const TITLE: &str = "Exit storm";
    let Some(_host) = host("the exit storm") else { return Ok(Section::missing(TITLE, HOST_BUSY)) };
    let dir = TempDir::new()?;
    let count = dir.path().join("exits");
    let file = count.to_str().context("a temporary path that is not UTF-8")?;
    let vm = TestVm::start(&["--id", "storm", "--exit-rate", "200000", "--count", file])?;
    keep_on(&vm, busy_cpu()?)?;
    let mut rates = Vec::new();
    let window = options.exit_window();
    let ratios = Ratios::of(options.storm_rounds(), &[Side::Off, Side::OffAgain, Side::Agent], 5, || {
        let before = Counted::next(&count, vm.pid())?;
        std::thread::sleep(window);
        let took = Counted::next(&count, vm.pid())?.since(&before)?;
        rates.push(1.0 / took.wall);
        Ok(took)
    })?;
    let rows = vec![
        ratios.wall("with the agent", Side::Agent),
        ratios.cpu("with the agent", Side::Agent),
        ratios.wall("control: without it once more", Side::OffAgain),
        ratios.cpu("control: without it once more", Side::OffAgain),
        Row::new("exits to user space a second, all sides", "/s", Spread::of(&rates)),
    ];
    let method = format!(
        "A guest that leaves to the VMM (MMIO) as often as it can; the time an exit takes, over {} ms, as a ratio to that \
         without the agent in the same round.",
        window.as_millis()
    );
    Ok(Section { title: TITLE, method, rows })
}

/// What a VMM has counted, when it wrote it down, and the CPU time it had used then.
struct Counted {
    exits: u64,
    at: SystemTime,
    cpu_ns: u64,
}

impl Counted {
    /// At the moment it next writes.
    fn next(path: &Path, pid: i32) -> Result<Self> {
        let last = std::fs::metadata(path)?.modified()?;
        for _ in 0..2_000 {
            std::thread::sleep(Duration::from_millis(1));
            let at = std::fs::metadata(path)?.modified()?;
            if at != last {
                let cpu_ns = process_cpu_ns(pid)?;
                let text = std::fs::read_to_string(path)?;
                let counts: Value = serde_json::from_str(&text).with_context(|| format!("not a count: {text}"))?;
                let exits = counts["exits"]["mmio"].as_u64().context("no count of MMIO exits")?;
                return Ok(Self { exits, at, cpu_ns });
            }
        }
        bail!("the VMM has stopped writing {}", path.display())
    }

    /// What an exit took since an earlier count.
    fn since(&self, before: &Self) -> Result<Took> {
        let exits = self.exits.checked_sub(before.exits).filter(|exits| *exits > 0).context("no exit was counted")?;
        let wall = self.at.duration_since(before.at)?.as_secs_f64() / exits as f64;
        Ok(Took { wall, cpu: (self.cpu_ns - before.cpu_ns) as f64 / exits as f64 })
    }
}
