//! What 1,000 readers of streams cost: the agent's CPU and memory, its engine's thread, and how long its samples take,
//! with nobody and with readers in turns; and what each reader was told.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{
    HOST_BUSY, Options,
    spread::{Order, Spread, percentile},
    subscribers::{Got, Subscribers, Told},
    table::{Goal, Row, Section},
    watch,
};
use crate::{
    agent::{Agent, Setup},
    skip::host,
    vmm::spawn::{TestFleet, burst},
};

const PATIENCE: Duration = Duration::from_secs(120);
/// After readers came or went, before anything is measured.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How often it is looked for a new sample; they are taken ten times a second, so that there are many to tell the slowest by.
const LOOK: Duration = Duration::from_millis(50);
/// Looks between two pairs of VMs that come and go.
const PAIRS: u32 = 20;
/// How much longer the slowest hundredth of samples may take with readers: no more than without, and a run's noise.
const UNMOVED: f64 = 1.1;
const MIB: f64 = 1_048_576.0;
const CONFIG: &str = "sample_interval = \"100ms\"\n[history]\ninterval = \"1s\"\n";

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Nobody,
    /// The same once more: what differs from it is noise.
    Control,
    /// Each the samples of a VM, one a second.
    Samples,
    /// All the lines of the ledger, heartbeats apart.
    Events,
}

const SIDES: [Side; 4] = [Side::Nobody, Side::Control, Side::Samples, Side::Events];

impl Side {
    fn name(self, readers: u32) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Control => "control: nobody once more".to_owned(),
            Self::Samples => format!("{readers} readers of samples"),
            Self::Events => format!("{readers} readers of events"),
        }
    }
}

/// All that was measured of a side.
#[derive(Default)]
struct Measured {
    cpu_percent: Vec<f64>,
    engine_ms: Vec<f64>,
    engine_waited_ms: Vec<f64>,
    samples_ms: Vec<f64>,
    resident_mib: Vec<f64>,
    rates: Vec<f64>,
    lost: u64,
    delays_ms: Vec<f64>,
}

/// The table.
pub fn section(options: &Options) -> Result<Section> {
    const TITLE: &str = "Streams";
    let Some(_host) = host("streams") else { return Ok(Section::missing(TITLE, HOST_BUSY)) };
    let (vms, readers, rounds) = options.streams();
    let _fleet = TestFleet::start(vms, &["--id", "b"])?;
    let agent = Agent::with(Setup::of(CONFIG))?;
    agent.wait_running(vms, PATIENCE)?;
    agent.wait_samples(3)?;
    let alone = watch::resident(agent.pid())? as f64 / MIB;
    let mut measured: [Measured; SIDES.len()] = Default::default();
    let (mut order, mut turns) = (Order::new(5), [0, 1, 2, 3]);
    for round in 0..rounds {
        order.shuffle(&mut turns);
        for turn in turns {
            let pair = format!("p{round}-{turn}");
            phase(options, &agent, SIDES[turn], &pair, &mut measured[turn])?;
        }
    }
    let told: u64 = measured.iter().map(|side| side.lost).sum();
    let counted = agent.metrics()?.sum("kvmeter_watch_dropped_total", &[]);
    ensure!(told as f64 <= counted, "{told} were told as lost, {counted} counted");
    let method = format!(
        "{vms} real VMs, of which each second two more come and go, an agent that samples ten times a second and keeps one a second \
         (`sample_interval = \"100ms\"`, `history.interval = \"1s\"`), and \
         server-sent events over TCP, read by one thread that takes each event apart. Nobody, nobody once more, readers of samples \
         (each of one VM) and readers of the ledger's lines (heartbeats apart) are measured in turns and changing order, {} s at a time. \
         A sample's time is what `/v1/status` tells of each; the engine is the agent's thread that takes samples and publishes them.",
        options.streams_window().as_secs_f64()
    );
    Ok(Section { title: TITLE, method, rows: rows(&measured, readers, alone, vms >= 1_000) })
}

