//! Prints a ledger's lines, as they are or as a table for a person. Streams; changes nothing.
//! Text from guests and VMMs is escaped in the table, so that a name cannot steer a terminal.

use std::io::{self, BufRead, Write};

use super::scan::Scanner;
use super::wire::When;
use super::{Kind, Line};

/// Which lines to print; an unset part lets every line through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Lines of this VM.
    pub vm_id: Option<String>,
    /// Lines of these kinds; empty lets all through.
    pub kinds: Vec<Kind>,
    /// Lines from this number on.
    pub since_seq: Option<u64>,
}

impl Filter {
    fn takes(&self, line: &Line) -> bool {
        self.vm_id.as_ref().is_none_or(|id| *id == line.fact.vm_id)
            && (self.kinds.is_empty() || self.kinds.contains(&line.fact.kind))
            && self.since_seq.is_none_or(|seq| line.seq >= seq)
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The line's own bytes.
    Json,
    /// A table.
    Table,
}

/// What was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shown {
    /// Lines printed.
    pub lines: u64,
    /// Whole lines that could not be read; `verify` says why.
    pub unreadable: u64,
}

/// Prints the lines of one file that pass the filter. A tail without newline is being written and not shown.
///
/// # Errors
/// What the reader or the writer says.
pub fn show(from: impl BufRead, filter: &Filter, format: Format, out: &mut impl Write) -> io::Result<Shown> {
    let (mut scanner, mut shown) = (Scanner::new(from), Shown::default());
    while let Some(raw) = scanner.next_line()? {
        if !raw.complete {
            break;
        }
        match Line::parse(&raw.bytes) {
            Ok(line) if filter.takes(&line) => {
                shown.lines += 1;
                match format {
                    Format::Table => row(&line, out)?,
                    Format::Json => {
                        out.write_all(&raw.bytes)?;
                        out.write_all(b"\n")?;
                    }
                }
            }
            Ok(_) => {}
            Err(_) => shown.unreadable += 1,
        }
    }
    Ok(shown)
}

/// Prints the head of a table, which comes once before all files.
///
/// # Errors
/// What the writer says.
pub fn show_head(out: &mut impl Write) -> io::Result<()> {
    let (seq, at, kind, vm, why) = ("SEQ", "EMITTED AT", "KIND", "VM", "WHY");
    writeln!(out, "{seq:>8}  {at:<30}  {kind:<18}  {vm:<36}  {why:<20}  {:>12}  DETAIL", "CPU s")
}

fn row(line: &Line, out: &mut impl Write) -> io::Result<()> {
    let fact = &line.fact;
    let (seq, at, kind) = (line.seq, When(fact.emitted_at), fact.kind);
    let vm = if fact.vm_id.is_empty() { plain(&fact.snapshot_id) } else { plain(&fact.vm_id) };
    let why = match (fact.reason, fact.cause.as_str()) {
        (Some(reason), "") => reason.to_string(),
        (Some(reason), cause) => format!("{reason} ({})", plain(cause)),
        (None, cause) => plain(cause),
    };
    let cpu = fact.usage.as_ref().and_then(super::Usage::cpu_ns).map(seconds).unwrap_or_default();
    writeln!(out, "{seq:>8}  {at}  {kind:<18}  {vm:<36}  {why:<20}  {cpu:>12}  {}", detail(line).join(" "))
}

fn detail(line: &Line) -> Vec<String> {
    let (fact, mut parts) = (&line.fact, Vec::new());
    for (key, text) in [("name", &fact.name), ("tenant", &fact.tenant), ("corrects", &fact.corrects)] {
        if !text.is_empty() {
            parts.push(format!("{key}={}", plain(text)));
        }
    }
    let shape = fact.shape;
    let sizes = [("cpus", shape.cpu.into()), ("mem", shape.mem_bytes), ("storage", shape.storage_bytes)];
    parts.extend(sizes.iter().filter(|(_, n)| *n > 0).map(|(key, n)| format!("{key}={n}")));
    if matches!(fact.time_quality, super::TimeQuality::Bounded { .. }) {
        parts.push("bounded".to_owned());
    }
    parts.extend(fact.cut_bytes.map(|bytes| format!("cut={bytes}")));
    parts.extend(fact.stepped_from.map(|from| format!("from={}", crate::clock::rfc3339(from))));
    parts.extend(fact.suspended_ns.map(|ns| format!("suspended={}s", seconds(ns))));
    parts.extend(fact.clean.map(|clean| format!("clean={clean}")));
    parts
}

/// Nanoseconds as seconds with three decimals, in integers.
fn seconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}

fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
