//! The views' wiring: their routes, served on both listeners.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

#[cfg(feature = "metrics")]
use super::Collected;
use super::{
    Status,
    annotation::{Annotations, Peer},
    http::{self, Views},
    stream::Streams,
};
use crate::account::{Snapshot, past::Past};

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
    history_ns: watch::Receiver<u64>,
    history: Arc<dyn Past>,
    streams: Streams,
) -> Views {
    #[cfg(feature = "metrics")]
    let collected = Collected {
        snapshots: snapshots.clone(),
        status: Arc::clone(&status),
        data_dir: own.data_dir,
        history: Arc::clone(&history),
        streams: streams.clone(),
        counted: own.counted,
    };
    Views {
        snapshots,
        #[cfg(feature = "metrics")]
        collected,
        status,
        sample_ns,
        history_ns,
        history,
        streams,
    }
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
