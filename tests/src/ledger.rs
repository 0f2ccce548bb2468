//! The lines of a ledger as a test reads them, and the lives they tell of, held against the laws.
//!
//! Reads what an agent has written, running or not; knows nothing of the agent's own code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::binary;

/// The checker that the agent's own tests use: it knows nothing of the agent.
#[path = "../../agent/src/ledger/tests/strict.rs"]
pub mod strict;

/// What is published about a line.
const SCHEMA: &str = include_str!("../../docs/ledger.schema.json");

/// How long a write may be under way on a busy machine; a line that is cut short after that is an error.
const UNDER_WAY: Duration = Duration::from_secs(20);

/// All lines of the ledger in an agent's directory, of all its files. A line that is being written is waited for: a
/// reader may see a write page by page.
pub fn ledger_in(dir: &Path) -> Result<Vec<Value>> {
    let end = Instant::now() + UNDER_WAY;
    // Retention may have taken a file between the listing and the reading.
    let read = || text_in(dir).or_else(|_| text_in(dir)).or_else(|_| text_in(dir));
    let mut text = read()?;
    while !text.is_empty() && !text.ends_with('\n') && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
        text = read()?;
    }
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// The rotated files of the ledger in an agent's directory, oldest first.
pub fn rotated_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir.join("data/metering"))?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found: Vec<_> = paths?.into_iter().filter(|path| name(path).starts_with("ledger-")).collect();
    found.sort();
    Ok(found)
}

/// The live file is opened first: one that is rotated meanwhile is among the others, and is read once.
fn text_in(dir: &Path) -> Result<String> {
    let mut live = File::open(dir.join("data/metering/ledger.jsonl"))?;
    let own = live.metadata()?.ino();
    let mut text = String::new();
    for path in rotated_in(dir)? {
        if std::fs::metadata(&path)?.ino() != own {
            text.push_str(&std::fs::read_to_string(path)?);
        }
    }
    live.read_to_string(&mut text)?;
    Ok(text)
}

/// Proves the ledger in the directory of an agent that has ended, and holds each of its lines against the schema.
pub fn verify_in(dir: &Path) -> Result<()> {
    let output =
        Command::new(binary()?).env_clear().args(["ledger", "verify"]).arg(dir.join("data/metering")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let schema = serde_json::from_str(SCHEMA)?;
    for line in ledger_in(dir)? {
        let faults = strict::faults(&schema, &line);
        ensure!(faults.is_empty(), "not as docs/ledger.schema.json says: {faults:?}: {line}");
    }
    Ok(())
}

/// What a ledger tells of one incarnation.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Its start line.
    pub start: Value,
    /// Its heartbeats.
    pub usage: Vec<Value>,
    /// Its stop line.
    pub stop: Option<Value>,
    /// Lines that take the place of others.
    pub corrections: Vec<Value>,
}

impl Life {
    /// The CPU time of its stop line, nanoseconds.
    pub fn cpu_ns(&self) -> Result<u64> {
        number(&self.stop.as_ref().context("no stop")?["usage"]["cpu_ns"])
    }
}

/// Every life a ledger tells of, by incarnation. An error where a law is broken: one start, which comes first, at most
/// one stop, which comes last, one vm_id, usage that never falls, coverage that sums to the age, ids that are unique.
pub fn lives(lines: &[Value]) -> Result<BTreeMap<String, Life>> {
    let mut lives: BTreeMap<String, Life> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for line in lines {
        ensure!(ids.insert(line["id"].to_string()), "an id is there twice: {line}");
        let Some(incarnation) = line["incarnation"].as_str() else { continue };
        if line["kind"] == "vm.compute.start" {
            let life = Life { start: line.clone(), ..Life::default() };
            ensure!(lives.insert(incarnation.to_owned(), life).is_none(), "a second start: {line}");
            continue;
        }
        let life = lives.get_mut(incarnation).with_context(|| format!("no start before {line}"))?;
        ensure!(life.start["vm_id"] == line["vm_id"], "another vm_id: {line}");
        if line["kind"] == "correction" {
            life.corrections.push(line.clone());
            continue;
        }
        ensure!(life.stop.is_none(), "after the stop: {line}");
        goes_on(life.usage.last(), line, &life.start)?;
        match line["kind"].as_str() {
            Some("vm.compute.usage") => life.usage.push(line.clone()),
            Some("vm.compute.stop") => life.stop = Some(line.clone()),
            _ => {}
        }
    }
    Ok(lives)
}

fn goes_on(before: Option<&Value>, line: &Value, start: &Value) -> Result<()> {
    let told = before.and_then(|line| line["usage"].as_object()).into_iter().flatten();
    for (key, value) in told.filter(|(_, value)| value.is_string()) {
        ensure!(wide(&line["usage"][key])? >= wide(value)?, "{key} falls after {value}: {line}");
    }
    if let Some(coverage) = line.get("coverage") {
        let age = number(&line["mono_ns"])? - number(&start["mono_ns"])?;
        let covered = number(&coverage["observed_ns"])? + number(&coverage["unobserved_ns"])?;
        ensure!(covered == age, "{covered} ns covered of {age}: {line}");
    }
    Ok(())
}

/// The lives of a vm_id, in the order they began.
pub fn lives_of(lines: &[Value], vm_id: &str) -> Result<Vec<Life>> {
    let mut found: Vec<_> = lives(lines)?.into_values().filter(|life| life.start["vm_id"] == vm_id).collect();
    found.sort_by_key(|life| life.start["seq"].as_u64());
    Ok(found)
}

/// The only life of a vm_id.
pub fn only(lines: &[Value], vm_id: &str) -> Result<Life> {
    let mut found = lives_of(lines, vm_id)?;
    ensure!(found.len() == 1, "{} lives of {vm_id}", found.len());
    found.pop().context("one life")
}

/// The only life of a process.
pub fn of_process(lines: &[Value], pid: i32) -> Result<Life> {
    let mark = format!("-{pid}-");
    let mut found = lives(lines)?.into_iter().filter(|(incarnation, _)| incarnation.contains(&mark));
    let (_, life) = found.next().with_context(|| format!("no life of process {pid}"))?;
    ensure!(found.next().is_none(), "several lives of process {pid}");
    Ok(life)
}

/// A decimal string of a ledger line that may be longer than 64 bits (`mem_byte_ns`).
pub fn wide(value: &Value) -> Result<u128> {
    let text = value.as_str().with_context(|| format!("not a decimal string: {value}"))?;
    text.parse().with_context(|| format!("not a number: {text}"))
}

/// A decimal string of a ledger line.
pub fn number(value: &Value) -> Result<u64> {
    let text = value.as_str().with_context(|| format!("not a decimal string: {value}"))?;
    text.parse().with_context(|| format!("not a number: {text}"))
}
