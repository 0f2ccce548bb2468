//! A scrape: every family of VMs and host built from the newest snapshot when it is asked for, and written at once;
//! what the agent counts about its own work comes from its registry.
//!
//! VMs are left out of that registry: it would hold all families at the same time and sort every series by its labels,
//! which was half of a scrape's cost with 1,000 VMs. Names and labels come from the catalogue, whose tests see to what
//! the registry would have checked.

use std::{path::PathBuf, sync::Arc};

use prometheus::{Encoder as _, TextEncoder};
use tokio::sync::watch;

use super::{PrometheusMetrics, Status, agent, catalog, connection::Counts, stream::Streams, vm};
use crate::{
    account::{Snapshot, past::Past},
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
}

impl Collected {
    /// The scrape's text and its content type.
    ///
    /// # Errors
    /// When the encoder refuses a family.
    pub fn text(&self) -> prometheus::Result<(Vec<u8>, String)> {
        // The lock is held for the clone of an Arc only: the sampler never waits for a scrape.
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let status = self.status.as_of(&snapshot.host);
        let (kept, saving) = (self.history.kept(), self.history.saving());
        let own = || agent::own(&status, &snapshot.host.ledger, free_bytes(&self.data_dir).ok(), kept);
        let watched = agent::single(&catalog::WATCH_DROPPED, self.streams.dropped() as f64);
        let families = vm::families(&snapshot)
            .chain(agent::host(&snapshot))
            .chain(own())
            .chain(agent::saving(saving.as_ref()))
            .chain([watched])
            .chain(self.connections.families())
            .chain(self.counted.gather());
        let (encoder, mut text) = (TextEncoder::new(), Vec::new());
        for family in families.filter(|family| !family.get_metric().is_empty()) {
            encoder.encode(&[family], &mut text)?;
        }
        Ok((text, encoder.format_type().to_owned()))
    }
}
