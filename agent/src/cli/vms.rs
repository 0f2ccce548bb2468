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
    let cpu = |role: &str| seconds(&vm["cpu_ns"][role]);
    let total = match (cpu("vcpu"), cpu("vmm")) {
        (Some(vcpu), Some(vmm)) => format!("{:.3}", vcpu + vmm),
        _ => "-".to_owned(),
    };
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

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, value, lines);
            }
        }
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => lines.push(vec![prefix.to_owned(), text.clone()]),
        other => lines.push(vec![prefix.to_owned(), other.to_string()]),
    }
}
