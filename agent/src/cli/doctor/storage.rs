//! Whether the configured pools can be looked after: looks at each once, without waiting for one that hangs.

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::{
    expose::status::Feature,
    host::store::look_once,
    storage::{Pool, Report},
};

/// How long a look may take here.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries each pool; nothing where none is configured.
pub(super) fn feature(pools: &[Pool]) -> Option<Feature> {
    if pools.is_empty() {
        return None;
    }
    let (mut fine, mut wrong) = (Vec::new(), Vec::new());
    for pool in pools {
        let name = pool.path.display();
        match look(pool) {
            None => wrong.push(format!("{name}: it did not answer in {} s", PATIENCE.as_secs())),
            Some(Report { state, .. }) if state.why.is_some() => {
                wrong.push(format!("{name}: {}", state.why.unwrap_or_default()));
            }
            Some(report) => fine.push(format!("{name}: {}", described(&report))),
        }
    }
    Some(Feature {
        name: "storage_pools".to_owned(),
        available: wrong.is_empty(),
        gives: format!("storage of images and snapshots: {}", fine.join("; ")),
        why: wrong.join("; "),
        advice: if wrong.is_empty() {
            String::new()
        } else {
            "mount it, or set storage.pools to a directory that the agent can list and search".to_owned()
        },
    })
}

/// A thread that hangs ends with this process.
fn look(pool: &Pool) -> Option<Report> {
    let (tell, told) = channel();
    let pool = pool.clone();
    let work = move || drop(tell.send(look_once(&pool)));
    std::thread::Builder::new().name("storage".to_owned()).spawn(work).ok()?;
    told.recv_timeout(PATIENCE).ok().flatten()
}

/// What there is, and what of it cannot be watched.
fn described(report: &Report) -> String {
    let skipped = report.state.skipped;
    let mut notes = vec![format!("{} files", report.files.len())];
    if report.state.remote {
        notes.push("what other hosts do is seen at a look only (network file system)".to_owned());
    }
    for (count, what) in [
        (skipped.unwatched, "could not be watched and are looked at only (fs.inotify.max_user_watches, permissions)"),
        (
            skipped.birthless,
            "have no instant of birth, so one that takes another's inode while no agent runs is taken for it",
        ),
        (skipped.not_files, "fit a pattern and are no files (links, devices): not told"),
        (skipped.failed, "could not be looked at"),
        (skipped.beyond, "are beyond the bounds: not told"),
    ] {
        if count > 0 {
            notes.push(format!("{count} {what}"));
        }
    }
    notes.join(", ")
}
