//! The environment layer: `KVMETER_LEDGER__HEARTBEAT` is `ledger.heartbeat`.

use super::{Entry, Table, Value};
use crate::config::key::{KEYS, Kind};
use crate::config::problem::{Origin, Problem};
use crate::config::suggest;

/// The prefix of our environment variables, and what stands for the dot of a path.
const PREFIX: &str = "KVMETER_";
const NESTING: &str = "__";
/// Names with our prefix that are no configuration keys.
const RESERVED: [&str; 6] =
    ["KVMETER_LOG", "KVMETER_BIN", "KVMETER_TESTVM", "KVMETER_SKIP_LOG", "KVMETER_EBPF_OBJECT", "KVMETER_TOOLCHAIN"];

/// Lays the variables named `KVMETER_…` over the table.
pub(in crate::config) fn read_env(
    table: &mut Table,
    env: impl Iterator<Item = (String, String)>,
    problems: &mut Vec<Problem>,
) {
    let mut ours: Vec<_> = env.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    ours.sort();
    for (name, text) in ours {
        if RESERVED.contains(&name.as_str()) {
            continue;
        }
        let origin = Origin::Environment(name.clone());
        let Some(key) = KEYS.iter().find(|key| key.kind != Kind::Table && env_name(key.path) == name) else {
            problems.push(Problem { key: None, value: None, origin, text: unknown_env(&name) });
            continue;
        };
        match from_env(key.kind, &text) {
            Ok(value) => _ = table.entries.insert(key.path, Entry { value, origin }),
            Err(allowed) => problems.push(Problem {
                key: Some(key.path.to_owned()),
                value: Some(format!("{text:?}")),
                origin,
                text: allowed.to_owned(),
            }),
        }
    }
}

fn from_env(kind: Kind, text: &str) -> Result<Value, &'static str> {
    match kind {
        Kind::Text | Kind::Table => Ok(Value::Text(text.to_owned())),
        Kind::Integer => text.trim().parse().map(Value::Integer).map_err(|_| "must be a whole number"),
        Kind::Bool => text.trim().parse().map(Value::Bool).map_err(|_| "must be true or false"),
        Kind::List => Ok(Value::List(text.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect())),
    }
}

fn env_name(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', NESTING).to_ascii_uppercase())
}

fn unknown_env(name: &str) -> String {
    let path = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase().replace(NESTING, ".");
    match suggest::nearest(&path, KEYS.iter().filter(|key| key.kind != Kind::Table).map(|key| key.path)) {
        Some(known) => format!("unknown variable; did you mean {}?", env_name(known)),
        None => "unknown variable; names that begin with KVMETER_ are configuration keys".to_owned(),
    }
}
