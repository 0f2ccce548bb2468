//! One request of a web hook: POST of the line, one connection a try, no redirect followed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::prepared::Target;
use super::ran::Ran;
use super::secret::Secret;
use crate::config::SecretAs;
use crate::lifecycle::Event;
use crate::metrics::Outcome;
use crate::{cause, clock};

/// What is kept of an answer.
const KEPT_BYTES: usize = 512;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("no connection to {0}")]
    Connect(String, #[source] std::io::Error),
    #[cfg(feature = "tls")]
    #[error("no encrypted connection to {0}")]
    Tls(String, #[source] std::io::Error),
    #[error("no answer from {0}")]
    Http(String, #[source] hyper::Error),
    #[error("the request cannot be made")]
    Malformed(#[from] hyper::http::Error),
    #[error("the clock cannot be read")]
    Clock(#[source] std::io::Error),
}

/// Posts the line; whoever calls bounds the time and may drop this at any point.
pub(super) async fn post(target: &Target, name: &str, event: &Event, secret: Option<&Secret>) -> Ran {
    match try_post(target, name, event, secret).await {
        Ok((status, printed)) if status.is_success() => {
            Ran { outcome: Outcome::Success, said: String::new(), printed, again: false }
        }
        Ok((status, printed)) => {
            // Asked again these answer the same; a redirect is for whoever wrote the address.
            let again = status.is_server_error()
                || matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
                );
            Ran { outcome: Outcome::Failure, said: format!("the answer is {status}"), printed, again }
        }
        Err(error) => Ran::failure(cause::chain(&error)),
    }
}

async fn try_post(
    target: &Target,
    name: &str,
    event: &Event,
    secret: Option<&Secret>,
) -> Result<(StatusCode, String), RequestError> {
    let request = request(target, name, event, secret)?;
    let (url, host) = (&target.url, || target.url.authority.clone());
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = stream.map_err(|source| RequestError::Connect(host(), source))?;
    #[cfg(feature = "tls")]
    if let Some(tls) = &target.tls {
        let stream = tls.connect(stream).await.map_err(|source| RequestError::Tls(host(), source))?;
        return exchange(stream, request).await.map_err(|source| RequestError::Http(host(), source));
    }
    exchange(stream, request).await.map_err(|source| RequestError::Http(host(), source))
}

fn request(
    target: &Target,
    name: &str,
    event: &Event,
    secret: Option<&Secret>,
) -> Result<Request<Full<Bytes>>, RequestError> {
    let mut request = Request::post(&target.url.path)
        .header(HOST, &target.url.authority)
        .header(USER_AGENT, concat!("kvmeter/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header("kvmeter-hook", name)
        .header("kvmeter-kind", event.kind.as_str())
        .header("kvmeter-id", &event.id);
    match (secret, target.secret_as) {
        (None, _) => {}
        (Some(secret), SecretAs::Bearer) => {
            let mut value =
                HeaderValue::try_from(format!("Bearer {}", secret.reveal())).map_err(hyper::http::Error::from)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        (Some(secret), SecretAs::Hmac) => {
            let now = clock::now().map_err(RequestError::Clock)?.unix_ns / 1_000_000_000;
            request = request
                .header("kvmeter-timestamp", now)
                .header("kvmeter-signature", signature(secret.reveal(), now, &event.line));
        }
    }
    Ok(request.body(Full::new(Bytes::copy_from_slice(&event.line)))?)
}

/// `sha256=` and the hex HMAC-SHA256 of `<timestamp>.<body>`: the time is signed, so an old request can be refused.
pub(super) fn signature(key: &str, timestamp: u64, body: &[u8]) -> String {
    // A key of any length is one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    digest.iter().fold("sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, String)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Dropped with this call, and the connection with it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer: Response<Incoming> = sender.send_request(request).await?;
    let (status, mut body) = (answer.status(), answer.into_body());
    let mut kept = Vec::new();
    while kept.len() < KEPT_BYTES
        && let Some(frame) = body.frame().await
    {
        // What it says beyond its status is for the log only.
        let Ok(frame) = frame else { break };
        let data = frame.data_ref().map(|data| &data[..data.len().min(KEPT_BYTES - kept.len())]);
        kept.extend_from_slice(data.unwrap_or_default());
    }
    Ok((status, String::from_utf8_lossy(&kept).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_hmac_sha256_of_time_and_body() {
        // Made with `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key`.
        let expected = "sha256=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03";
        assert_eq!(signature("key", 1_700_000_000, b"{\"a\":1}"), expected);
    }
}
