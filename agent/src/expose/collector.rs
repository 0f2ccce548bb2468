//! A scrape: every family of VMs and host written from the newest snapshot when it is asked for; what the agent counts
//! about its own work comes from its registry.
//!
//! VMs are left out of that registry: it would hold all families at the same time and sort every series by its labels,
//! which was half of a scrape's cost with 1,000 VMs. Names and labels come from the catalogue, whose tests see to what
//! the registry would have checked.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use prometheus::{Encoder as _, TextEncoder};
use tokio::sync::watch;

use super::{
    PrometheusMetrics, Status, agent, catalog, connection::Counts, family::seconds, known::Known, stream::Streams, vm,
};
use crate::{
    account::{Snapshot, VmView, past::Past},
    host::free_bytes,
};

/// What a scrape is built from.
#[derive(Clone)]
pub struct Collected {
    /// The newest state.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What this host can measure.
    pub status: Arc<Status>,
    /// Where the ledger is kept.
    pub data_dir: PathBuf,
    /// Who keeps the past.
    pub history: Arc<dyn Past>,
    /// Whose readers may be too slow.
    pub streams: Streams,
    /// What the agent counts about its own work.
    pub counted: PrometheusMetrics,
    /// What bounds of connections cost.
    pub connections: Counts,
    /// What the last scrape was.
    pub last: Arc<Last>,
}

/// What the last scrape was.
#[derive(Debug, Default)]
pub struct Last {
    /// How long its text took, nanoseconds; 0 before the first.
    took_ns: AtomicU64,
    /// What its VMs are known by.
    known: Mutex<Arc<Known>>,
}

impl Last {
    /// What these VMs are known by, written anew if they are others than last time.
    fn known(&self, vms: &[Arc<VmView>]) -> Arc<Known> {
        let last = Arc::clone(&self.known.lock().unwrap_or_else(PoisonError::into_inner));
        if last.is_of(vms) {
            return last;
        }
        let known = Arc::new(Known::of(vms));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&known);
        known
    }
}

impl Collected {
    /// The scrape's text, in pieces, and its content type.
    ///
    /// # Errors
    /// When the encoder refuses a family.
    pub fn text(&self) -> prometheus::Result<(Pieces, String)> {
        let began = Instant::now();
        // The lock is held for the clone of an Arc only: the sampler never waits for a scrape.
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let encoder = TextEncoder::new();
        let rest = self.rest(&snapshot, &encoder)?;
        let vms = vm::Families::of(&snapshot, self.last.known(&snapshot.vms));
        let pieces = Pieces { vms, rest: Some(rest), took: began.elapsed(), last: Arc::clone(&self.last) };
        Ok((pieces, encoder.format_type().to_owned()))
    }

    /// What is not about one VM.
    fn rest(&self, snapshot: &Snapshot, encoder: &TextEncoder) -> prometheus::Result<Vec<u8>> {
        let status = self.status.as_of(&snapshot.host);
        let (kept, saving) = (self.history.kept(), self.history.saving());
        let took = self.last.took_ns.load(Relaxed);
        let families = agent::host(snapshot)
            .into_iter()
            .chain(agent::own(&status, &snapshot.host.ledger, free_bytes(&self.data_dir).ok(), kept))
            .chain(agent::saving(saving.as_ref()))
            .chain([agent::single(&catalog::WATCH_DROPPED, self.streams.dropped() as f64)])
            .chain((took > 0).then(|| agent::single(&catalog::SCRAPE_DURATION, seconds(took))))
            .chain(self.connections.families());
        let mut text = Vec::new();
        families.for_each(|family| text.extend_from_slice(&family.0));
        encoder.encode(&self.counted.gather(), &mut text)?;
        Ok(text)
    }
}

/// The text of one scrape, written piece by piece: those about VMs when they are asked for, of one snapshot.
pub struct Pieces {
    vms: vm::Families,
    rest: Option<Vec<u8>>,
    /// Without what lies between them.
    took: Duration,
    last: Arc<Last>,
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let began = Instant::now();
        let piece = self.vms.next();
        self.took += began.elapsed();
        piece.or_else(|| {
            let took = u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX);
            self.last.took_ns.store(took, Relaxed);
            self.rest.take()
        })
    }
}
