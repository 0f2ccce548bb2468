//! Opens what records the metered facts, as the configuration wants it, and starts its writer.

use std::{io, os::unix::fs::DirBuilderExt as _, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use nix::sys::eventfd::EventFd;

use crate::{
    clock::{self, Instant2},
    config::{self, Config, Recorder},
    expose::stream::{Lines, Reread, Told},
    host::HostFacts,
    ledger::{Journal, Keeping, OnCommit, Options, Recovered, Since, Stamp, Store, Writer, since},
    lifecycle::Bus,
};

/// Where the ledger is kept inside the data directory.
pub const METERING: &str = "metering";

/// At each commit: the engine is woken, which decides what may be shown, then the bus tells its subscribers.
pub(super) fn on_commit(waker: Arc<EventFd>, bus: Bus) -> OnCommit {
    Box::new(move |lines| {
        // A full counter still wakes.
        let _ = waker.write(1);
        bus.publish(lines);
    })
}

/// Where annotations that wait are kept, if anything is.
pub(super) fn annotations(config: &Config) -> Option<PathBuf> {
    matches!(config.ledger.recorder, Recorder::File).then(|| config.data_dir.join("annotations.jsonl"))
}

/// Opens the ledger and starts its writer.
pub(super) fn open(
    config: &Config,
    facts: &HostFacts,
    boot_id: &str,
    now: Instant2,
    on_commit: OnCommit,
) -> anyhow::Result<(Writer, Recovered)> {
    let host = &facts.machine_id;
    match config.ledger.recorder {
        Recorder::File => spawn(open_file(config, facts, boot_id, now)?, on_commit),
        Recorder::Stderr => {
            tracing::warn!(
                "ledger.recorder is \"stderr\": lines are kept by whoever collects them, and by nobody else"
            );
            spawn(Journal::on_stream(io::stderr(), "standard error", host)?, on_commit)
        }
        Recorder::Discard => {
            tracing::warn!("ledger.recorder is \"discard\": nothing is kept that a bill could be made from");
            spawn(Journal::on_stream(io::sink(), "nothing", host)?, on_commit)
        }
    }
}

/// How lines of before are read again, for streams: only a file can be.
pub(super) fn reread(config: &Config) -> Reread {
    let dir = matches!(config.ledger.recorder, Recorder::File).then(|| config.data_dir.join(METERING));
    Arc::new(move |after, upto| -> io::Result<Lines> {
        let Some(dir) = &dir else { return Ok(Box::new(std::iter::empty())) };
        let told = |since: Since| Told { seq: since.seq, kind: since.kind, line: since.line.into() };
        let lines: Lines = Box::new(since(dir, after, upto)?.map(move |line| line.map(told)));
        Ok(lines)
    })
}

fn spawn<S: Store + 'static>(
    (journal, recovered): (Journal<S>, Recovered),
    on_commit: OnCommit,
) -> anyhow::Result<(Writer, Recovered)> {
    let writer = Writer::spawn(journal, Options::default(), Box::new(stamp_now), on_commit)
        .context("the ledger's writer cannot be started")?;
    Ok((writer, recovered))
}

fn open_file(config: &Config, facts: &HostFacts, boot_id: &str, now: Instant2) -> anyhow::Result<(Journal, Recovered)> {
    let dir = config.data_dir.join(METERING);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(&config.data_dir)
        .with_context(|| format!("the data directory {} cannot be made (set data_dir)", config.data_dir.display()))?;
    let stamp = Stamp { unix_ns: now.unix_ns, mono_ns: now.boot_ns };
    let (mut journal, recovered) = Journal::open(&dir, &facts.machine_id, boot_id, stamp)
        .with_context(|| format!("the ledger in {} cannot be opened", dir.display()))?;
    journal.keep(keeping(&config.ledger)).context("the ledger's readers cannot be waited for")?;
    Ok((journal, recovered))
}

/// How files are cut and kept.
fn keeping(ledger: &config::Ledger) -> Keeping {
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Keeping {
        max_file_bytes: ledger.max_file.0,
        max_file_age_ns: ns(ledger.max_file_age),
        retain_ns: ledger.retain.map(ns),
        max_total_bytes: ledger.max_total.map(|size| size.0),
        max_unread_bytes: ledger.max_unread.map(|size| size.0),
        min_free_bytes: ledger.min_free.0,
        readers: ledger.readers.clone(),
    }
}

fn stamp_now() -> Stamp {
    // The clock was readable at the start; a zero would show in `recorded_at` and fails verification loudly.
    clock::now().map_or(Stamp { unix_ns: 0, mono_ns: 0 }, |now| Stamp { unix_ns: now.unix_ns, mono_ns: now.boot_ns })
}
