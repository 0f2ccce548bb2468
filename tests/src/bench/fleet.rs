//! Ticks and scrapes of the agent with real VMs, and what others take for the same VMs in the same run.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::agent::{Agent, Setup};
use crate::metrics::Metrics;
use crate::skip::host;
use crate::vmm::spawn::TestFleet;

use super::exporter::Exporter;
use super::scrape::{self, Scrapes};
use super::spread::Spread;
use super::table::{Goal, Row, Section};
use super::watch::{self, Syscalls, Use};
use super::{HOST_BUSY, Options};
use super::{moved, reading};

/// VMs that the goals are set for.
const MANY: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// A fleet's VMs sleep after their start: 1 % of a core each would be more than a small machine has.
const FLEET: [&str; 2] = ["--id", "b"];

/// The table.
pub fn section(options: &Options) -> Result<Section> {
    const TITLE: &str = "Ticks and scrapes";
    let Some(_host) = host("ticks and scrapes") else { return Ok(Section::missing(TITLE, HOST_BUSY)) };
    let mut rows = Vec::new();
    for count in options.fleets() {
        match fleet(options, count) {
            Ok(found) => rows.extend(found),
            Err(error) => rows.push(Row::failed(format!("{count} VMs"), &error)),
        }
    }
    let method = format!(
        "Real VMs (one process and one KVM VM each, idle after their start), the agent with its shipped settings: a sample \
         each second, but no history (`history.samples = 0`), which has a table of its own. CPU is the process's CPU clock over {} s in which \
         nobody asks; system calls are counted by a BPF program in a window of its own; a tick's time is \
         `kvmeter_sample_duration_seconds`. A scrape's CPU is that of the process while it answers, less what it uses \
         unasked. process-exporter is Debian's, with a group for each VM by pid.",
        options.window().as_secs()
    );
    Ok(Section { title: TITLE, method, rows })
}

fn fleet(options: &Options, count: u32) -> Result<Vec<Row>> {
    let fleet = TestFleet::start(count, &FLEET)?;
    let tgids: Vec<u32> = fleet.pids().iter().map(|pid| u32::try_from(*pid)).collect::<Result<_, _>>()?;
    let mut rows = reading::rows(&tgids, options.reads())?;
    rows.extend(moved::rows(&tgids)?);
    let agent = Agent::with(Setup::of("[history]\nsamples = 0\n"))?;
    agent.wait_running(count, PATIENCE)?;
    agent.wait_samples(3)?;
    let before = ticks(&agent.metrics()?);
    let used = watch::during(&[agent.pid()], || {
        std::thread::sleep(options.window());
        Ok(())
    })?;
    let after = ticks(&agent.metrics()?);
    let resident = (watch::resident(agent.pid())?, watch::peak(agent.pid())?);
    let tick_ms = (after.0 - before.0) / (after.1 - before.1) * 1e3;
    rows.extend(standing(count, used, tick_ms, resident));
    rows.push(calls(options, &agent, count)?);
    rows.push(files(options, &agent, count)?);
    let ours = scrape::several(&[agent.pid()], used, options.scrapes(), "vm_id=", || agent.scrape())?;
    rows.extend(scraped(&format!("agent, {count} VMs"), ours));
    // With the agent gone nobody else works on these VMs.
    drop(agent);
    rows.extend(others(options, count, ours));
    Ok(rows)
}

/// Seconds of all ticks so far, and how many there were.
fn ticks(metrics: &Metrics) -> (f64, f64) {
    let of = |suffix: &str| metrics.sum(&format!("kvmeter_sample_duration_seconds_{suffix}"), &[]);
    (of("sum"), of("count"))
}

fn standing(count: u32, used: Use, tick_ms: f64, (resident, peak): (u64, u64)) -> Vec<Row> {
    let of = |what: &str| format!("agent, {count} VMs: {what}");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut rows = vec![
        Row::single(of("CPU, share of a core"), "%", used.percent()),
        Row::single(of("a tick"), "ms", tick_ms),
        Row::single(of("a tick, each VM"), "µs", tick_ms * 1e3 / f64::from(count)),
        Row::single(of("resident memory"), "MiB", mib(resident)).note(format!("{:.1} MiB at most so far", mib(peak))),
        Row::single(of("context switches a second"), "/s", used.switches as f64 / used.time.as_secs_f64()),
    ];
    if count >= MANY {
        let bounds = [Some(0.25), Some(2.0), Some(2.0), Some(32.0), None];
        rows = rows
            .into_iter()
            .zip(bounds)
            .map(|(row, bound)| bound.into_iter().fold(row, |row, bound| row.goal(Goal::AtMost(bound))))
            .collect();
    }
    rows
}

