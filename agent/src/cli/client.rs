//! Asking a running agent over its Unix socket.

use std::path::Path;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header, http::request::Builder};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// The longest answer taken.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// How long an answer may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// An answer: its status and its JSON.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; null if it is empty.
    pub body: Value,
}

/// `GET path`.
///
/// # Errors
/// Says when no agent answers on the socket.
pub fn get(socket: &Path, path: &str) -> anyhow::Result<Answer> {
    send(socket, Request::get(path), Bytes::new())
}

/// `POST path` with a JSON body.
///
/// # Errors
/// As [`get`].
pub fn post(socket: &Path, path: &str, body: &Value) -> anyhow::Result<Answer> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    send(socket, request, serde_json::to_vec(body)?.into())
}

fn send(socket: &Path, request: Builder, body: Bytes) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match tokio::time::timeout(PATIENCE, ask(socket, request, body)).await {
            Ok(answer) => answer,
            Err(_) => bail!("the agent on {} did not answer within {PATIENCE:?}", socket.display()),
        }
    })
}

async fn ask(socket: &Path, request: Builder, body: Bytes) -> anyhow::Result<Answer> {
    let stream = tokio::net::UnixStream::connect(socket).await.with_context(|| {
        format!("no agent answers on {} (is `kvmeter run` running? else give --socket)", socket.display())
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("the agent speaks no HTTP")?;
    let driver = tokio::spawn(connection);
    let request = request.header(header::HOST, "kvmeter").body(Full::new(body))?;
    let response = sender.send_request(request).await.context("the agent did not answer")?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the agent's answer broke off: {error}"))?.to_bytes();
    driver.abort();
    let body =
        if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).context("the answer is no JSON")? };
    Ok(Answer { status, body })
}

/// One segment of a path, percent-encoded.
#[must_use]
pub fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~:".contains(&byte) || (byte == b'.' && text.len() > 2) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_id_is_one_path_segment() {
        assert_eq!(segment("web-1"), "web-1");
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
