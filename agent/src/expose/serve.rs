//! The views' wiring: one router, served on both listeners.

use std::{path::PathBuf, sync::Arc};

use axum::Router;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

#[cfg(feature = "metrics")]
use super::Collected;
use super::{Status, http::Views};
use crate::account::Snapshot;

/// What a scrape tells of the agent itself.
pub struct Own {
    /// Where the ledger is kept.
    pub data_dir: PathBuf,
    /// What it counts about its own work.
    #[cfg(feature = "metrics")]
    pub counted: super::PrometheusMetrics,
}

/// What the handlers read.
#[must_use]
pub fn views(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    status: Arc<Status>,
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "only a scrape tells of them"))] own: Own,
    sample_ns: watch::Receiver<u64>,
) -> Views {
    #[cfg(feature = "metrics")]
    let collected = Collected {
        snapshots: snapshots.clone(),
        status: Arc::clone(&status),
        data_dir: own.data_dir,
        counted: own.counted,
    };
    Views {
        snapshots,
        #[cfg(feature = "metrics")]
        collected,
        status,
        sample_ns,
    }
}

/// Serves on whatever listens, each in its own task.
pub fn serve(router: Router, tcp: Option<TcpListener>, unix: UnixListener) {
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