/// One side for a while.
fn phase(options: &Options, agent: &Agent, side: Side, pair: &str, measured: &mut Measured) -> Result<()> {
    let (vms, readers, _) = options.streams();
    let path = |reader: u32| match side {
        Side::Nobody | Side::Control => None,
        Side::Samples => Some(format!("/v1/vms/b-{}/usage/stream", reader % vms)),
        Side::Events => Some("/v1/events".to_owned()),
    };
    let paths: Vec<String> = (0..readers).filter_map(path).collect();
    let subscribers = Subscribers::open(agent.port(), &paths, side == Side::Samples)?;
    std::thread::sleep(SETTLE);
    let (before, mut samples) = (engine(agent.pid())?, Vec::new());
    subscribers.count(true);
    let used = watch::during(&[agent.pid()], || {
        samples = watched(agent, options.streams_window(), pair)?;
        Ok(())
    })?;
    subscribers.count(false);
    let (after, seconds) = (engine(agent.pid())?, used.time.as_secs_f64());
    measured.resident_mib.push(watch::resident(agent.pid())? as f64 / MIB);
    let Told { each, delays_ms } = subscribers.close()?;
    std::thread::sleep(SETTLE / 3);
    measured.cpu_percent.push(used.percent());
    measured.engine_ms.push((after.0 - before.0) as f64 / 1e6 / seconds);
    measured.engine_waited_ms.push((after.1 - before.1) as f64 / 1e6 / seconds);
    measured.samples_ms.append(&mut samples);
    measured.rates.extend(each.iter().map(|got: &Got| got.events as f64 / seconds));
    measured.lost += each.iter().map(|got| got.lost).sum::<u64>();
    measured.delays_ms.extend(delays_ms);
    Ok(())
}

/// How long each sample took in this while, milliseconds, while VMs come and go.
fn watched(agent: &Agent, window: Duration, pair: &str) -> Result<Vec<f64>> {
    let (began, mut samples, mut known) = (Instant::now(), Vec::new(), None);
    for look in 0.. {
        if look % PAIRS == 0 {
            burst(2, 2, &["--id", &format!("{pair}-{look}")])?;
        }
        let status = agent.json("/v1/status")?;
        let [taken, last_ns] = ["taken", "last_ns"].map(|key| status["samples"][key].as_u64());
        let taken = taken.context("no number of samples")?;
        // The first may be of before.
        if known.replace(taken).is_some_and(|known| known != taken) {
            samples.push(last_ns.context("no sample's time")? as f64 / 1e6);
        }
        if began.elapsed() >= window {
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(samples)
}

/// What the engine's thread has run and waited for a CPU so far, nanoseconds.
fn engine(pid: i32) -> Result<(u64, u64)> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "engine") {
            let text = std::fs::read_to_string(task.join("schedstat"))?;
            let mut numbers = text.split_ascii_whitespace().map(str::parse);
            let mut next = || numbers.next().context("a short schedstat")?.context("no number");
            return Ok((next()?, next()?));
        }
    }
    anyhow::bail!("the agent has no thread called engine")
}

fn rows(measured: &[Measured; SIDES.len()], readers: u32, alone: f64, judged: bool) -> Vec<Row> {
    let mut rows = vec![Row::single("resident memory before the first reader", "MiB", alone)];
    let slowest = |side: &Measured| percentile(&side.samples_ms, 99);
    // Those without readers, both of them: the more there are, the better it is known.
    let unread = [&measured[0], &measured[1]].map(|side| side.samples_ms.as_slice()).concat();
    let unread = percentile(&unread, 99);
    for (side, of) in SIDES.into_iter().zip(measured) {
        let what = |what: &str| format!("{}: {what}", side.name(readers));
        let spread = |what_is: &str, unit, values: &[f64]| Row::new(what(what_is), unit, Spread::of(values));
        rows.push(spread("CPU, share of a core", "%", &of.cpu_percent));
        rows.push(spread("CPU of the engine's thread", "ms/s", &of.engine_ms));
        rows.push(spread("the engine's thread waits for a CPU", "ms/s", &of.engine_waited_ms));
        rows.push(spread("resident memory", "MiB", &of.resident_mib));
        rows.push(spread("a sample", "ms", &of.samples_ms));
        let p99 = slowest(of).and_then(|value| Spread::of(&[value]));
        rows.push(Row::new(what("a sample, p99"), "ms", p99).note(format!("of {} samples", of.samples_ms.len())));
        if side != Side::Nobody {
            let (than, without) = match side {
                Side::Control => ("nobody's", slowest(&measured[0])),
                _ => ("that of both without readers", unread),
            };
            let over = slowest(of).zip(without).map(|(with, without)| with / without);
            let what = what(&format!("a sample, p99 over {than}"));
            let row = Row::new(what, "×", over.and_then(|over| Spread::of(&[over])));
            rows.push(if judged && side != Side::Control { row.goal(Goal::AtMost(UNMOVED)) } else { row });
        }
        if !of.rates.is_empty() {
            let (least, most) = of.rates.iter().fold((f64::MAX, 0.0_f64), |(l, m), rate| (l.min(*rate), m.max(*rate)));
            let lost = format!("{least:.2} at least, {most:.2} at most; {} told as lost to all together", of.lost);
            rows.push(spread("events that each got", "/s", &of.rates).note(lost));
        }
        if let Some(p99) = percentile(&of.delays_ms, 99) {
            let delay = spread("from the instant of a sample to its arrival", "ms", &of.delays_ms);
            rows.push(delay.note(format!("p99 {p99:.1} ms, of {} events", of.delays_ms.len())));
        }
    }
    rows
}
