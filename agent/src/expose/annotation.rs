//! `POST /v1/annotations`: over the Unix socket alone, from peers whose uid may. What is stated goes to whoever takes it;
//! the answer is 202 once it has been taken.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    body::Bytes,
    extract::{ConnectInfo, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::net::UnixStream;

use super::problem::Problem;
use crate::lifecycle::annotation::{MAX_BODY, Request, parse};

/// Why a statement is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It is about nobody there is.
    Unknown(String),
    /// There is no room, or nobody to take it.
    Busy(String),
}

/// What becomes of a statement.
pub type Taken = Pin<Box<dyn Future<Output = Result<(), NotTaken>> + Send>>;
/// Hands a statement, and who made it, to whoever takes it.
pub type Take = Arc<dyn Fn(Request, String) -> Taken + Send + Sync>;

/// Who may state something, and where it goes.
#[derive(Clone)]
pub struct Annotations {
    /// User ids that may.
    pub uids: Arc<[u32]>,
    /// Where it goes.
    pub take: Take,
}

/// Who is at the other end of a connection of the Unix socket, as the kernel says (SO_PEERCRED).
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    uid: Option<u32>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> Self {
        Self { uid: stream.peer_cred().ok().map(|peer| peer.uid()) }
    }
}

/// Over the Unix socket.
pub(super) async fn annotate(
    State(annotations): State<Annotations>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Some(uid) = peer.uid.filter(|uid| annotations.uids.contains(uid)) else {
        let who = peer.uid.map_or_else(|| "whose user id is not known".to_owned(), |uid| format!("with user id {uid}"));
        return Problem::forbidden(format!(
            "a peer {who} may not annotate (see annotations.uids in the configuration)"
        ))
        .into_response();
    };
    let Ok(body) = body else {
        let detail = format!("the body must be whole and at most {MAX_BODY} bytes long");
        return Problem::parameter("body", detail).into_response();
    };
    let request = match parse(&body) {
        Ok(request) => request,
        Err(bad) => return Problem::named(bad.parameter, bad.detail).into_response(),
    };
    match (annotations.take)(request, format!("uid:{uid}")).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(NotTaken::Unknown(why)) => Problem::not_found(why).into_response(),
        Err(NotTaken::Busy(why)) => Problem::unavailable(why).into_response(),
    }
}

/// Over TCP, where nobody knows who asks.
pub(super) async fn elsewhere() -> Response {
    Problem::forbidden("annotations are taken on the Unix socket only".to_owned()).into_response()
}

/// A body over the bound.
pub(super) fn body_limit() -> axum::extract::DefaultBodyLimit {
    axum::extract::DefaultBodyLimit::max(MAX_BODY)
}