fn calls(options: &Options, agent: &Agent, count: u32) -> Result<Row> {
    let window = options.window() / 3;
    let pid = u32::try_from(agent.pid()).context("a process id")?;
    let (all, by_number) = Syscalls::load()?.during(pid, || {
        std::thread::sleep(window);
        Ok(())
    })?;
    let seconds = window.as_secs_f64();
    let most: Vec<String> = by_number
        .iter()
        .take(5)
        .map(|(number, calls)| format!("{} {:.1}/s", watch::call_name(*number), *calls as f64 / seconds))
        .collect();
    let row = Row::single(format!("agent, {count} VMs: system calls a second"), "/s", all as f64 / seconds);
    Ok(row.note(format!("most frequent: {}", most.join(", "))))
}

/// File calls in windows of one tick: what has a slower pace (a reconcile, hugetlb, proportional sizes) falls into few.
fn files(options: &Options, agent: &Agent, count: u32) -> Result<Row> {
    const CALLS: [&str; 8] =
        ["openat", "read", "pread64", "statx", "newfstatat", "readlink", "readlinkat", "getdents64"];
    let (pid, mut counter) = (u32::try_from(agent.pid()).context("a process id")?, Syscalls::load()?);
    let mut windows = Vec::new();
    for _ in 0..options.window().as_secs().div_ceil(3) {
        let (_, by_number) = counter.during(pid, || {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        })?;
        let of_files = by_number.iter().filter(|(number, _)| CALLS.contains(&watch::call_name(*number).as_str()));
        windows.push(of_files.map(|(_, calls)| *calls).sum::<u64>() as f64 / f64::from(count));
    }
    let row = Row::new(format!("agent, {count} VMs: file calls a tick, each VM"), "", Spread::of(&windows));
    let row = row.note("none moved; the median is a tick without a slow reading");
    Ok(if count >= MANY { row.goal(Goal::AtMost(0.05)) } else { row })
}

/// Rows about scrapes.
pub(super) fn scraped(whose: &str, scrapes: Scrapes) -> Vec<Row> {
    vec![
        Row::new(format!("{whose}: CPU of a scrape"), "ms", Some(scrapes.cpu_ms)).note(format!(
            "{} series of VMs, {} KiB",
            scrapes.series,
            scrapes.bytes >> 10
        )),
        Row::new(format!("{whose}: latency of a scrape"), "ms", Some(scrapes.latency_ms)),
    ]
}

/// What process-exporter takes for the same VMs: as it is shipped, and without the files that cost it most.
fn others(options: &Options, count: u32, ours: Scrapes) -> Vec<Row> {
    let variants = [("process-exporter", &[][..]), ("process-exporter without smaps", &["-gather-smaps=false"][..])];
    let mut rows = Vec::new();
    for (name, more) in variants {
        let whose = format!("{name}, {count} VMs");
        match scrapes_of_other(options, more) {
            Ok(theirs) => {
                rows.extend(scraped(&whose, theirs));
                let ratio = Row::new(format!("{whose}: CPU of a scrape over the agent's"), "×", theirs.over(&ours));
                // The goal is about what people have after `apt install`.
                let judged = count >= MANY && more.is_empty();
                rows.push(if judged { ratio.goal(Goal::AtLeast(50.0)) } else { ratio });
            }
            // It is no part of kvmeter: where it does not run, that is what the table says.
            Err(error) => rows.push(Row::missing(format!("{whose}: CPU of a scrape"), format!("{error:#}"))),
        }
    }
    rows
}

fn scrapes_of_other(options: &Options, more: &[&str]) -> Result<Scrapes> {
    let exporter = Exporter::of_processes(more)?;
    let idle = watch::during(&[exporter.pid()], || {
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    scrape::several(&[exporter.pid()], idle, options.scrapes(), "kvmeter-testvm-", || exporter.scrape())
}
