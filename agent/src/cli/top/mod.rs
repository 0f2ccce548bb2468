//! `top`: the VMs of a running agent, live. Reads the API over the agent's socket as `vms` does, and changes nothing.
//!
//! `feed` makes rates of two answers, `order` sorts and filters, `view` is what the person has chosen, `draw` shows it,
//! `screen` takes the terminal and gives it back, `live` holds them together; `batch` prints instead.

mod batch;
mod draw;
mod feed;
mod live;
mod one;
mod order;
mod plain;
mod screen;
mod view;

use std::{path::Path, time::Duration};

use anyhow::bail;
use serde_json::Value;

use super::{Misuse, Outcome, client};
use order::Sort;

pub(super) const EXAMPLES: &str = "Keys: ? shows them.\n\nExamples:\n  kvmeter top\n  kvmeter top --sort delay --filter web\n  \
    kvmeter top --batch --count 5 --delay 1s\n  kvmeter top --batch --json | jq '.vms[] | {vm_id, cpu_percent}'";

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(100);

/// How to show them.
#[derive(clap::Args)]
pub(super) struct Top {
    /// Print a table and end, for scripts: numbers of the time between two looks
    #[arg(long)]
    batch: bool,
    /// With --batch: one JSON object a look, in the names of the API
    #[arg(long, requires = "batch")]
    json: bool,
    /// With --batch: how often to print
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), requires = "batch")]
    count: u64,
    /// Time between two looks
    #[arg(long, value_name = "DUR", default_value = "2s", value_parser = delay)]
    delay: Duration,
    /// What to sort by
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Only VMs whose name, id, tenant or state has this in it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if delay < SHORTEST { Err(format!("{SHORTEST:?} is the shortest")) } else { Ok(delay) }
}

/// Shows them until the person has seen enough, or prints.
pub(super) fn run(socket: &Path, top: &Top) -> anyhow::Result<Outcome> {
    use std::io::IsTerminal as _;
    if top.batch {
        return batch::run(socket, top);
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        bail!(Misuse("top wants a terminal; `kvmeter top --batch` prints for scripts".to_owned()));
    }
    live::run(socket, top)
}

/// All that the agent knows of its VMs.
fn ask(socket: &Path) -> anyhow::Result<Value> {
    let answer = client::get(socket, "/v1/vms?detail=true")?;
    if answer.status != 200 {
        bail!("the agent answered {}: {}", answer.status, answer.body);
    }
    Ok(answer.body)
}
