//! The views' wiring: one registry, one router, served on both listeners.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use prometheus::Registry;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use crate::{
    account::Snapshot,
    config::Config,
    expose::{Collected, Status, http::Views},
    ledger::WriterHandle,
};

/// What the handlers read.
pub(super) fn views(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    status: Arc<Status>,
    ledger: WriterHandle,
    config: &Config,
    sample_ns: watch::Receiver<u64>,
) -> anyhow::Result<Views> {
    let registry = Arc::new(Registry::new());
    Collected {
        snapshots: snapshots.clone(),
        status: Arc::clone(&status),
        ledger: ledger.clone(),
        data_dir: config.data_dir.clone(),
    }
    .register(&registry)
    .context("the metrics cannot be registered")?;
    Ok(Views { snapshots, registry, status, ledger, sample_ns })
}

/// Serves on whatever listens, each in its own task.
pub(super) fn serve(router: Router, tcp: Option<TcpListener>, unix: UnixListener) {
    if let Some(tcp) = tcp {
        let router = router.clone();
        tokio::spawn(async move {
            if let Err(error) = axum::serve(tcp, router).await {
                tracing::error!(%error, "HTTP over TCP has ended");
            }
        });
    }
    tokio::spawn(async move {
        if let Err(error) = axum::serve(unix, router).await {
            tracing::error!(%error, "HTTP over the Unix socket has ended");
        }
    });
}
