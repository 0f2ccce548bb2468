//! The HTTP server: routes, and the two places it listens.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::{
        Path as UrlPath, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

#[cfg(feature = "metrics")]
use super::Collected;
use super::{
    annotation::{self, Annotations},
    api,
    compress::compress,
    etag, fleet, openapi, own_status, page,
    problem::Problem,
    status::Status,
    stream::{self, Streams},
    usage,
};
use crate::{
    account::{Snapshot, past::Past},
    clock, health,
};

/// What handlers read.
#[derive(Clone)]
pub struct Views {
    /// The newest state.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Changes when there is something new for readers of samples.
    pub news: watch::Receiver<()>,
    /// What is exposed to Prometheus.
    #[cfg(feature = "metrics")]
    pub collected: Collected,
    /// What can be measured.
    pub status: Arc<Status>,
    /// The sample interval now in force, nanoseconds.
    pub sample_ns: watch::Receiver<u64>,
    /// The time between two points of history now in force, nanoseconds.
    pub history_ns: watch::Receiver<u64>,
    /// The recent past of each VM.
    pub history: Arc<dyn Past>,
    /// What streams are made from.
    pub streams: Streams,
}

impl Views {
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    fn health(&self) -> Result<(), String> {
        let now = clock::boot_ns().map_err(|error| error.to_string())?;
        let sample_ns = *self.sample_ns.borrow();
        health::check(&self.snapshot(), now, sample_ns)
    }
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The TCP address.
    #[error("cannot listen on {address} (set `listen` to a free address, or to \"off\")")]
    Tcp {
        /// What was asked for.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The Unix socket.
    #[error("cannot listen on the socket {path} (set `socket`, or make its directory writable)")]
    Unix {
        /// What was asked for.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Another agent answers there.
    #[error("another agent already answers on {0}")]
    InUse(String),
}

/// The routes that both listeners have.
fn router(views: Views) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/v1/status", get(status))
        .route("/v1/vms", get(vms))
        .route("/v1/vms/{vm_id}", get(vm))
        .route("/v1/vms/{vm_id}/usage", get(usage::latest))
        .route("/v1/vms/{vm_id}/usage/range", get(usage::range))
        .route("/v1/vms/{vm_id}/usage/stream", get(stream::samples))
        .route("/v1/events", get(stream::events))
        .route("/v1/usage", get(fleet::latest))
        .route("/v1/usage/range", get(fleet::range))
        .route("/v1/openapi.json", get(openapi::get))
        .merge(page::routes())
        .fallback(|uri: axum::http::Uri| async move { Problem::not_found(format!("there is no {}", uri.path())) })
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn(compress))
        .with_state(views)
}

/// What the Unix socket has beside them.
pub fn unix_router(views: Views, annotations: Annotations) -> Router {
    let own = Router::new().route("/v1/annotations", post(annotation::annotate)).layer(annotation::body_limit());
    own.method_not_allowed_fallback(wrong_method).with_state(annotations).merge(router(views))
}

/// What TCP has beside them: the refusal of what it has not.
pub fn tcp_router(views: Views) -> Router {
    let own = Router::new().route("/v1/annotations", post(annotation::elsewhere));
    own.method_not_allowed_fallback(wrong_method).merge(router(views))
}

/// Binds the TCP address.
///
/// # Errors
/// Names the address.
pub async fn listen_tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Tcp { address, source })
}

/// Binds the Unix socket, mode 0660; a file left by a dead agent is replaced, a living agent's is not.
///
/// # Errors
/// Names the path.
pub fn listen_unix(path: &Path) -> Result<UnixListener, ListenError> {
    use std::os::unix::fs::PermissionsExt as _;
    let name = path.display().to_string();
    let failed = |source| ListenError::Unix { path: name.clone(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse(name));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    Problem::method(format!("{} takes no {method}", uri.path()))
}

#[cfg(not(feature = "metrics"))]
async fn metrics() -> Response {
    Problem::not_found("this kvmeter was built without the cargo feature \"metrics\"".to_owned()).into_response()
}

#[cfg(feature = "metrics")]
async fn metrics(State(views): State<Views>) -> Response {
    match views.collected.text() {
        Ok((pieces, kind)) => {
            let pieces = futures_util::stream::iter(pieces.map(Ok::<_, std::convert::Infallible>));
            ([(axum::http::header::CONTENT_TYPE, kind)], axum::body::Body::from_stream(pieces)).into_response()
        }
        Err(error) => Problem::internal(format!("the metrics cannot be encoded: {error}")).into_response(),
    }
}

async fn healthz(State(views): State<Views>) -> Response {
    match views.health() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => Problem::unavailable(why).into_response(),
    }
}

async fn status(State(views): State<Views>) -> Response {
    let health = views.health().err().unwrap_or_else(|| "ok".to_owned());
    Json(own_status::answer(&views.snapshot(), &views.status, health, views.history.as_ref())).into_response()
}

/// Parameters of the list.
#[derive(serde::Deserialize)]
struct ListQuery {
    /// Everything known of each VM instead of the short form.
    #[serde(default)]
    detail: bool,
}

async fn vms(
    State(views): State<Views>,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(ListQuery { detail: true })) => {
            Json(api::details(&views.snapshot(), views.history.as_ref())).into_response()
        }
        // It changes when VMs do, not with each sample.
        Ok(Query(_)) => match serde_json::to_vec(&api::list(&views.snapshot())) {
            Ok(list) => {
                let tag = etag::of(&list);
                etag::answer(&headers, "application/json", list, &tag)
            }
            Err(error) => Problem::internal(format!("the list cannot be written: {error}")).into_response(),
        },
        Err(_) => Problem::parameter("detail", "detail must be true or false".to_owned()).into_response(),
    }
}

async fn vm(State(views): State<Views>, vm_id: Result<UrlPath<String>, PathRejection>) -> Response {
    let Ok(UrlPath(vm_id)) = vm_id else { return not_text() };
    let snapshot = views.snapshot();
    match api::find(&snapshot, &vm_id) {
        Some(vm) => Json(api::detail(vm, &snapshot, views.history.as_ref())).into_response(),
        None => unknown(&vm_id),
    }
}

pub(super) fn not_text() -> Response {
    Problem::parameter("vm_id", "the vm_id in the path is no UTF-8 text".to_owned()).into_response()
}

pub(super) fn unknown(vm_id: &str) -> Response {
    Problem::not_found(format!("no VM has the vm_id {vm_id:?}")).into_response()
}
