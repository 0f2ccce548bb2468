//! One question: GET of the endpoint, one connection, no redirect followed, bounded in bytes.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Instant,
};

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::text::{self, Scrape, TextError};
use crate::config::{Url, UrlError, Workload};

/// Bytes of an answer.
const MOST_BYTES: usize = 4 << 20;
/// Bytes of its head.
const HEAD_BYTES: usize = 16 << 10;

/// Where a workload is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    to: SocketAddr,
    authority: String,
    path: String,
}

/// Why an address is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    /// It is not even one of a web server.
    #[error("the address {0}")]
    Url(UrlError),
    /// https.
    #[error("the address must begin with http://: what a guest's certificate would prove is not known here")]
    Encrypted,
    /// A name.
    #[error("the address must have the host as an IP address: no name server is asked for a guest")]
    Name,
}

/// Why there is no signal.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    #[error("no answer")]
    Http(#[source] hyper::Error),
    #[error("the request cannot be made")]
    Request(#[from] hyper::http::Error),
    #[error("the answer is {0}, and no redirect is followed")]
    Status(StatusCode),
    #[error("the answer is longer than {MOST_BYTES} bytes")]
    Long,
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer says nothing of requests")]
    Text(#[from] TextError),
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let url: Url = text.parse().map_err(AddressError::Url)?;
        if url.tls {
            return Err(AddressError::Encrypted);
        }
        let ip: IpAddr = url.host.parse().map_err(|_| AddressError::Name)?;
        let path = if url.path == "/" { "/metrics".to_owned() } else { url.path };
        Ok(Self { to: SocketAddr::new(ip, url.port), authority: url.authority, path })
    }
}

/// When the answer's head had come, and what it says; whoever calls bounds the time and may drop this at any point.
pub(super) async fn ask(target: &Target, settings: &Workload) -> Result<(Instant, Scrape), AskError> {
    let request = Request::get(&target.path)
        .header(HOST, &target.authority)
        .header(USER_AGENT, concat!("kvmeter/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "text/plain;version=0.0.4")
        .body(Empty::<Bytes>::new())?;
    let stream = TcpStream::connect(target.to).await.map_err(AskError::Connect)?;
    let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(AskError::Http)?;
    // Dropped with this call, and the connection with it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = sender.send_request(request).await.map_err(AskError::Http)?;
    if answer.status() != StatusCode::OK {
        return Err(AskError::Status(answer.status()));
    }
    // The counters were read about now.
    let at = Instant::now();
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
    let body =
        body.map_err(|error| if error.is::<LengthLimitError>() { AskError::Long } else { AskError::Body(error) })?;
    let scrape = text::read(&body.to_bytes(), &settings.requests, &settings.latency)?;
    Ok((at, scrape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_http_to_an_ip_address_and_asks_for_metrics() {
        let of = |text: &str| text.parse::<Target>().map(|target| (target.to.to_string(), target.path));
        assert_eq!(of("http://192.0.2.7:9100"), Ok(("192.0.2.7:9100".into(), "/metrics".into())));
        assert_eq!(of("http://[2001:db8::7]/x?y=1"), Ok(("[2001:db8::7]:80".into(), "/x?y=1".into())));
        assert_eq!(of("http://localhost:9100/metrics"), Err(AddressError::Name));
        assert!(of("https://192.0.2.7/").is_err());
        assert_eq!(of("192.0.2.7:9100"), Err(AddressError::Url(UrlError::Scheme)));
    }
}
