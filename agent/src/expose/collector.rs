//! The one Prometheus collector: builds every family from the newest snapshot when it is asked.

use std::{path::PathBuf, sync::Arc};

use prometheus::{
    Encoder as _, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

use super::{Status, agent, catalog, vm};
use crate::account::Snapshot;

/// What a scrape is built from.
#[derive(Clone)]
pub struct Collected {
    /// The newest state.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What this host can measure.
    pub status: Arc<Status>,
    /// Where the ledger is kept.
    pub data_dir: PathBuf,
}

impl Collected {
    /// Registers itself; one registry, owned by the caller.
    ///
    /// # Errors
    /// When the registry already has it.
    pub fn register(self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(Owner { described: descriptions()?, collected: self }))
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.data_dir).ok()?;
        Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }
}

struct Owner {
    described: Vec<Desc>,
    collected: Collected,
}

fn descriptions() -> prometheus::Result<Vec<Desc>> {
    let row = |metric: &catalog::Metric| {
        let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, std::collections::HashMap::new())
    };
    catalog::METRICS.iter().map(row).collect()
}

impl Collector for Owner {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The lock is held for the clone of an Arc only: the sampler never waits for a scrape.
        let snapshot = Arc::clone(&self.collected.snapshots.borrow());
        let mut families = vm::families(&snapshot);
        families.extend(agent::host(&snapshot));
        families.extend(agent::own(
            &self.collected.status.with_programs(&snapshot.host.programs),
            &snapshot.host.ledger,
            self.collected.free_bytes(),
        ));
        families
    }
}

/// The scrape's text and its content type.
///
/// # Errors
/// When the encoder refuses a family.
pub fn text(registry: &Registry) -> prometheus::Result<(Vec<u8>, String)> {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder.encode(&registry.gather(), &mut text)?;
    Ok((text, encoder.format_type().to_owned()))
}
