//! The views' wiring: their routes, served on both listeners.

use std::{path::PathBuf, sync::Arc};

use axum::{extract::ConnectInfo, middleware};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::watch,
};

#[cfg(feature = "metrics")]
use super::Collected;
use super::{
    Status,
    annotation::{Annotations, Peer},
    connection::{self, Counts, Listener, Places, attend},
    http::{self, Views},
    stream::{self, MOST_STREAMS, Streams},
    web::{Web, guard},
};
use crate::account::{Snapshot, past::Past};

/// What a scrape tells of the agent itself.
pub struct Own {
    /// Where the ledger is kept.
    pub data_dir: PathBuf,
    /// What bounds of connections cost.
    pub connections: Counts,
    /// What it counts about its own work.
    #[cfg(feature = "metrics")]
    pub counted: super::PrometheusMetrics,
}

/// What the handlers read. To be called on the runtime.
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
        connections: own.connections,
        last: Arc::default(),
    };
    Views {
        news: stream::news(snapshots.clone()),
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

/// How many connections there may be at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Over TCP.
    pub connections: usize,
    /// Descriptors that the agent may have; a flood leaves most of them to what is metered.
    pub files: u64,
}

/// Connections over the Unix socket: whoever may use it is trusted, and has mistakes.
const UNIX_CONNECTIONS: usize = 128;

impl Bounds {
    fn fitting(&self, wanted: usize) -> usize {
        wanted.min(usize::try_from(self.files / 8).unwrap_or(usize::MAX)).max(8)
    }

    /// Counters, and room for what fits.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let tcp = self.fitting(self.connections);
        if tcp < self.connections {
            let Self { connections, files } = self;
            tracing::warn!(
                wanted = connections,
                taken = tcp,
                open_files = files,
                "http.max_connections is lowered to an eighth of the descriptors that the agent may have"
            );
        }
        Counts::new([tcp, self.fitting(UNIX_CONNECTIONS)])
    }
}

/// Serves on whatever listens, each in its own task, with places and streams of its own: a flood of the one locks nobody
/// out of the other.
pub fn serve(
    views: Views,
    annotations: Annotations,
    counts: &Counts,
    bounds: Bounds,
    web: Arc<Web>,
    tcp: Option<TcpListener>,
    unix: UnixListener,
) {
    let places = |listener| Places::of(counts.clone(), listener);
    let apart = || {
        let streams = views.streams.apart(bounds.fitting(MOST_STREAMS));
        Views { streams, ..views.clone() }
    };
    if let Some(tcp) = tcp {
        let router = http::tcp_router(apart()).layer(middleware::from_fn_with_state(Arc::clone(&web), guard));
        let one = move |stream, slot| {
            let (web, router) = (Arc::clone(&web), router.clone());
            async move {
                let tls = web.fresh().await.tls.clone();
                connection::serve(stream, slot, tls, router, |_| {}).await;
            }
        };
        tokio::spawn(attend(tcp, places(Listener::Tcp), one));
    }
    let router = http::unix_router(apart(), annotations);
    let one = move |stream: UnixStream, slot| {
        let peer = ConnectInfo(Peer::of(&stream));
        connection::serve(stream, slot, (), router.clone(), move |request| {
            request.extensions_mut().insert(peer);
        })
    };
    tokio::spawn(attend(unix, places(Listener::Unix), one));
}
