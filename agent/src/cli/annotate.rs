//! `annotate`: one statement to the agent, which checks it.

use std::path::Path;

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value};

use super::{Outcome, client};

/// What `--help` shows below.
pub(super) const EXAMPLES: &str = "Before or up to a minute after it happens. Ends with 3 if there is no such process.\n\n\
    Examples:\n  kvmeter annotate --uuid 6f1f0f6e-9d0c-4b8e-8f0a-2f5d1d7c9a11 --tenant acme --label tier=gold\n  \
    kvmeter annotate --vm-id web-1 --reason stop-user --ttl 2m\n  \
    kvmeter annotate --pid 4711 --reason clone --source-snapshot-id golden-42\n  \
    kvmeter annotate --vm-id web-1 --reason stop-user --snapshot-id web-1-2026-05-20   # hibernated";

/// One statement.
#[derive(Args)]
pub(super) struct Annotate {
    #[command(flatten)]
    target: Target,
    /// The VM's name
    #[arg(long)]
    name: Option<String>,
    /// Whom the VM belongs to
    #[arg(long)]
    tenant: Option<String>,
    /// A label; may be given up to 16 times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// What the VM's state is kept in when it stops next
    #[arg(long, value_name = "ID")]
    snapshot_id: Option<String>,
    /// What the VM starts from next
    #[arg(long, value_name = "ID")]
    source_snapshot_id: Option<String>,
    /// Why the VM starts (boot, restart, clone, restore, hibernate-wake) or stops (stop-user, stop-crash) next
    #[arg(long)]
    reason: Option<String>,
    /// How long this waits for the VM to start or stop, such as 30s or 1h, up to 1day [default: 10m]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
}

/// Which VM; exactly one.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The VM with this vm_id
    #[arg(long, value_name = "ID")]
    vm_id: Option<String>,
    /// The VM with this UUID
    #[arg(long)]
    uuid: Option<String>,
    /// The VM of this process, and of none that gets its id later
    #[arg(long)]
    pid: Option<u32>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give KEY=VALUE".to_owned()),
    }
}

impl Annotate {
    fn body(&self) -> Value {
        let mut body = Map::new();
        let texts = [
            ("vm_id", &self.target.vm_id),
            ("uuid", &self.target.uuid),
            ("name", &self.name),
            ("tenant", &self.tenant),
            ("snapshot_id", &self.snapshot_id),
            ("source_snapshot_id", &self.source_snapshot_id),
            ("reason", &self.reason),
            ("ttl", &self.ttl),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                body.insert(key.to_owned(), text.as_str().into());
            }
        }
        if let Some(pid) = self.target.pid {
            body.insert("pid".to_owned(), pid.into());
        }
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
            body.insert("labels".to_owned(), Value::Object(labels.collect()));
        }
        Value::Object(body)
    }
}

/// States it.
pub(super) fn run(socket: &Path, statement: &Annotate) -> anyhow::Result<Outcome> {
    let answer = client::post(socket, "/v1/annotations", &statement.body())?;
    let detail = answer.body["detail"].as_str().unwrap_or("no reason given");
    match answer.status {
        202 => Ok(Outcome::Done),
        404 => {
            eprintln!("kvmeter: {detail}");
            Ok(Outcome::Negative)
        }
        status => bail!("the agent did not take it ({status}): {detail}"),
    }
}
