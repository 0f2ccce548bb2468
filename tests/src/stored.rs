//! What a test asks of storage lines: those of one stored thing, and files to store.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::agent::Agent;

/// Longer than any look, list or line takes here.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A pool in a directory, of raw and qcow2 images and snapshots, looked at every second.
#[must_use]
pub fn pool(dir: &Path) -> String {
    format!(
        "[discovery]\nscan_interval = \"1s\"\n[ledger]\nheartbeat = \"1s\"\n[[storage.pools]]\npath = {dir:?}\n\
         images = [\"{{vm_id}}.img\", \"{{vm_id}}.qcow2\"]\n\
         snapshots = [\"{{vm_id}}@{{snapshot_id}}.img\", \"{{vm_id}}@{{snapshot_id}}.qcow2\"]\n\
         resize_step = \"1MiB\"\ninterval = \"1s\"\n"
    )
}

/// A file of so many bytes, all of them written.
pub fn file(path: &Path, bytes: usize) -> Result<PathBuf> {
    fs::write(path, vec![0x5a; bytes])?;
    Ok(path.to_owned())
}

/// `qemu-img` with these arguments.
pub fn qemu_img(dir: &Path, args: &[&str]) -> Result<()> {
    ensure!(Command::new("qemu-img").current_dir(dir).args(args).status()?.success(), "qemu-img {args:?}");
    Ok(())
}

/// The lines of one stored thing, by its `storage_id`, or by the snapshot it is.
pub fn told(lines: &[Value], subject: &str) -> Vec<Value> {
    let about = |line: &&Value| {
        let kind = line["kind"].as_str().unwrap_or_default();
        kind.contains(".storage.") && (line["storage_id"] == subject || line["snapshot_id"] == subject)
    };
    lines.iter().filter(about).cloned().collect()
}

/// Waits until the newest line of a stored thing fits, and returns its lines.
pub fn wait_told(agent: &Agent, subject: &str, kind: &str, bytes: Option<u64>) -> Result<Vec<Value>> {
    let fits = |line: &Value| {
        line["kind"].as_str().is_some_and(|found| found.ends_with(kind))
            && bytes.is_none_or(|bytes| line["shape"]["storage_bytes"] == bytes)
    };
    let mut found = Vec::new();
    let what = format!("{kind} of {subject} with {bytes:?} bytes");
    let outcome = agent.wait_until(&what, PATIENCE, |a| {
        found = told(&a.ledger()?, subject);
        Ok(found.last().is_some_and(fits))
    });
    outcome.with_context(|| format!("lines: {found:#?}"))?;
    Ok(found)
}

/// The kinds of these lines, their last word alone.
#[must_use]
pub fn kinds(lines: &[Value]) -> Vec<String> {
    let last =
        |line: &Value| line["kind"].as_str().and_then(|kind| kind.rsplit('.').next()).unwrap_or_default().to_owned();
    lines.iter().map(last).collect()
}
