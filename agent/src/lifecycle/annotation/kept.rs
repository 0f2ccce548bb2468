//! Statements as they are kept in a file, so that they outlive the agent: a line each, checked when it is read as a request
//! is. Pure.
//!
//! The newest line of a number is what is left of that statement. A line without its newline was being written when its
//! agent died, and nobody was told that it was taken. What is not as it was written is counted and left out, never guessed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{MAX_TTL, Pending, Stated, Target, Whom, parse};
use crate::{clock::Instant2, ledger::line_sum, vm::Owner};

/// The longest line, in bytes: a request's texts take at most twice their length, and what stands beside them is short.
pub const MAX_LINE: usize = 48 * 1024;
const VERSION: u32 = 1;
const SUM: &str = ",\"sum\":\"";
/// A second, nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u32,
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waits: Option<Waits>,
    #[serde(default, skip_serializing)]
    sum: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Waits {
    boot_id: String,
    after_seq: u64,
    until_mono_ns: u64,
    until_unix_ns: u64,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    /// As it was asked for, or what is left of that.
    statement: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    start_tick: u64,
    tick_ns: u64,
    there_ns: u64,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What waits, in the order it came.
    pub waiting: Vec<Pending>,
    /// The highest number.
    pub last_id: u64,
    /// Lines that are not as they were written.
    pub unread: u64,
    /// Bytes behind the last newline.
    pub torn_bytes: usize,
    /// How many had waited long enough.
    pub expired: u64,
    /// How many were about processes of an earlier boot.
    pub gone: u64,
}

/// The line, with its newline, that says what is left of a statement; `None`: nothing. `at` is any instant of this boot.
#[must_use]
pub fn line(id: u64, left: Option<&Pending>, boot_id: &str, at: Instant2) -> Vec<u8> {
    let waits = left.map(|pending| Waits {
        boot_id: boot_id.to_owned(),
        after_seq: pending.after_seq,
        until_mono_ns: pending.until_ns,
        until_unix_ns: at.unix_of(pending.until_ns),
        by: pending.by().to_owned(),
        process: process_of(&pending.whom),
        statement: statement(pending),
    });
    let line = Line { v: VERSION, id, waits, sum: String::new() };
    // Strings, numbers and maps of strings: there is nothing in it that cannot be written.
    let mut text = serde_json::to_string(&line).unwrap_or_default();
    text.truncate(text.len().saturating_sub(1));
    let sum = line_sum(text.as_bytes());
    format!("{text}{SUM}{sum}\"}}\n").into_bytes()
}

const fn process_of(whom: &Whom) -> Option<Process> {
    match whom {
        Whom::Process { start_tick, tick_ns, there_ns, .. } => {
            Some(Process { start_tick: *start_tick, tick_ns: *tick_ns, there_ns: *there_ns })
        }
        Whom::VmId(_) | Whom::Uuid(_) => None,
    }
}

/// What is left of it, as a request would say it.
fn statement(pending: &Pending) -> Map<String, Value> {
    let mut said = Map::new();
    let mut say = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            said.insert(key.to_owned(), value);
        }
    };
    match &pending.whom {
        Whom::VmId(vm_id) => say("vm_id", Some(json!(vm_id))),
        Whom::Uuid(uuid) => say("uuid", Some(json!(uuid))),
        Whom::Process { tgid, .. } => say("pid", Some(json!(tgid))),
    }
    if let Some((owner, _)) = &pending.owner {
        say("name", owner.name.as_ref().map(|name| json!(name)));
        say("tenant", owner.tenant.as_ref().map(|tenant| json!(tenant)));
        say("labels", (!owner.labels.is_empty()).then(|| json!(owner.labels)));
    }
    let reason = pending.start.reason.or(pending.stop.reason);
    say("reason", reason.map(|reason| json!(reason.as_str())));
    say("source_snapshot_id", pending.start.snapshot.as_ref().map(|id| json!(id)));
    say("snapshot_id", pending.stop.snapshot.as_ref().map(|id| json!(id)));
    said
}

/// Reads a file. `now` is an instant of this boot; what no longer waits by then is left out.
#[must_use]
pub fn read(bytes: &[u8], boot_id: &str, now: Instant2) -> Found {
    let mut found = Found::default();
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let (lines, torn) = bytes.split_at(whole);
    found.torn_bytes = torn.len();
    let mut newest = BTreeMap::new();
    for line in lines.split_inclusive(|b| *b == b'\n') {
        match parse_line(line.strip_suffix(b"\n").unwrap_or(line)) {
            Some(line) => {
                found.last_id = found.last_id.max(line.id);
                newest.insert(line.id, line.waits);
            }
            None => found.unread += 1,
        }
    }
    for (id, waits) in newest {
        let Some(waits) = waits else { continue };
        let same_boot = waits.boot_id == boot_id;
        let most = u64::try_from(MAX_TTL.as_nanos()).unwrap_or(u64::MAX);
        let left_ns = if same_boot {
            waits.until_mono_ns.saturating_sub(now.boot_ns)
        } else {
            waits.until_unix_ns.saturating_sub(now.unix_ns)
        };
        if left_ns == 0 {
            found.expired += 1;
        } else if !same_boot && waits.process.is_some() {
            found.gone += 1;
        } else if let Some(mut pending) = pending_of(waits) {
            // A clock that was set back makes nothing wait longer than anything may.
            (pending.id, pending.until_ns) = (id, now.boot_ns.saturating_add(left_ns.min(most)));
            found.waiting.push(pending);
        } else {
            found.unread += 1;
        }
    }
    found
}

fn parse_line(line: &[u8]) -> Option<Line> {
    if line.len() > MAX_LINE {
        return None;
    }
    let text = std::str::from_utf8(line).ok()?;
    let (body, _) = text.rsplit_once(SUM)?;
    let line: Line = serde_json::from_str(text).ok()?;
    (line.v == VERSION && line.sum == line_sum(body.as_bytes())).then_some(line)
}

/// What waits, held to the bounds of a request.
fn pending_of(waits: Waits) -> Option<Pending> {
    let request = parse(&serde_json::to_vec(&waits.statement).ok()?).ok()?;
    let by = waits.by;
    by.strip_prefix("uid:")?.parse::<u32>().ok()?;
    let whom = match (request.target, waits.process) {
        (Target::VmId(vm_id), None) => Whom::VmId(vm_id),
        (Target::Uuid(uuid), None) => Whom::Uuid(uuid),
        (Target::Pid(tgid), Some(Process { start_tick, tick_ns, there_ns })) if (1..=SECOND_NS).contains(&tick_ns) => {
            Whom::Process { tgid, start_tick, tick_ns, there_ns }
        }
        _ => return None,
    };
    let stated = |stated: Stated| Stated { by: by.clone(), ..stated };
    let owner = Some(request.owner).filter(|owner: &Owner| !owner.is_empty()).map(|owner| (owner, by.clone()));
    let (start, stop) = (stated(request.start), stated(request.stop));
    Some(Pending { id: 0, after_seq: waits.after_seq, whom, owner, start, stop, until_ns: 0 })
}

#[cfg(test)]
mod tests;
