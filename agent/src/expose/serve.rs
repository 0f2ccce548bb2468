//! The views' wiring: their routes, served on both listeners.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use super::{
    Collected, Status,
    annotation::{Annotations, Peer},
    http::{self, Views},
};
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
pub fn serve(views: Views, annotations: Annotations, tcp: Option<TcpListener>, unix: UnixListener) {
    if let Some(tcp) = tcp {
        let router = http::tcp_router(views.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(tcp, router).await {
                tracing::error!(%error, "HTTP over TCP has ended");
            }
        });
    }
    let router = http::unix_router(views, annotations).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move {
        if let Err(error) = axum::serve(unix, router).await {
            tracing::error!(%error, "HTTP over the Unix socket has ended");
        }
    });
}
