//! The views' wiring: one router, served on both listeners.

use std::{path::PathBuf, sync::Arc};

use axum::Router;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use super::{Collected, Status, http::Views};
use crate::{account::Snapshot, history::Store};

/// What the handlers read.
#[must_use]
pub fn views(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    status: Arc<Status>,
    data_dir: PathBuf,
    sample_ns: watch::Receiver<u64>,
    history_ns: watch::Receiver<u64>,
    history: Arc<Store>,
) -> Views {
    let collected = Collected { snapshots: snapshots.clone(), status: Arc::clone(&status), data_dir };
    Views { snapshots, collected, status, sample_ns, history_ns, history }
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
