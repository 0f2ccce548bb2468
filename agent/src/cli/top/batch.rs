//! `top --batch`: a table or JSON of what lies between two looks.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    Top, ask,
    feed::{Feed, Row, Share},
    order::shown,
    plain::escaped,
};
use crate::cli::{Outcome, print, table};

const HEAD: [&str; 11] =
    ["VM", "NAME", "STATE", "VCPUS", "CPU %", "WAIT %", "MEMORY", "NET IN/s", "NET OUT/s", "READ/s", "WRITE/s"];

/// Prints as often as asked.
pub(super) fn run(socket: &Path, top: &Top) -> anyhow::Result<Outcome> {
    let mut feed = Feed::default();
    feed.rows(&ask(socket)?);
    for _ in 0..top.count {
        std::thread::sleep(top.delay);
        let rows = feed.rows(&ask(socket)?);
        let rows = shown(&rows, &top.filter, top.sort, false);
        print(&if top.json { format!("{}\n", line(&rows, top)) } else { text(&rows, top.count > 1) })?;
    }
    Ok(Outcome::Done)
}

fn text(rows: &[&Row], more: bool) -> String {
    if rows.is_empty() && !more {
        return "no VMs\n".to_owned();
    }
    let table = table::render(&HEAD, rows.iter().map(|row| cells(row)).collect());
    if more { format!("{table}\n") } else { table }
}

fn cells(row: &Row) -> Vec<String> {
    let told = |key: &str| row.told[key].as_str().filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
    let mut cells = vec![told("vm_id"), told("name"), row.state.clone()];
    cells.extend(row.numbers());
    cells
}

/// One look as one line of JSON.
fn line(rows: &[&Row], top: &Top) -> String {
    let look = json!({
        "interval_seconds": top.delay.as_secs_f64(),
        "vms": rows.iter().map(|row| one(row)).collect::<Vec<_>>(),
    });
    escaped(&look.to_string())
}

/// The API's own names: who it is, a sample of the time between two looks, and its parts.
fn one(row: &Row) -> Value {
    let mut all = Map::new();
    for key in ["vm_id", "incarnation", "name", "uuid", "tenant", "hypervisor", "state", "shape"] {
        all.insert(key.to_owned(), row.told[key].clone());
    }
    if let Some(Ok(Value::Object(sample))) = row.rates.as_deref().map(serde_json::to_value) {
        all.extend(sample);
    }
    let parts = |shares: &[Share], of: &str| shares.iter().map(|share| part(share, of)).collect::<Value>();
    all.insert("roles".to_owned(), parts(&row.roles, "role"));
    all.insert("vcpus".to_owned(), parts(&row.vcpus, "tid"));
    let waits = row.waits.iter().filter_map(|wait| Some((wait.of.clone(), json!(wait.rates.cpu_delay_percent?))));
    all.insert("preempted_percent".to_owned(), waits.collect());
    Value::Object(all)
}

fn part(share: &Share, of: &str) -> Value {
    let mut part = Map::new();
    if let Some(number) = share.number {
        part.insert("vcpu".to_owned(), json!(number));
    }
    part.insert(of.to_owned(), share.of.parse::<u64>().map_or_else(|_| json!(share.of), |tid| json!(tid)));
    let rates = [("cpu_percent", share.rates.cpu_percent), ("cpu_delay_percent", share.rates.cpu_delay_percent)];
    part.extend(rates.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))));
    Value::Object(part)
}
