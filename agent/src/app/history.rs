//! The recent past: what an earlier agent left is read while the kernel side starts, and put back before anything runs.

use std::{io, os::unix::fs::DirBuilderExt as _, path::PathBuf, sync::Arc, thread::JoinHandle, time::Instant};

use crate::{
    account::past::Saving,
    cause,
    config::{Config, History},
    heap,
    history::{Bounds, Disk, Limits, Read, Saver, Store},
};

/// Where it is kept inside the data directory.
const DIR: &str = "history";

/// What an earlier agent left, being read.
pub(super) struct Earlier {
    dir: PathBuf,
    began: Instant,
    reading: Option<JoinHandle<io::Result<(Disk, Read)>>>,
}

/// Begins to read it; of a configuration that keeps none there is none.
pub(super) fn read(config: &Config) -> io::Result<Earlier> {
    let dir = config.data_dir.join(DIR);
    let began = Instant::now();
    if config.history.save_interval.is_zero() || config.history.samples == 0 {
        return Ok(Earlier { dir, began, reading: None });
    }
    let bounds = Bounds { max_memory: config.history.max_memory.0, min_free: config.ledger.min_free.0 };
    let (data, of) = (config.data_dir.clone(), dir.clone());
    let reading = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(data)?;
        Disk::open(&of, bounds)
    })?;
    Ok(Earlier { dir, began, reading: Some(reading) })
}

/// The store, with what was read in it, and what saves it.
pub(super) fn store(config: &History, earlier: Earlier) -> (Arc<Store>, Option<Saver>) {
    let store = Arc::new(Store::new(Limits {
        samples: usize::try_from(config.samples).unwrap_or(usize::MAX),
        max_bytes: config.max_memory.0,
    }));
    let Some(reading) = earlier.reading else { return (store, None) };
    let (dir, began) = (earlier.dir.display(), earlier.began);
    let died = || Err(io::Error::other("reading it failed; this is a bug, please report it"));
    let saver = reading.join().unwrap_or_else(|_| died()).and_then(|(disk, found)| {
        let vms = found.lines.len();
        store.restore(found.lines);
        if vms > 0 {
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            // Files are read whole for it.
            heap::trim();
            tracing::info!(vms, bytes = disk.bytes(), took_ms, "the history goes on from {dir}");
        }
        for (path, why) in &found.aside {
            tracing::warn!(file = %path.display(), %why, "a file of the history is left aside, what is in it is not shown");
        }
        if found.damaged > 0 {
            let parts = found.damaged;
            tracing::warn!(parts, %dir, "the history's files are damaged; those parts are left out, the rest is kept");
        }
        Saver::start(disk, Arc::clone(&store), config.save_interval, found.damaged)
    });
    let saver = saver.inspect_err(|error| {
        let trouble = Some(cause::chain(error));
        store.tell_saving(Saving { failures: 1, trouble, ..Saving::default() });
        tracing::error!(%error, %dir, "the history is in memory alone until kvmeter is started again");
    });
    (store, saver.ok())
}
