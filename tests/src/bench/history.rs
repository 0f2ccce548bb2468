//! What a week of many VMs takes in memory, what a sample of each costs, and how long a question takes.
//!
//! The agent's own store, filled with a week of made-up VMs: six in ten idle, a quarter under a steady load, the rest in
//! bursts; each value with the noise that such a VM shows, which is what keeps it from compressing.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use kvmeter::account::past::{COLUMNS, Past as _, Range};
use kvmeter::history::{Limits, Line, Sample, Store};

use super::kept::{self, Filled};
use super::options::Options;
use super::spread::{Order, Spread};
use super::table::{Goal, Row, Section};

/// Between two samples.
const STEP_S: u64 = 10;
/// What the service that is followed keeps of a sample.
const PLAIN_BYTES: u64 = 80;
const MIB: f64 = 1_048_576.0;

/// How a VM behaves.
#[derive(Clone, Copy)]
enum Load {
    Idle,
    Steady,
    Bursty,
}

struct Machine {
    line: Arc<Line>,
    load: Load,
    noise: Order,
    memory: u64,
    busy: bool,
}

impl Machine {
    fn new(store: &Store, number: u64) -> Self {
        let load = match number % 20 {
            0..12 => Load::Idle,
            12..17 => Load::Steady,
            _ => Load::Bursty,
        };
        let line = store.track(&format!("vm-{number}"));
        Self { line, load, noise: Order::new(number + 1), memory: 1 << 30, busy: false }
    }

    /// Around `level`, a tenth up or down.
    fn near(&mut self, level: f64) -> f64 {
        level * (0.9 + 0.2 * self.noise.unit())
    }

    fn sample(&mut self) -> Sample {
        let chance = self.noise.unit();
        self.busy = match self.load {
            Load::Idle => false,
            Load::Steady => true,
            // Some minutes of one, some of the other.
            Load::Bursty => self.busy ^ (chance < 0.03),
        };
        let factor = if self.busy { 1.0 } else { 0.0 };
        // What an idle guest does in the background: its timer, and a packet now and then.
        let (cpu, some) = (self.near(0.4), if chance < 0.05 { 98.0 } else { 0.0 });
        if self.busy && chance < 0.3 {
            self.memory = (self.memory + 4096 * (1 + 100 * u64::from(chance < 0.1))) & ((1 << 32) - 1);
        }
        let rate = |machine: &mut Self, level: f64| Some(machine.near(level) * factor + some);
        Sample {
            at: String::new(),
            cpu_percent: Some(cpu + self.near(70.0) * factor),
            cpu_delay_percent: Some(self.near(0.02) + self.near(3.0) * factor),
            memory_used_bytes: Some(self.memory),
            memory_limit_bytes: Some(4 << 30),
            network_in_bytes_per_sec: rate(self, 2e6),
            network_out_bytes_per_sec: rate(self, 5e5),
            disk_read_bytes_per_sec: Some(self.near(1e5) * factor * f64::from(u8::from(chance < 0.2))),
            disk_write_bytes_per_sec: Some(self.near(4e5) * factor),
            ..Sample::default()
        }
    }
}

/// Measures it.
pub fn section(options: &Options) -> Result<Section> {
    let (vms, samples) = options.history();
    let judge = |row: Row, bound: f64| if options.quick { row } else { row.goal(Goal::AtMost(bound)) };
    let limits = Limits { samples: usize::try_from(samples)?, max_bytes: u64::MAX };
    let store = Store::new(limits);
    let mut machines: Vec<Machine> = (0..vms).map(|number| Machine::new(&store, number)).collect();
    let mut turn = Vec::with_capacity(machines.len());
    let mut push = |second: u64| {
        turn.clear();
        turn.extend(machines.iter_mut().map(Machine::sample));
        let begun = Instant::now();
        for (machine, sample) in machines.iter().zip(&turn) {
            store.push(&machine.line, second * 1_000_000_000, sample);
        }
        begun.elapsed().as_secs_f64() * 1e9 / vms as f64
    };
    // A median would leave out the turns in which blocks are sealed, which is what it costs.
    let mean = (0..samples).map(|n| push(n * STEP_S)).sum::<f64>() / samples as f64;
    let stats = store.kept();
    ensure!(stats.evicted == 0, "samples were let go: {stats:?}");
    let plain = vms * samples * PLAIN_BYTES;
    let what = |of: &str| format!("{vms} VMs, {samples} samples each: {of}");
    let memory = Row::single(what("memory"), "MiB", stats.bytes as f64 / MIB);
    let asked = Asked { options, store: &store, vms, end_ms: samples * STEP_S * 1_000 };
    let (hour, week) = (3_600_000, 604_800_000);
    let mut rows = vec![
        judge(memory, 256.0).note(format!(
            "{:.2} bytes a sample of {COLUMNS} values and its time; {:.0} times less than {PLAIN_BYTES} bytes each",
            stats.bytes as f64 / (vms * samples) as f64,
            plain as f64 / stats.bytes as f64
        )),
        judge(Row::single(what("adding a sample, mean"), "ns", mean), 200.0).note("compressing of blocks is in it"),
        judge(Row::new(what("the last hour of one VM"), "µs", asked.takes(0..1, hour, 1e6)?), 200.0),
        judge(Row::new(what("the last week of one VM"), "ms", asked.takes(0..1, week, 1e3)?), 5.0),
        judge(Row::new(what("the last hour of 100 VMs"), "ms", asked.takes(0..100, hour, 1e3)?), 100.0),
    ];
    let push = &mut |second| _ = push(second);
    let filled = Filled { store: &store, limits, next_s: samples * STEP_S, step_s: STEP_S, push };
    rows.extend(kept::rows(options, filled, &what)?);
    Ok(Section {
        title: "History",
        method: "The store that the agent keeps samples in, filled with samples of made-up VMs: 60 % idle (0.4 % of a \
                 core, a packet now and then), 25 % under a steady load with a tenth of noise on each value, 15 % in \
                 bursts of some minutes. A question is one range with resolution `auto`, points in memory. Files are those \
                 that the agent keeps it in, in /var/tmp."
            .to_owned(),
        rows,
    })
}

/// Questions to a store.
struct Asked<'a> {
    options: &'a Options,
    store: &'a Store,
    vms: u64,
    end_ms: u64,
}

impl Asked<'_> {
    /// How long the last `span_ms` of these VMs take; seconds by `factor`.
    fn takes(&self, names: std::ops::Range<u64>, span_ms: u64, factor: f64) -> Result<Option<Spread>> {
        let range = Range::new(self.end_ms.saturating_sub(span_ms), self.end_ms, None, STEP_S * 1_000)?;
        let mut values = Vec::new();
        for round in 0..self.options.reads().min(101) {
            let begun = Instant::now();
            for name in names.clone() {
                // Another VM each time: nothing is in a cache because it was asked for just now.
                let vm_id = format!("vm-{}", (name + u64::from(round) * 7) % self.vms);
                let points = self.store.range(&vm_id, &range).context("a VM of the bench")?;
                ensure!(points.iter().map(|point| point.count).sum::<u64>() > 0, "no samples of {vm_id}");
                drop(black_box(points));
            }
            values.push(begun.elapsed().as_secs_f64() * factor);
        }
        Ok(Spread::of(&values))
    }
}
