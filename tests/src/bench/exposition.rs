//! `/metrics` as shipped and with everything on: how long its text takes the agent, how long a scraper waits for it, plain and as gzip,
//! beside what the prometheus crate's own encoder and a bare copy take for the same text.

use std::{
    collections::BTreeMap,
    hint::black_box,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prometheus::{TextEncoder, proto};

use super::{
    HOST_BUSY, Options,
    spread::{Spread, percentile},
    table::{Goal, Row, Section},
    watch,
};
use crate::{
    agent::{Agent, Setup},
    metrics::{Metrics, Series},
    skip::host,
    vmm::spawn::TestFleet,
};

const PATIENCE: Duration = Duration::from_secs(120);
/// Agents as they are shipped, and with all series that can be switched on.
const SETTINGS: [(&str, &str); 2] = [
    ("as shipped", "[history]\nsamples = 0\n"),
    ("everything on", "[history]\nsamples = 0\n[metrics]\nhistograms = true\nper_vcpu = true\n"),
];
/// The agent tells by it how long the scrape before took.
const TOOK: &str = "kvmeter_scrape_duration_seconds";
/// For the text, and for its 99th percentile at the scraper, plain and as gzip; milliseconds.
const GOALS_MS: [f64; 3] = [3.0, 10.0, 40.0];
/// VMs that the goals are set for.
const MANY: u32 = 1_000;

/// Scrapes of one form.
#[derive(Default)]
struct Scrapes {
    latency_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
    bytes: usize,
}

/// All that was measured of one agent.
#[derive(Default)]
struct All {
    series: usize,
    text_ms: Vec<f64>,
    encoder_ms: Vec<f64>,
    copy_ms: Vec<f64>,
    plain: Scrapes,
    gzip: Scrapes,
}

/// The table.
pub fn section(options: &Options) -> Result<Section> {
    const TITLE: &str = "Metrics";
    let Some(_host) = host("metrics") else { return Ok(Section::missing(TITLE, HOST_BUSY)) };
    let (vms, vcpus, _) = options.exposition();
    let agents = SETTINGS.map(|(_, config)| Agent::with(Setup::of(config)));
    // After the agents: a vCPU that never runs again would not be known for one.
    let _fleet = TestFleet::start(vms, &["--id", "b", "--vcpus", &vcpus.to_string()])?;
    let mut rows = Vec::new();
    let agents = agents.into_iter().collect::<Result<Vec<Agent>>>()?;
    for agent in &agents {
        agent.wait_running(vms, PATIENCE)?;
        agent.wait_samples(3)?;
    }
    for ((name, _), agent) in SETTINGS.into_iter().zip(&agents) {
        let others = agents.iter().map(Agent::pid).filter(|pid| *pid != agent.pid());
        let _stopped = others.map(Stopped::new).collect::<Result<Vec<_>>>()?;
        rows.extend(of_agent(options, name, agent)?);
    }
    let method = format!(
        "{vms} real VMs with {vcpus} vCPUs each, and two agents without history: one as it is shipped, and one with \
         `metrics.histograms` and `metrics.per_vcpu` on; while one is measured, the other is stopped (its kernel \
         programs go on), as a host has one. The agent tells how long a scrape's text took (`{TOOK}`). A scraper's time is \
         from its connection over TCP to the last byte. The prometheus crate's `TextEncoder` writes the same series from objects that \
         stand ready, and a copy is that of the finished text into fresh memory: in the same rounds, by another process."
    );
    Ok(Section { title: TITLE, method, rows })
}

/// A process that is stopped for a while.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: i32) -> Result<Self> {
        kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
        Ok(Self(Pid::from_raw(pid)))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It is this process's child, and not waited for yet.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// One agent's rows.
fn of_agent(options: &Options, name: &str, agent: &Agent) -> Result<Vec<Row>> {
    let (vms, _, rounds) = options.exposition();
    agent.wait_samples(3)?;
    let idle = watch::during(&[agent.pid()], || {
        std::thread::sleep(options.window() / 3);
        Ok(())
    })?;
    let text = agent.scrape()?;
    let families = families(&Metrics::parse(&text)?);
    let mut all = All { series: text.lines().filter(|line| !line.starts_with('#')).count(), ..All::default() };
    for _ in 0..rounds {
        let answer = scrape(agent, idle, false, &mut all.plain)?;
        let told = Metrics::parse(std::str::from_utf8(&answer)?)?;
        all.text_ms.push(told.one(TOOK, &[]).context("a scrape does not tell how long the last one took")? * 1e3);
        let small = scrape(agent, idle, true, &mut all.gzip)?;
        let mut whole = String::new();
        GzDecoder::new(&small[..]).read_to_string(&mut whole)?;
        Metrics::parse(&whole).context("gzip holds something else")?;
        all.encoder_ms.push(timed(|| TextEncoder::new().encode_to_string(&families).map(drop))?);
        all.copy_ms.push(timed(|| {
            drop(black_box(text.clone()));
            Ok::<_, anyhow::Error>(())
        })?);
    }
    Ok(all.rows(name, vms >= MANY))
}

impl All {
    fn rows(&self, name: &str, judged: bool) -> Vec<Row> {
        let judge = |row: Row, bound| if judged { row.goal(Goal::AtMost(bound)) } else { row };
        let ms = |what: &str, values: &[f64]| Row::new(format!("{name}: {what}"), "ms", Spread::of(values));
        let over = |what: &str, other: &[f64]| {
            let ratios: Vec<f64> = self.text_ms.iter().zip(other).map(|(ours, other)| ours / other).collect();
            Row::new(format!("{name}: {what}"), "×", Spread::of(&ratios))
        };
        let note = format!("{} series, {} KiB", self.series, self.plain.bytes >> 10);
        let mut rows = vec![
            judge(ms("the text, in the agent", &self.text_ms), GOALS_MS[0]).note(note),
            ms("`TextEncoder` alone", &self.encoder_ms),
            ms("a copy of the text", &self.copy_ms),
            over("the text in the agent over `TextEncoder`", &self.encoder_ms),
            over("the text in the agent over a copy", &self.copy_ms),
        ];
        for (form, goal, scrapes) in [("plain", GOALS_MS[1], &self.plain), ("gzip", GOALS_MS[2], &self.gzip)] {
            let p99 = percentile(&scrapes.latency_ms, 99).and_then(|value| Spread::of(&[value]));
            let size = format!("{} KiB", scrapes.bytes >> 10);
            rows.push(ms(&format!("{form}, latency"), &scrapes.latency_ms).note(size));
            let of = format!("of {} scrapes", scrapes.latency_ms.len());
            rows.push(judge(Row::new(format!("{name}: {form}, latency, p99"), "ms", p99).note(of), goal));
            rows.push(ms(&format!("{form}, CPU of the agent"), &scrapes.cpu_ms));
        }
        rows
    }
}

fn timed<E: Into<anyhow::Error>>(work: impl FnOnce() -> Result<(), E>) -> Result<f64> {
    let began = Instant::now();
    work().map_err(Into::into)?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// One scrape over TCP; the body.
fn scrape(agent: &Agent, idle: watch::Use, gzip: bool, into: &mut Scrapes) -> Result<Vec<u8>> {
    let (began, cpu) = (Instant::now(), watch::cpu_ns(&[agent.pid()])?);
    let mut stream = TcpStream::connect(("127.0.0.1", agent.port()))?;
    let coding = if gzip { "Accept-Encoding: gzip\r\n" } else { "" };
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: kvmeter\r\n{coding}\r\n")?;
    let mut answer = Vec::with_capacity(into.bytes + (1 << 20));
    stream.read_to_end(&mut answer)?;
    let took = began.elapsed();
    // What the agent does meanwhile without being asked.
    let own = idle.cpu_ns as f64 * took.as_secs_f64() / idle.time.as_secs_f64();
    into.cpu_ms.push(((watch::cpu_ns(&[agent.pid()])? - cpu) as f64 - own) / 1e6);
    into.latency_ms.push(took.as_secs_f64() * 1e3);
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no HTTP answer")?;
    let said = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    ensure!(said.contains(" 200 ") && said.contains("content-encoding: gzip") == gzip, "{said}");
    let body = answer.split_off(head + 4);
    into.bytes = body.len();
    Ok(body)
}

/// The same series as the prometheus crate has them; which type a family has is told by its series' names.
fn families(metrics: &Metrics) -> Vec<proto::MetricFamily> {
    let mut families: BTreeMap<String, Vec<proto::Metric>> = BTreeMap::new();
    let mut histograms: BTreeMap<(String, Vec<(String, String)>), proto::Histogram> = BTreeMap::new();
    for series in &metrics.0 {
        if let Some((name, part)) = part(series) {
            let labels = series.labels.iter().filter(|(key, _)| *key != "le");
            let labels = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
            let histogram = histograms.entry((name.to_owned(), labels)).or_default();
            fill(histogram, part, series);
        } else {
            let mut metric = proto::Metric::from_label(labels(&series.labels));
            let mut gauge = proto::Gauge::default();
            gauge.set_value(series.value);
            metric.set_gauge(gauge);
            families.entry(series.name.clone()).or_default().push(metric);
        }
    }
    let mut all: Vec<_> =
        families.into_iter().map(|(name, all)| family(&name, proto::MetricType::GAUGE, all)).collect();
    let mut of_histograms: BTreeMap<String, Vec<proto::Metric>> = BTreeMap::new();
    for ((name, known), histogram) in histograms {
        let mut metric = proto::Metric::from_label(labels(&known.into_iter().collect()));
        metric.set_histogram(histogram);
        of_histograms.entry(name).or_default().push(metric);
    }
    all.extend(of_histograms.into_iter().map(|(name, all)| family(&name, proto::MetricType::HISTOGRAM, all)));
    all
}

/// A histogram's name and which part of it a series is.
fn part(series: &Series) -> Option<(&str, &'static str)> {
    const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];
    let found = PARTS.into_iter().find_map(|part| Some((series.name.strip_suffix(part)?, part)));
    found.filter(|(name, _)| name.ends_with("_seconds"))
}

fn fill(histogram: &mut proto::Histogram, part: &str, series: &Series) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let count = series.value as u64;
    match part {
        "_sum" => histogram.set_sample_sum(series.value),
        "_count" => histogram.set_sample_count(count),
        _ => {
            let Some(bound) = series.labels.get("le").and_then(|bound| bound.parse().ok()) else { return };
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            // Few, and outside of what is timed.
            histogram.set_bucket([histogram.get_bucket(), &[bucket]].concat());
        }
    }
}

fn labels(labels: &BTreeMap<String, String>) -> Vec<proto::LabelPair> {
    let pair = |(name, value): (&String, &String)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.clone());
        pair.set_value(value.clone());
        pair
    };
    labels.iter().map(pair).collect()
}

fn family(name: &str, kind: proto::MetricType, series: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help("The same series.".to_owned());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}
