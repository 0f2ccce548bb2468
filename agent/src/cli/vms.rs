//! `vms` and `vm`.

use std::path::Path;

use anyhow::bail;
use serde_json::Value;

use super::{Outcome, client, print, table};
use crate::units::Bytes;

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Whole seconds of a decimal string of nanoseconds.
fn seconds(value: &Value) -> Option<f64> {
    let ns: u64 = value.as_str()?.parse().ok()?;
    Some(ns as f64 / 1e9)
}

fn row(vm: &Value) -> Vec<String> {
    let percent = |key: &str| vm["latest"][key].as_f64().map_or_else(|| "-".to_owned(), |p| format!("{p:.1}"));
    let roles = vm["cpu_ns"].as_object().map(|roles| roles.values().filter_map(seconds).sum::<f64>());
    let total = roles.map_or_else(|| "-".to_owned(), |sum| format!("{sum:.3}"));
    let memory = vm["shape"]["mem_bytes"].as_u64().map_or_else(|| "-".to_owned(), |b| Bytes(b).to_string());
    vec![
        text(vm, "vm_id"),
        or_dash(text(vm, "name")),
        text(vm, "hypervisor"),
        text(vm, "state"),
        vm["shape"]["cpu"].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string()),
        memory,
        percent("cpu_percent"),
        percent("cpu_delay_percent"),
        total,
        text(vm, "started_at").get(..19).unwrap_or_default().replace('T', " "),
    ]
}

const HEAD: [&str; 10] =
    ["VM", "NAME", "VMM", "STATE", "VCPUS", "MEMORY", "CPU %", "WAIT %", "CPU SECONDS", "STARTED (UTC)"];

/// Lists the VMs.
pub(super) fn list(socket: &Path, json: bool) -> anyhow::Result<Outcome> {
    let path = if json { "/v1/vms" } else { "/v1/vms?detail=true" };
    let answer = client::get(socket, path)?;
    if answer.status != 200 {
        bail!("the agent answered {}: {}", answer.status, answer.body);
    }
    if json {
        return print(&format!("{:#}\n", answer.body));
    }
    let vms = answer.body["vms"].as_array().cloned().unwrap_or_default();
    if vms.is_empty() {
        return print("no VMs\n");
    }
    print(&table::render(&HEAD, vms.iter().map(row).collect()))
}

/// The vm_ids an id can mean: itself, else a uuid or a name.
fn resolve(socket: &Path, id: &str) -> anyhow::Result<Vec<String>> {
    let list = client::get(socket, "/v1/vms")?.body;
    let vms = list["vms"].as_array().cloned().unwrap_or_default();
    let by = |key: &str| -> Vec<String> {
        let matching = vms.iter().filter(|vm| vm[key].as_str().is_some_and(|v| v.eq_ignore_ascii_case(id)));
        matching.map(|vm| text(vm, "vm_id")).collect()
    };
    Ok(["vm_id", "uuid", "name"].iter().map(|key| by(key)).find(|found| !found.is_empty()).unwrap_or_default())
}

/// Shows one VM.
pub(super) fn one(socket: &Path, id: &str, json: bool) -> anyhow::Result<Outcome> {
    let found = resolve(socket, id)?;
    let vm_id = match found.as_slice() {
        [] => {
            eprintln!("kvmeter: no VM is called {id:?}; `kvmeter vms` lists them");
            return Ok(Outcome::Negative);
        }
        [one] => one,
        many => {
            eprintln!("kvmeter: {id:?} means {} VMs: {}", many.len(), many.join(", "));
            return Ok(Outcome::Negative);
        }
    };
    let answer = client::get(socket, &format!("/v1/vms/{}", client::segment(vm_id)))?;
    if answer.status == 404 {
        eprintln!("kvmeter: {vm_id} has just gone");
        return Ok(Outcome::Negative);
    }
    if json {
        return print(&format!("{:#}\n", answer.body));
    }
    let mut lines = Vec::new();
    flatten("", &answer.body, &mut lines);
    print(&table::render(&["FIELD", "VALUE"], lines))
}

/// One line for each value: an object's by its key, an array's by its place.
fn flatten(prefix: &str, value: &Value, lines: &mut Vec<Vec<String>>) {
    let below = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&below(key), value, lines)),
        Value::Array(list) => {
            for (place, value) in list.iter().enumerate() {
                flatten(&below(&place.to_string()), value, lines);
            }
        }
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => lines.push(vec![prefix.to_owned(), text.clone()]),
        other => lines.push(vec![prefix.to_owned(), other.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_value_has_a_line_with_its_whole_name_and_none_is_json() {
        let mut lines = Vec::new();
        let vm = json!({"name": "", "uuid": null, "none": [], "vcpus": [{"exits": {"hlt": 1}, "tid": 7}, {"tid": 8}]});
        flatten("", &vm, &mut lines);
        let lines: Vec<_> = lines.iter().map(|line| line.join("=")).collect();
        assert_eq!(lines, ["vcpus.0.exits.hlt=1", "vcpus.0.tid=7", "vcpus.1.tid=8"]);
    }
}
