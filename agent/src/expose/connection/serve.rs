//! One connection from its first byte to its last: HTTP/1.1, by the clock of its place.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, header},
    response::{IntoResponse as _, Response},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};

use super::{
    slot::Slot,
    watched::{Tracked, Watched},
};
use crate::expose::problem::Problem;

/// The longest head of a request, its line included, bytes. A longer one is answered with 431.
const MOST_HEAD: usize = 16 << 10;
/// What is held of a connection's bytes in each direction at most.
const MOST_HELD: usize = 64 << 10;
/// For a handler to answer, a body that it reads included. Most take milliseconds.
const HANDLER: Duration = Duration::from_secs(30);

/// What is done with a connection's bytes before they are HTTP.
pub(in crate::expose) trait Handshake<S>: Send {
    /// What they are then.
    type Io: AsyncRead + AsyncWrite + Unpin + Send;
    /// Does it; the error says what the other end did wrong.
    fn shake(self, io: S) -> impl Future<Output = std::io::Result<Self::Io>> + Send;
}

/// Nothing is done.
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Handshake<S> for () {
    type Io = S;
    async fn shake(self, io: S) -> std::io::Result<S> {
        Ok(io)
    }
}

/// Serves until the client or the clock ends it. `prepare` adds to each request what is known of its connection.
pub(in crate::expose) async fn serve<S, H>(
    io: S,
    slot: Arc<Slot>,
    handshake: H,
    router: Router,
    prepare: impl Fn(&mut Request) + Send,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    H: Handshake<Watched<S>>,
{
    let watched = Watched::new(io, Arc::clone(&slot));
    let answering = Arc::clone(&slot);
    let work = async move {
        let io = match handshake.shake(watched).await {
            Ok(io) => io,
            Err(error) => return tracing::debug!(%error, "a connection could not be begun"),
        };
        let service = service_fn(|request: hyper::Request<Incoming>| {
            answering.working();
            let mut request = request.map(Body::new);
            prepare(&mut request);
            let (router, slot) = (router.clone(), Arc::clone(&answering));
            async move { Ok::<_, Infallible>(answer(router, request, slot).await) }
        });
        let mut http = http1::Builder::new();
        // The place's clock sees to what this would, and to idle connections, which it would not tell apart.
        http.header_read_timeout(None).max_header_size(MOST_HEAD).max_buf_size(MOST_HELD);
        if let Err(error) = http.serve_connection(TokioIo::new(io), service).await {
            tracing::debug!(%error, "a connection ended badly");
        }
    };
    in_time(work, &slot).await;
}

/// Does the work until its place's time is up.
async fn in_time(work: impl Future<Output = ()>, slot: &Slot) {
    let mut work = pin!(work);
    let mut sleep: Pin<&mut Sleep> = pin!(tokio::time::sleep_until(Instant::now()));
    poll_fn(|cx| {
        if work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // What was done just now may have changed it.
        let Some(deadline) = slot.deadline() else { return Poll::Pending };
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        ready!(sleep.as_mut().poll(cx));
        // Before the connection is closed, so that who sees that can read it.
        slot.count_late();
        Poll::Ready(())
    })
    .await;
}

async fn answer(router: Router, request: Request, slot: Arc<Slot>) -> Response {
    let has_body = *request.method() == Method::POST;
    let called = TowerToHyperService::new(router).call(request);
    let mut response = match tokio::time::timeout(HANDLER, called).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) if has_body => Problem::late(format!("the request was not whole within {HANDLER:?}")).into_response(),
        Err(_) => Problem::unavailable(format!("there was no answer within {HANDLER:?}")).into_response(),
    };
    let headers = response.headers_mut();
    let stream =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if stream {
        // Its place is given back, so there is none for another request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        slot.streaming();
        response
    } else {
        slot.sending();
        response.map(|body| Body::new(Tracked::new(body, slot)))
    }
}
